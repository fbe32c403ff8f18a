//! NetworkPolicies: exactly the flows that a cluster needs, and nothing else in or out.
//!
//! The kubelet's probes come from the node, which no policy holds back.

use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::{Redis, Topology};

/// Where nodes may cache DNS.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// The policy of a role; none where they are switched off, or where the role has no pods of ours.
pub fn policy(topology: &Topology, role: Role) -> Option<Value> {
    let metrics_from = topology.network.as_ref()?;
    if role == Role::Redis && topology.redis.own().is_none() {
        return None;
    }
    let pods = |role| json!({"podSelector": {"matchLabels": names::role_selector(&topology.name, role)}});
    let tcp = |port: i32| json!([{"protocol": "TCP", "port": port}]);
    let both = |ports: [i32; 2]| json!(ports.map(|port| json!({"protocol": "TCP", "port": port})));
    let group = || both([names::REDIS_PORT, names::SENTINEL_PORT]);
    let bus = || both([names::REDIS_PORT, names::REDIS_BUS_PORT]);
    let operator = || {
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": topology.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "hebb-operator"}},
        })
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
                [Role::Gateway, Role::Coordinator, Role::Worker].map(pods).iter().chain(others).cloned().collect()
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
    if role != Role::Redis || topology.redis.members().is_some() {
        egress.push(json!({
            "to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
        }));
        egress.push(match &topology.redis {
            Redis::Sentinel { .. } => json!({"to": [pods(Role::Redis)], "ports": group()}),
            Redis::Cluster { .. } if role == Role::Redis => json!({"to": [pods(Role::Redis)], "ports": bus()}),
            Redis::Standalone(_) | Redis::Cluster { .. } => {
                json!({"to": [pods(Role::Redis)], "ports": tcp(names::REDIS_PORT)})
            }
            // Where it is, only DNS, its Sentinels and its Cluster know.
            Redis::External(external) if external.cluster || !external.sentinels.is_empty() => json!({}),
            Redis::External(external) => json!({"ports": tcp(external.port)}),
        });
    }
    if role == Role::Coordinator {
        egress.push(json!({"to": [pods(Role::Coordinator)], "ports": tcp(port)}));
    }
    Some(json!({"spec": {
        "podSelector": {"matchLabels": names::role_selector(&topology.name, role)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }}))
}
