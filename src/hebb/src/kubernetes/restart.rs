//! `hebb restart`: a new revision of the same spec, which the operator rolls out as any other; of Redis one pod, within the
//! healing budget.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;
use hebb_api::names::{REQUEST_ANNOTATION, Role};
use hebb_api::{LearningCluster, Replacement, UpgradeStrategy};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Named;
use super::failover;
use super::logs::RoleName;
use super::reach::{Found, ReachError, condition, is_true, left_alone, token};
use crate::cli::Outcome;
use crate::node::runtime;

/// The annotation by which `kubectl rollout restart` asks for the same.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl hebb restart demo --wait
  kubectl hebb restart demo --role worker --role gateway
  kubectl hebb restart demo --role redis      # one pod, the worst; within spec.healing

Gateways, coordinators and workers get an annotation in spec.ROLE.podTemplate and are rolled as in an upgrade.")]
pub struct Options {
    #[command(flatten)]
    named: Named,
    /// Only this role; may be given several times [default: gateway, coordinator and worker]
    #[arg(long = "role", value_enum)]
    roles: Vec<RoleName>,
    /// Wait until every pod is new and ready
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "15m")]
    timeout: hebb_api::Duration,
}

/// Why nothing was restarted.
#[derive(Debug, thiserror::Error)]
enum RestartError {
    #[error("{0}: nothing is restarted; {1}")]
    LeftAlone(String, &'static str),
    #[error("spec.upgrade.strategy is OnDelete, so pods are renewed when you delete them: kubectl delete pod …")]
    OnDelete,
    #[error("redis is restarted one pod at a time, and not together with other roles: say --role redis alone")]
    RedisWithOthers,
    #[error("the restart was taken back: {0}")]
    RolledBack(String),
}

/// What is changed.
fn patch(roles: &BTreeSet<RoleName>, at: &str) -> Value {
    let mut spec = json!({});
    for role in roles {
        let field = match role {
            RoleName::Gateway => "gateway",
            RoleName::Coordinator => "coordinator",
            RoleName::Worker => "workers",
            // It has no pod template.
            RoleName::Redis => continue,
        };
        spec[field] = json!({"podTemplate": {"annotations": {RESTARTED_AT: at}}});
    }
    json!({"spec": spec})
}

/// What became of the restart, once it is clear.
fn outcome(cluster: &LearningCluster) -> Option<Result<(), String>> {
    let status = cluster.status.as_ref()?;
    if status.observed_generation != cluster.metadata.generation {
        return None;
    }
    if status.upgrade.as_ref().is_some_and(|upgrade| upgrade.failed) {
        let why = condition(cluster, "Stalled").map(|stalled| stalled.message.clone());
        return Some(Err(why.unwrap_or_default()));
    }
    let is_current = status.current_revision == status.update_revision && status.upgrade.is_none();
    (is_current && is_true(cluster, "Ready")).then_some(Ok(()))
}

pub fn run(options: Options) -> Outcome {
    let mut roles: BTreeSet<RoleName> = options.roles.into_iter().collect();
    if roles.contains(&RoleName::Redis) && roles.len() > 1 {
        return Err(RestartError::RedisWithOthers.into());
    }
    if roles.is_empty() {
        roles.extend([RoleName::Gateway, RoleName::Coordinator, RoleName::Worker]);
    }
    let Named { name, reach, output } = options.named;
    runtime()?.block_on(async {
        let (found, cluster) = reach.cluster(&name).await?;
        if let Some(why) = left_alone(&cluster) {
            return Err(RestartError::LeftAlone(name, why).into());
        }
        if roles.contains(&RoleName::Redis) {
            let request = format!("restart {} {}", Role::Redis.as_str(), token());
            let asked = found.annotate(REQUEST_ANNOTATION, &request).await?;
            let answer = failover::answer(&found, &asked, &request).await?;
            if options.wait {
                renewed(&found, &replaced(&cluster), options.timeout.0).await?;
            }
            return output.print(&answer.message, &serde_json::to_value(&answer)?);
        }
        if cluster.spec.upgrade.strategy == UpgradeStrategy::OnDelete {
            return Err(RestartError::OnDelete.into());
        }
        roll(&found, &roles, options.wait.then_some(options.timeout)).await?;
        let words: Vec<&str> = roles.iter().map(|role| Role::from(*role).as_str()).collect();
        let state = if options.wait { "restarted" } else { "restarting" };
        let said = json!({"name": name, "namespace": found.namespace, "roles": words, "state": state});
        output.print(&format!("{name}: {state} {}", words.join(", ")), &said)
    })
}

async fn roll(found: &Found, roles: &BTreeSet<RoleName>, wait: Option<hebb_api::Duration>) -> Outcome {
    found.change(&patch(roles, &token())).await?;
    let Some(limit) = wait else { return Ok(()) };
    let ended = found.wait("every pod is new and ready", limit.0, outcome).await?;
    ended.map_err(|why| RestartError::RolledBack(why).into())
}

/// The uids of the pods that were replaced, as the status remembers them.
fn replaced(cluster: &LearningCluster) -> BTreeSet<String> {
    let replacements = cluster.status.iter().flat_map(|status| &status.replacements);
    replacements.map(|replacement| replacement.uid.clone()).collect()
}

/// Waits until the pods that the operator wrote down since `before` have gone, others have their names, and all is ready.
async fn renewed(found: &Found, before: &BTreeSet<String>, limit: Duration) -> Outcome {
    let pods: Api<Pod> = found.api();
    let since = Instant::now();
    let left = || limit.saturating_sub(since.elapsed());
    let gone = found.wait("the operator writes down the pod", left(), |cluster| chosen(cluster, before)).await?;
    for replacement in gone {
        let is_new = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.metadata.uid.as_ref() != Some(&replacement.uid));
        let waiting = await_condition(pods.clone(), &replacement.pod, is_new);
        let what = format!("another pod is called {}", replacement.pod);
        timeout(left(), waiting).await.map_err(|_| ReachError::Late { what, limit })??;
    }
    Ok(found.wait("the cluster is ready with it", left(), is_back).await?)
}

fn chosen(cluster: &LearningCluster, before: &BTreeSet<String>) -> Option<Vec<Replacement>> {
    let replacements = cluster.status.iter().flat_map(|status| &status.replacements);
    let new: Vec<Replacement> = replacements.filter(|found| !before.contains(&found.uid)).cloned().collect();
    (!new.is_empty()).then_some(new)
}

fn is_back(cluster: &LearningCluster) -> Option<()> {
    is_true(cluster, "Ready").then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_annotates_the_templates_of_its_roles_only() {
        let at = "20300101T000000Z";
        let roles = [RoleName::Worker, RoleName::Gateway].into_iter().collect();
        let changed = patch(&roles, at);
        assert_eq!(changed["spec"]["workers"]["podTemplate"]["annotations"][RESTARTED_AT], at);
        assert_eq!(changed["spec"].as_object().unwrap().len(), 2, "{changed}");
    }

    #[test]
    fn only_what_was_written_down_since_is_waited_for() {
        let cluster = |uids: &[&str]| -> LearningCluster {
            let at = "2030-01-01T00:00:00Z";
            let replacements: Vec<Value> = uids
                .iter()
                .map(|uid| json!({"pod": "demo-redis-0", "uid": uid, "reason": "Requested", "at": at}))
                .collect();
            let cluster = json!({
                "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": "demo"}, "spec": {},
                "status": {"replacements": replacements},
            });
            serde_json::from_value(cluster).unwrap()
        };
        let before = replaced(&cluster(&["a"]));
        assert!(chosen(&cluster(&["a"]), &before).is_none(), "the operator has granted it and not acted yet");
        assert_eq!(chosen(&cluster(&["a", "b"]), &before).unwrap()[0].uid, "b");
    }

    #[test]
    fn a_restart_has_ended_when_the_new_revision_is_the_one_that_was_ready() {
        let of = |status: Value| {
            let cluster = json!({
                "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
                "metadata": {"name": "demo", "generation": 2}, "spec": {}, "status": status,
            });
            outcome(&serde_json::from_value(cluster).unwrap())
        };
        let ready = json!([{"type": "Ready", "status": "True", "reason": "r", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z"}]);
        let status = |generation: i64, current: &str| json!({"observedGeneration": generation, "currentRevision": current, "updateRevision": "b", "conditions": ready});
        assert_eq!(of(status(1, "b")), None, "the operator hasn't seen it yet");
        assert_eq!(of(status(2, "a")), None);
        assert_eq!(of(status(2, "b")), Some(Ok(())));
        let mut failed = status(2, "a");
        failed["upgrade"] =
            json!({"revision": "b", "updatedPods": 0, "progressedAt": "2030-01-01T00:00:00Z", "failed": true});
        assert!(matches!(of(failed), Some(Err(_))));
    }
}
