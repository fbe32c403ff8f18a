//! The AlertPolicy controller. At present it validates a policy and says whether it has a target; it sends nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_api::{AlertPolicy, AlertPolicyStatus, LearningCluster, names};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use crate::conditions::{Desired, is_true, merge};
use crate::context::Context;
use crate::learning_cluster::with_causes;
use crate::unreadable::refuse;

/// A pass reads one list and writes one status.
const PASS_DEADLINE: Duration = Duration::from_secs(15);
/// How often a policy at rest is looked at again, should a watch have missed something.
const RESYNC_AFTER: Duration = Duration::from_secs(300);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the LearningClusters")]
    Observe(#[source] kube::Error),
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
    #[error("the pass took longer than {} s", PASS_DEADLINE.as_secs())]
    Deadline,
}

/// Validates one policy, or says on it why it can't be read.
pub async fn reconcile(policy: Arc<DeserializeGuard<AlertPolicy>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let pass = async {
        match &policy.0 {
            Ok(policy) => pass(policy, &context).await,
            Err(invalid) => refuse::<AlertPolicy>(invalid, &context).await.map_err(Error::Status),
        }
    };
    let result = timeout(PASS_DEADLINE, pass).await.unwrap_or(Err(Error::Deadline));
    let word = if result.is_ok() { "settled" } else { "failed" };
    context.metrics.reconciled("AlertPolicy", word, started.elapsed());
    result.map(|()| {
        context.failures.forget(&policy.uid().unwrap_or_default());
        Action::requeue(RESYNC_AFTER)
    })
}

/// What follows a failed pass.
pub fn on_error(policy: Arc<DeserializeGuard<AlertPolicy>>, error: &Error, context: Arc<Context>) -> Action {
    warn!(policy = %ObjectRef::from_obj(&*policy), error = with_causes(error), "a pass failed");
    Action::requeue(context.failures.next_delay(&policy.uid().unwrap_or_default()))
}

async fn pass(policy: &AlertPolicy, context: &Context) -> Result<(), Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let targets = targets(policy, context, &namespace).await?;
    let status = status(policy, targets, Timestamp::now());
    let former = policy.status.clone().unwrap_or_default();
    if status == former {
        return Ok(());
    }
    let api: Api<AlertPolicy> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": AlertPolicy::api_version(&()),
        "kind": AlertPolicy::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER).force();
    context.metrics.wrote("alertpolicies/status", "apply");
    match api.patch_status(&policy.name_any(), &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(Error::Status(error)),
    }
    let valid = is_true(&status.conditions, "ConfigValid");
    if valid != is_true(&former.conditions, "ConfigValid") || former.observed_generation.is_none() {
        let (type_, reason) =
            if valid { (EventType::Normal, "ConfigValid") } else { (EventType::Warning, "ConfigInvalid") };
        let note = policy.spec.problems().join("; ");
        context.tell(policy, type_, reason, "Validate", note).await;
    }
    Ok(())
}

/// How many LearningClusters the policy is about.
async fn targets(policy: &AlertPolicy, context: &Context, namespace: &str) -> Result<usize, Error> {
    let api: Api<LearningCluster> = Api::namespaced(context.client.clone(), namespace);
    if let Some(target) = &policy.spec.target_ref {
        return Ok(usize::from(api.get_metadata_opt(&target.name).await.map_err(Error::Observe)?.is_some()));
    }
    let Some(selector) = &policy.spec.target_selector else { return Ok(0) };
    let labels: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&labels.join(","));
    Ok(api.list_metadata(&selected).await.map_err(Error::Observe)?.items.len())
}

/// What the status says.
fn status(policy: &AlertPolicy, targets: usize, now: Timestamp) -> AlertPolicyStatus {
    let problems = policy.spec.problems();
    let valid = problems.is_empty();
    let found = targets > 0;
    let (reason, message) = match (valid, found) {
        (false, _) => ("ConfigInvalid", problems.join("; ")),
        (true, false) => ("NoTarget", "no LearningCluster of this namespace is selected".to_owned()),
        (true, true) => ("Validated", "valid; alerts are not sent by this version".to_owned()),
    };
    let desired = vec![
        Desired::new("Ready", valid && found, reason, message),
        Desired::new("ConfigValid", valid, if valid { "Valid" } else { "Invalid" }, problems.join("; ")),
        Desired::new(
            "TargetFound",
            found,
            if found { "Found" } else { "NotFound" },
            format!("{targets} LearningCluster(s)"),
        ),
    ];
    let former = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    AlertPolicyStatus {
        observed_generation: policy.metadata.generation,
        conditions: merge(former, desired, policy.metadata.generation, now),
        ..AlertPolicyStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(receiver: &str) -> AlertPolicy {
        serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "AlertPolicy", "metadata": {"name": "p", "generation": 3},
            "spec": {
                "targetRef": {"name": "demo"},
                "rules": [{"name": "lag", "expr": {"indicator": "queue_size", "operator": "GreaterThan", "threshold": 900}}],
                "routes": [{"receiver": receiver}],
                "receivers": [{"name": "log", "log": {}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_route_to_nobody_is_named_on_the_policy() {
        let status = status(&policy("oncall"), 1, Timestamp::UNIX_EPOCH);
        assert!(!is_true(&status.conditions, "ConfigValid"));
        assert!(status.conditions[0].message.contains("spec.routes[0].receiver: there is no receiver \"oncall\""));
    }

    #[test]
    fn a_good_policy_without_a_target_says_so() {
        let status = status(&policy("log"), 0, Timestamp::UNIX_EPOCH);
        assert!(is_true(&status.conditions, "ConfigValid") && !is_true(&status.conditions, "Ready"));
        assert_eq!(status.observed_generation, Some(3));
    }
}
