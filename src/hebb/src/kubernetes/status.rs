//! `hebb status NAME`: what the operator says of a LearningCluster.

use hebb_api::LearningCluster;
use hebb_api::names::{CLUSTER_LABEL, Role};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::Format;
use super::reach::{Reach, call};
use crate::cli::Outcome;
use crate::node::runtime;
use crate::output::table;

pub fn run(name: &str, reach: &Reach, output: Format) -> Outcome {
    runtime()?.block_on(async {
        let (found, cluster) = reach.cluster(name).await?;
        let pods: Api<Pod> = found.api();
        let selected = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
        let pods = pods.list(&selected).await.map_err(call("list the pods"))?.items;
        let said = json!({
            "name": name, "namespace": found.namespace, "generation": cluster.metadata.generation,
            "status": cluster.status, "pods": pods.iter().map(PodLine::of).map(|pod| json!({
                "name": pod.name, "role": pod.role, "ready": pod.ready, "restarts": pod.restarts, "phase": pod.phase,
            })).collect::<Vec<_>>(),
        });
        output.print(&describe(&cluster, &pods), &said)
    })
}

struct PodLine {
    name: String,
    role: String,
    phase: String,
    ready: bool,
    restarts: i32,
}

impl PodLine {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let leaving = pod.metadata.deletion_timestamp.is_some();
        Self {
            name: pod.name_any(),
            role: pod.labels().get("app.kubernetes.io/component").cloned().unwrap_or_default(),
            phase: if leaving {
                Some("Terminating".to_owned())
            } else {
                status.and_then(|status| status.phase.clone())
            }
            .unwrap_or_default(),
            ready: conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            restarts: containers.map(|container| container.restart_count).sum(),
        }
    }
}

/// What people read.
fn describe(cluster: &LearningCluster, pods: &[Pod]) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("unknown: no operator has looked at it yet");
    let mut lines = vec![format!("{}: {phase}", cluster.name_any())];
    if status.observed_generation != cluster.metadata.generation {
        lines.push("The operator hasn't seen the newest spec yet.".to_owned());
    }
    let facts = [
        ("leader", status.leader),
        ("workers", status.workers.as_ref().map(|workers| workers.summary.clone())),
        ("lag", status.workers.and_then(|workers| workers.lag)),
        ("redis", status.redis.as_ref().map(|redis| redis.mode.clone())),
        ("primary", status.redis.and_then(|redis| redis.primary)),
        ("version", status.version),
        ("gateway", status.endpoints.map(|endpoints| endpoints.gateway)),
        (
            "last backup",
            status.backup.and_then(|backup| backup.last_backup).map(|last| format!("{} at {}", last.name, last.time.0)),
        ),
        (
            "last request",
            status.request.map(|request| {
                format!(
                    "{} {}: {}",
                    request.value,
                    if request.granted { "granted" } else { "refused" },
                    request.message
                )
            }),
        ),
    ];
    let rows: Vec<Vec<String>> =
        facts.into_iter().filter_map(|(name, fact)| Some(vec![name.to_owned(), fact?])).collect();
    lines.push(table(&rows));
    let mut rows = vec![["CONDITION", "STATUS", "REASON", "MESSAGE"].map(str::to_owned).to_vec()];
    rows.extend(
        status
            .conditions
            .into_iter()
            .map(|condition| vec![condition.type_, condition.status, condition.reason, condition.message]),
    );
    lines.push(table(&rows));
    let mut rows = vec![["POD", "ROLE", "READY", "RESTARTS", "PHASE"].map(str::to_owned).to_vec()];
    let mut pods: Vec<PodLine> = pods.iter().map(PodLine::of).collect();
    pods.sort_by_key(|pod| (Role::of(&pod.role), pod.name.clone()));
    rows.extend(pods.into_iter().map(|pod| {
        let ready = if pod.ready { "yes" } else { "no" };
        vec![pod.name, pod.role, ready.to_owned(), pod.restarts.to_string(), pod.phase]
    }));
    lines.push(table(&rows));
    lines.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_conditions_and_the_pods_by_role() {
        let cluster = serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
            "metadata": {"name": "demo", "generation": 2}, "spec": {},
            "status": {"phase": "Ready", "observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True",
                "reason": "AllReady", "message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let pod = |name: &str, role: &str| {
            serde_json::from_value::<Pod>(json!({
                "metadata": {"name": name, "labels": {"app.kubernetes.io/component": role}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]},
            }))
            .unwrap()
        };
        let text = describe(&cluster, &[pod("demo-worker-a", "worker"), pod("demo-gateway-a", "gateway")]);
        assert!(text.starts_with("demo: Ready\nThe operator hasn't seen the newest spec yet."), "{text}");
        assert!(text.contains("AllReady"));
        let (gateway, worker) = (text.find("demo-gateway-a"), text.find("demo-worker-a"));
        assert!(gateway < worker && gateway.is_some(), "{text}");
        assert!(text.lines().last().unwrap().contains("yes     3          Running"), "{text}");
    }
}
