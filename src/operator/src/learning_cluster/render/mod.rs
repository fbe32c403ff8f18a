//! Renders the objects of a LearningCluster. Pure: the same topology gives the same objects.
//!
//! An object names only the fields that Hebb owns; what the API server adds stays its own.

mod backup;
mod member;
mod network;
mod pods;
mod policy;
mod redis;
mod roles;
mod sentinel;
mod sharded;
mod tls;

use std::collections::BTreeMap;

use hebb_api::DeletionPolicy;
use hebb_api::names::{self, Role};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::topology::{Redis, Server, Topology, digest};

/// Annotation with the digest of what was applied: tells a removed field from one that was never there.
pub const APPLIED_ANNOTATION: &str = "hebb.dev/applied-digest";

/// The kinds of objects that a LearningCluster is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ServiceAccount,
    Secret,
    ConfigMap,
    Service,
    StatefulSet,
    Deployment,
    ReplicaSet,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
    NetworkPolicy,
    PersistentVolumeClaim,
    CronJob,
    Job,
    Certificate,
}

impl Kind {
    /// Group, version, kind and plural.
    pub fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Kind::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Kind::Secret => ("", "v1", "Secret", "secrets"),
            Kind::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Kind::Service => ("", "v1", "Service", "services"),
            Kind::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Kind::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Kind::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Kind::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Kind::HorizontalPodAutoscaler => {
                ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
            Kind::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Kind::PersistentVolumeClaim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Kind::CronJob => ("batch", "v1", "CronJob", "cronjobs"),
            Kind::Job => ("batch", "v1", "Job", "jobs"),
            Kind::Certificate => ("cert-manager.io", "v1", "Certificate", "certificates"),
        }
    }
}

/// The kinds that have pods.
pub const WORKLOADS: [Kind; 3] = [Kind::StatefulSet, Kind::Deployment, Kind::ReplicaSet];

/// One object that should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    pub kind: Kind,
    pub name: String,
    pub object: Value,
}

/// Everything that should be there, in the order in which it is made, and what should not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub present: Vec<Child>,
    pub absent: Vec<(Kind, String)>,
}

/// What gateways and workers are made by: a Deployment renews its pods, a ReplicaSet leaves them as they are.
pub fn nodes(topology: &Topology) -> Kind {
    if topology.on_delete { Kind::ReplicaSet } else { Kind::Deployment }
}

/// The strategy of a StatefulSet. The partition is the default, and named all the same: only what Hebb owns goes away when
/// it is no longer wanted, and beside OnDelete it is refused.
fn update_strategy(topology: &Topology) -> Value {
    match topology.on_delete {
        true => json!({"type": "OnDelete"}),
        false => json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
    }
}

/// Renders everything.
pub fn render(topology: &Topology) -> Desired {
    let mut desired = Desired::default();
    let add = |desired: &mut Desired, kind, name: String, role, body| {
        desired.present.push(child(topology, kind, name, role, body));
    };
    add(
        &mut desired,
        Kind::ServiceAccount,
        topology.name.clone(),
        None,
        json!({"automountServiceAccountToken": false}),
    );
    let token = json!({"data": {"token": base64(&topology.secrets.token)}});
    add(&mut desired, Kind::Secret, names::internal_secret_name(&topology.name), None, token);
    let config = json!({"data": {"learningcluster.yaml": topology.config}});
    add(&mut desired, Kind::ConfigMap, names::config_name(&topology.name), None, config);
    for (kind, body) in [(Kind::Secret, tls::secret(topology)), (Kind::Certificate, tls::request(topology))] {
        if let Some(body) = body {
            add(&mut desired, kind, tls::name(topology), Some(Role::Redis), body);
        }
    }
    let redis = match &topology.redis {
        Redis::Standalone(server) => redis::render(topology, server),
        Redis::Sentinel { server, replicas } => sentinel::render(topology, server, *replicas),
        Redis::Cluster { server, replicas } => sharded::render(topology, server, *replicas),
        Redis::External(_) => Vec::new(),
    };
    for (kind, body) in redis {
        add(&mut desired, kind, topology.object(Role::Redis), Some(Role::Redis), body);
    }
    if topology.redis.members().is_some() {
        let name = topology.object(Role::Redis);
        match policy::disruption_budget(topology, Role::Redis) {
            Some(body) => add(&mut desired, Kind::PodDisruptionBudget, name, Some(Role::Redis), body),
            None => desired.absent.push((Kind::PodDisruptionBudget, name)),
        }
    }
    for role in [Role::Redis, Role::Coordinator, Role::Worker, Role::Gateway] {
        let name = topology.object(role);
        match network::policy(topology, role) {
            Some(body) => add(&mut desired, Kind::NetworkPolicy, name, Some(role), body),
            None => desired.absent.push((Kind::NetworkPolicy, name)),
        }
    }
    for role in [Role::Coordinator, Role::Worker, Role::Gateway] {
        for (kind, body) in roles::render(topology, role) {
            add(&mut desired, kind, topology.object(role), Some(role), body);
        }
        if matches!(role, Role::Worker | Role::Gateway) {
            let others = [Kind::Deployment, Kind::ReplicaSet].into_iter().filter(|kind| *kind != nodes(topology));
            desired.absent.extend(others.map(|kind| (kind, topology.object(role))));
        }
        let name = topology.object(role);
        match policy::disruption_budget(topology, role) {
            Some(body) => add(&mut desired, Kind::PodDisruptionBudget, name, Some(role), body),
            None => desired.absent.push((Kind::PodDisruptionBudget, name)),
        }
    }
    let name = topology.object(Role::Worker);
    match policy::autoscaler(topology) {
        Some(body) => add(&mut desired, Kind::HorizontalPodAutoscaler, name, Some(Role::Worker), body),
        None => desired.absent.push((Kind::HorizontalPodAutoscaler, name)),
    }
    backups(topology, &mut desired);
    desired
}

/// What backs up and restores.
fn backups(topology: &Topology, desired: &mut Desired) {
    let name = names::backup_name(&topology.name);
    if let Some((body, policy)) = backup::claim(topology) {
        let made = child(topology, Kind::PersistentVolumeClaim, name.clone(), None, body);
        desired.present.push(outliving(made, policy));
    }
    for (kind, body) in
        [(Kind::NetworkPolicy, network::backup_policy(topology)), (Kind::CronJob, backup::schedule(topology))]
    {
        match body {
            Some(body) => desired.present.push(child(topology, kind, name.clone(), None, body)),
            None => desired.absent.push((kind, name.clone())),
        }
    }
    let restore = backup::restore(topology).map(|body| (names::restore_name(&topology.name), body));
    for (name, body) in backup::requested(topology).into_iter().chain(restore) {
        desired.present.push(child(topology, Kind::Job, name, None, body));
    }
}

/// The child without its owner, where the policy says that it stays when the owner goes.
fn outliving(mut child: Child, policy: DeletionPolicy) -> Child {
    let metadata = &mut child.object["metadata"];
    let applied = metadata["annotations"][APPLIED_ANNOTATION].as_str().unwrap_or_default();
    // A changed policy is a changed object.
    metadata["annotations"][APPLIED_ANNOTATION] = json!(digest(&[applied, &format!("{policy:?}")]));
    if let (DeletionPolicy::Retain, Some(metadata)) = (policy, metadata.as_object_mut()) {
        metadata.remove("ownerReferences");
    }
    child
}

/// The ConfigMap that keeps a revision.
pub fn revision_record(topology: &Topology, id: &str, revision: &str) -> Child {
    let body = json!({"data": {"id": id, "revision": revision}});
    child(topology, Kind::ConfigMap, names::revision_name(&topology.name), None, body)
}

/// The digest of a workload's pod template.
pub fn template_digest(workload: &Value) -> Option<&str> {
    workload["spec"]["template"]["metadata"]["annotations"][names::TEMPLATE_ANNOTATION].as_str()
}

/// The digests of the pod templates by role.
pub fn templates(topology: &Topology, desired: &Desired) -> BTreeMap<Role, String> {
    [Role::Gateway, Role::Coordinator, Role::Worker, Role::Redis]
        .into_iter()
        .filter_map(|role| {
            let name = topology.object(role);
            let workload = |child: &&Child| WORKLOADS.contains(&child.kind) && child.name == name;
            let digest = template_digest(&desired.present.iter().find(workload)?.object)?.to_owned();
            Some((role, digest))
        })
        .collect()
}

/// A body with the head that all children share.
fn child(topology: &Topology, kind: Kind, name: String, role: Option<Role>, body: Value) -> Child {
    let (group, version, kind_name, _) = kind.names();
    let labels = match role {
        Some(role) => names::role_labels(&topology.name, role),
        None => names::cluster_labels(&topology.name),
    };
    let applied = digest(&[&body.to_string()]);
    let mut object = json!({
        "apiVersion": if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        "kind": kind_name,
        "metadata": {
            "name": name,
            "namespace": topology.namespace,
            "labels": labels,
            "annotations": {APPLIED_ANNOTATION: applied},
            "ownerReferences": [{
                "apiVersion": format!("{}/v1alpha1", names::GROUP),
                "kind": "LearningCluster",
                "name": topology.name,
                "uid": topology.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
    });
    if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
        object.extend(body);
    }
    Child { kind, name, object }
}

/// Bytes as a Secret holds them.
pub fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::learning_cluster::certificate::{self, Certificate, Pems};
    use crate::learning_cluster::topology::{Secrets, example};

    #[test]
    fn pods_are_told_of_the_collectors_and_let_out_to_them() {
        let topology = example::topology(json!({
            "metrics": {"endpoint": "http://agent.monitoring:4319", "interval": "30s"},
            "traces": {"endpoint": "http://otel-collector.monitoring:4318", "samplePercent": 5},
        }));
        let children: Vec<(String, String)> = render(&topology)
            .present
            .iter()
            .map(|child| (format!("{:?} {}", child.kind, child.name), child.object.to_string()))
            .collect();
        let with = |text: &str| -> Vec<&str> {
            children.iter().filter(|(_, object)| object.contains(text)).map(|(name, _)| name.as_str()).collect()
        };
        let told = with(r#"{"name":"OTEL_TRACES_SAMPLER_ARG","value":"0.05"}"#);
        assert_eq!(told, ["Deployment demo-worker", "Deployment demo-gateway"]);
        let traces = r#"{"name":"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT","value":"http://otel-collector.monitoring:4318/v1/traces"}"#;
        assert_eq!(with(traces), told);
        let nodes = ["StatefulSet demo-coordinator", "Deployment demo-worker", "Deployment demo-gateway"];
        let metrics =
            r#"{"name":"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT","value":"http://agent.monitoring:4319/v1/metrics"}"#;
        assert_eq!(with(metrics), nodes);
        assert_eq!(with(r#"{"name":"OTEL_METRIC_EXPORT_INTERVAL","value":"30000"}"#), nodes);
        let let_out = with(r#"{"ports":[{"port":4318,"protocol":"TCP"}]}"#);
        assert_eq!(let_out, ["NetworkPolicy demo-worker", "NetworkPolicy demo-gateway"]);
        let let_out = with(r#"{"ports":[{"port":4319,"protocol":"TCP"}]}"#);
        let nodes = ["NetworkPolicy demo-coordinator", "NetworkPolicy demo-worker", "NetworkPolicy demo-gateway"];
        assert_eq!(let_out, nodes);
    }

    #[test]
    fn of_an_external_redis_the_ports_are_let_out_that_can_be_known() {
        let let_out = |external: Value| {
            let topology = example::topology(json!({"redis": {"mode": "External", "external": external}}));
            let objects = render(&topology).present;
            let policy = |child: &&Child| child.kind == Kind::NetworkPolicy && child.name == "demo-worker";
            let egress = &objects.iter().find(policy).unwrap().object["spec"]["egress"];
            assert_eq!(egress.as_array().unwrap().len(), 2, "names, and Redis: {egress}");
            egress[1].clone()
        };
        let port = |port: i32| json!({"port": port, "protocol": "TCP"});
        assert_eq!(let_out(json!({"host": "r", "port": 7000})), json!({"ports": [port(7000)]}));
        let sentinels = json!({"host": "r", "sentinels": ["s-0:26379", "s-1:26379", "[::1]:26380"]});
        assert_eq!(let_out(sentinels), json!({"ports": [port(6379), port(26379), port(26380)]}));
        assert_eq!(let_out(json!({"host": "r", "cluster": true})), json!({"ports": [{"protocol": "TCP"}]}));
    }

    /// What is made of some clusters, word for word. `HEBB_UPDATE=1` writes the files anew; a reader of the change sees what
    /// every pod out there would become.
    #[test]
    fn the_objects_are_those_in_the_golden_files() {
        let everything = json!({
            "image": "hebb:2", "domains": [{"name": "shuttle", "task": "Classification", "partitions": 4}],
            "gateway": {"replicas": 3, "service": {"type": "NodePort"}, "podTemplate": {"nodeSelector": {"disk": "ssd"}}},
            "workers": {"autoscaling": {"strategy": "Hpa"}, "podTemplate": {"resources": {"limits": {"memory": "2Gi"}}}},
            "redis": {"storage": {"size": "1Gi"}, "durability": "Always"},
            "networkPolicy": {"metricsFromNamespaces": {"kubernetes.io/metadata.name": "monitoring"}},
        });
        let sentinel = json!({
            "redis": {"mode": "Sentinel", "durability": "Replicated", "storage": {"size": "1Gi", "deletionPolicy": "Delete"}},
        });
        let cluster = json!({
            "redis": {"mode": "Cluster", "replicas": 8, "durability": "Replicated", "storage": {"size": "1Gi"}},
        });
        let backup = json!({
            "backup": {
                "schedule": "0 */6 * * *",
                "destination": {"persistentVolumeClaim": {"size": "1Gi", "deletionPolicy": "Delete"}},
            },
            "restore": {"from": {"persistentVolumeClaim": {"claimName": "old"}}, "backup": "ns.old-1.hebb"},
        });
        let keys = json!({
            "engine": {"syncInterval": "2s"},
            "gateway": {
                "auth": {"secretRef": {"name": "clients"}},
                "rateLimit": {"tiers": [{"name": "batch", "requestsPerSecond": 500, "maxPriority": "Low"}]},
            },
        });
        let all = [
            ("default", json!({})),
            ("keys", keys),
            ("everything", everything),
            ("sentinel", sentinel),
            ("cluster", cluster),
            ("backup", backup),
            ("tls", json!({"redis": {"tls": {}}})),
            ("tls-sentinel", json!({"redis": {"mode": "Sentinel", "tls": {"secretRef": {"name": "theirs"}}}})),
            ("tls-cluster", json!({"redis": {"mode": "Cluster", "tls": {"issuerRef": {"name": "authority"}}}})),
        ];
        for (name, spec) in all {
            let cluster = example::cluster(spec);
            let certificate = certificate::source(&cluster).map(|(secret, source)| Certificate {
                secret,
                source,
                pems: Ok(Pems {
                    certificate: "c".to_owned(),
                    key: "k".to_owned(),
                    authority: "a".to_owned(),
                    authority_key: Some("ak".to_owned()),
                }),
            });
            let secrets = Secrets { redis_password: Some("p".to_owned()), token: "t".to_owned(), certificate };
            let topology =
                Topology::new(&cluster, &example::defaults(), secrets, cluster.spec.workers.replicas, None).unwrap();
            let texts: Vec<String> =
                render(&topology).present.iter().map(|child| serde_yaml::to_string(&child.object).unwrap()).collect();
            let text = texts.join("---\n");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.yaml"));
            if std::env::var_os("HEBB_UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "{} is stale: make generate, and read the change", path.display());
        }
    }
}
