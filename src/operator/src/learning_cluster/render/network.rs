//! NetworkPolicies: exactly the flows that a cluster needs, and nothing else in or out. Where an address isn't known, of an
//! External Redis and of collectors, its port is let out to everywhere.
//!
//! The kubelet's probes come from the node, which no policy holds back.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::{Redis, Topology};

/// Where nodes may cache DNS.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";
/// The ports of the pods behind the cluster's DNS, which are what policies are held against: OpenShift's have the second.
const DNS_PORTS: [i32; 2] = [53, 5353];

/// The policy of a role; none where they are switched off, or where the role has no pods of ours.
pub fn policy(topology: &Topology, role: Role) -> Option<Value> {
    let metrics_from = topology.network.as_ref()?;
    if role == Role::Redis && topology.redis.own().is_none() {
        return None;
    }
    let pods = |role| pods(topology, role);
    let operator = || {
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": topology.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "hebb-operator"}},
        })
    };
    let backups = || {
        let selector = names::backup_selector(&topology.name);
        topology.backs_up().then(|| json!({"podSelector": {"matchLabels": selector}}))
    };
    let port = match role {
        Role::Gateway => names::GATEWAY_PORT,
        Role::Coordinator => names::COORDINATOR_PORT,
        Role::Worker => names::WORKER_PORT,
        Role::Redis => names::REDIS_PORT,
    };
    let mut ingress = match role {
        // The API is for whoever has its address; who that may be is the decision of the namespace's own policies.
        Role::Gateway => vec![json!({"ports": tcp(port)})],
        Role::Coordinator => vec![json!({
            "from": [
                pods(Role::Coordinator),
                operator(),
            ],
            "ports": tcp(port),
        })],
        Role::Worker => vec![],
        Role::Redis => {
            let nodes_and = |others: &[Value]| -> Vec<Value> {
                let nodes = [Role::Gateway, Role::Coordinator, Role::Worker].map(pods);
                nodes.into_iter().chain(backups()).chain(others.iter().cloned()).collect()
            };
            match &topology.redis {
                Redis::Sentinel { .. } => vec![
                    json!({"from": nodes_and(&[pods(Role::Redis)]), "ports": group()}),
                    json!({"from": [operator()], "ports": tcp(names::SENTINEL_PORT)}),
                ],
                // What comes in on the bus is believed without a password.
                Redis::Cluster { .. } => vec![
                    json!({"from": nodes_and(&[operator()]), "ports": tcp(port)}),
                    json!({"from": [pods(Role::Redis)], "ports": bus()}),
                ],
                Redis::Standalone(_) | Redis::External(_) => vec![json!({"from": nodes_and(&[]), "ports": tcp(port)})],
            }
        }
    };
    if !metrics_from.is_empty() && matches!(role, Role::Coordinator | Role::Worker) {
        ingress.push(json!({"from": [{"namespaceSelector": {"matchLabels": metrics_from}}], "ports": tcp(port)}));
    }
    let mut egress = Vec::new();
    if role == Role::Redis && matches!(topology.redis, Redis::Cluster { .. }) {
        egress.extend([to_names(), json!({"to": [pods(Role::Redis)], "ports": bus()})]);
    } else if role != Role::Redis || topology.redis.members().is_some() {
        egress.extend(to_redis(topology));
    }
    if role == Role::Coordinator {
        egress.push(json!({"to": [pods(Role::Coordinator)], "ports": tcp(port)}));
    }
    egress.extend(collector_ports(topology, role).into_iter().map(|collector| json!({"ports": tcp(collector)})));
    Some(json!({"spec": {
        "podSelector": {"matchLabels": names::role_selector(&topology.name, role)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }}))
}

/// The ports of the collectors of metrics and traces.
fn collector_ports(topology: &Topology, role: Role) -> BTreeSet<i32> {
    let metrics = topology.metrics_of(role).map(|metrics| &metrics.endpoint);
    let traces = topology.traces_of(role).map(|traces| &traces.endpoint);
    let ports = metrics.into_iter().chain(traces).filter_map(|endpoint| endpoint.rsplit_once(':')?.1.parse().ok());
    ports.collect()
}

/// The policy of the pods that back up and restore: to Redis, and nobody to them.
pub fn backup_policy(topology: &Topology) -> Option<Value> {
    topology.network.as_ref().filter(|_| topology.backs_up())?;
    Some(json!({"spec": {
        "podSelector": {"matchLabels": names::backup_selector(&topology.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": to_redis(topology),
    }}))
}

/// What lets a pod find Redis and reach it.
fn to_redis(topology: &Topology) -> [Value; 2] {
    let redis = match &topology.redis {
        Redis::Sentinel { .. } => json!({"to": [pods(topology, Role::Redis)], "ports": group()}),
        Redis::Standalone(_) | Redis::Cluster { .. } => {
            json!({"to": [pods(topology, Role::Redis)], "ports": tcp(names::REDIS_PORT)})
        }
        // Where its servers listen, only the Cluster knows.
        Redis::External(external) if external.cluster => json!({"ports": [{"protocol": "TCP"}]}),
        Redis::External(external) => {
            let port = |address: &String| address.rsplit_once(':')?.1.parse::<NonZeroU16>().ok();
            let sentinels = external.sentinels.iter().filter_map(port).map(|port| i32::from(port.get()));
            json!({"ports": ports(sentinels.chain([external.port]).collect::<BTreeSet<i32>>())})
        }
    };
    [to_names(), redis]
}

/// What lets a pod ask for names.
fn to_names() -> Value {
    let ports =
        DNS_PORTS.map(|port| ["UDP", "TCP"].map(|protocol| json!({"protocol": protocol, "port": port}))).concat();
    json!({"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}], "ports": ports})
}

fn pods(topology: &Topology, role: Role) -> Value {
    json!({"podSelector": {"matchLabels": names::role_selector(&topology.name, role)}})
}

fn tcp(port: i32) -> Value {
    ports([port])
}

/// The ports of a pod of Redis with a Sentinel.
fn group() -> Value {
    ports([names::REDIS_PORT, names::SENTINEL_PORT])
}

/// The ports of a pod of a Redis Cluster.
fn bus() -> Value {
    ports([names::REDIS_PORT, names::REDIS_BUS_PORT])
}

fn ports(all: impl IntoIterator<Item = i32>) -> Value {
    all.into_iter().map(|port| json!({"protocol": "TCP", "port": port})).collect()
}
