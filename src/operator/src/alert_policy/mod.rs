//! The AlertPolicy controller: observe → evaluate → remember → tell and act. Rules, routes and guards decide in `hebb-alert`.
//!
//! A pass stores what was decided before anything is sent or done. What came of it is handed to the next pass, so that one
//! writer alone changes a policy's record. Only the holder of the lease runs passes, so only it sends.

mod act;
mod observe;
mod past;
mod tell;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_alert::{Fact, Observation, Policy};
use hebb_api::{AlertPolicy, AlertPolicyStatus, names};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

pub use self::past::Pasts;
use self::past::{POLICY_NAME_MAX, StoreError};
use crate::conditions::{Desired, is_true, merge};
use crate::context::Context;
use crate::learning_cluster::with_causes;
use crate::unreadable::refuse;

/// A pass reads the targets, and writes a record and a status.
const PASS_DEADLINE: Duration = Duration::from_secs(15);
/// How often a policy that can't be used is looked at again, should a watch have missed something.
const RESYNC_AFTER: Duration = Duration::from_secs(300);
/// A policy is evaluated no more often than this, whatever is due.
const SOONEST: Duration = Duration::from_secs(1);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {what}")]
    Observe { what: &'static str, source: kube::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
    #[error("the pass took longer than {} s", PASS_DEADLINE.as_secs())]
    Deadline,
}

/// What a policy says of itself while its passes fail.
struct Complaint {
    /// Whether trying again can't help before somebody changes something.
    stalled: bool,
    /// A closed word.
    reason: &'static str,
    /// What has to come first.
    until: String,
}

impl Error {
    /// What the policy says of it; nothing where trying again is all that it takes, or where the policy can't be written to.
    fn complaint(&self) -> Option<Complaint> {
        let (stalled, reason, until) = match self {
            Error::Status(_) | Error::Store(StoreError::Raced { .. }) => return None,
            Error::Observe { .. } => (false, "ObserveFailed", "the API server lets the operator read it".to_owned()),
            Error::Deadline => (false, "Deadline", "the API server answers faster".to_owned()),
            Error::Store(StoreError::Read { .. }) => {
                (false, "RecordNotRead", "the API server lets the operator read the ConfigMap".to_owned())
            }
            Error::Store(StoreError::Write { .. }) => {
                let until =
                    "the ConfigMap can be written, which a ResourceQuota, a webhook or the operator's role may forbid";
                (false, "RecordNotStored", until.to_owned())
            }
            Error::Store(StoreError::Unreadable { .. }) => {
                let until = "the ConfigMap is deleted, which begins anew, or a version of Hebb runs that can read it";
                (true, "RecordUnreadable", until.to_owned())
            }
            Error::Store(StoreError::TooLarge(_)) => {
                (true, "RecordTooLarge", "the policy has fewer rules or LearningClusters".to_owned())
            }
            Error::Store(StoreError::NameTooLong(_)) => {
                (true, "NameTooLong", format!("it is made anew with a name of at most {POLICY_NAME_MAX} characters"))
            }
        };
        Some(Complaint { stalled, reason, until })
    }
}

/// Evaluates one policy, or says on it why it can't be read.
pub async fn reconcile(policy: Arc<DeserializeGuard<AlertPolicy>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let pass = async {
        match &policy.0 {
            Ok(policy) if policy.metadata.deletion_timestamp.is_some() => Ok(Action::await_change()),
            Ok(policy) => pass(policy, &context).await,
            Err(invalid) => {
                refuse::<AlertPolicy>(invalid, &context).await.map_err(Error::Status)?;
                Ok(Action::await_change())
            }
        }
    };
    let result = timeout(PASS_DEADLINE, pass).await.unwrap_or(Err(Error::Deadline));
    if let (Ok(policy), Err(error)) = (&policy.0, &result) {
        complain(policy, &context, error).await;
    }
    let word = if result.is_ok() { "settled" } else { "failed" };
    context.metrics.reconciled("AlertPolicy", word, started.elapsed());
    result.inspect(|_| context.failures.forget(&policy.uid().unwrap_or_default()))
}

/// What follows a failed pass.
pub fn on_error(policy: Arc<DeserializeGuard<AlertPolicy>>, error: &Error, context: Arc<Context>) -> Action {
    warn!(policy = %ObjectRef::from_obj(&*policy), error = with_causes(error), "a pass failed");
    Action::requeue(context.failures.next_delay(&policy.uid().unwrap_or_default()))
}

async fn pass(object: &AlertPolicy, context: &Arc<Context>) -> Result<Action, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let now = Timestamp::now();
    let policy = match Policy::new(&namespace, &name, &object.spec) {
        Ok(policy) => policy,
        Err(problems) => {
            let facts = hebb_alert::invalid(&problems);
            report(object, context, AlertPolicyStatus::default(), facts, now).await?;
            return Ok(Action::requeue(RESYNC_AFTER));
        }
    };
    let targets = observe::targets(object, context).await?;
    let mut past = context.pasts.hold(context, object, &policy).await?;
    let results = context.pasts.results(object);
    let record = past.with(&results, now);
    let seen = Observation { now, targets: observe::seen(&targets) };
    let decision = hebb_alert::evaluate(&policy, &mut past.history, record, &seen);
    past.store(context, object, decision.record).await?;
    context.pasts.settle(object, results.len());
    let interval = object.spec.interval.0;
    let next = past.record.next_due(now).map_or(interval, |due| due.min(interval)).max(SOONEST);
    drop(past);

    for delivery in decision.sends {
        tell::send(context, object, delivery);
    }
    for run in decision.runs {
        act::run(context, object, &targets, run);
    }
    for note in decision.notes {
        let type_ = if note.warning { EventType::Warning } else { EventType::Normal };
        info!(policy = %ObjectRef::from_obj(object), reason = note.reason, target = note.target, "{}", note.text);
        let target = note.target.map(|target| format!("{target}: ")).unwrap_or_default();
        context.tell(object, type_, note.reason, "Evaluate", format!("{target}{}", note.text)).await;
    }
    tell::show(context, object, &targets, &decision.status, &decision.notices);
    tell::test_fire(context, object, now).await?;
    report(object, context, decision.status, decision.facts, now).await?;
    Ok(Action::requeue(next))
}

/// Writes the status of an evaluation if it says something new.
async fn report(
    object: &AlertPolicy,
    context: &Context,
    status: AlertPolicyStatus,
    facts: Vec<Fact>,
    now: Timestamp,
) -> Result<(), Error> {
    let former = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let desired = facts.into_iter().map(|fact| Desired::new(fact.type_, fact.status, fact.reason, fact.message));
    let status = AlertPolicyStatus {
        observed_generation: generation,
        conditions: merge(&former.conditions, desired.collect(), generation, now),
        ..status
    };
    if !write_status(object, context, &status).await? {
        return Ok(());
    }
    let valid = is_true(&status.conditions, "ConfigValid");
    if valid != is_true(&former.conditions, "ConfigValid") || former.observed_generation.is_none() {
        let (type_, reason) =
            if valid { (EventType::Normal, "ConfigValid") } else { (EventType::Warning, "ConfigInvalid") };
        let note = status.conditions.iter().find(|condition| condition.type_ == "ConfigValid");
        context
            .tell(object, type_, reason, "Validate", note.map(|note| note.message.clone()).unwrap_or_default())
            .await;
    }
    Ok(())
}

/// Says on a policy that its passes fail, and what is waited for. The log has what can't be said there.
async fn complain(object: &AlertPolicy, context: &Context, error: &Error) {
    let Some(Complaint { stalled, reason, until }) = error.complaint() else { return };
    let message = format!("nobody is told of alerts until {until}: {}", with_causes(error));
    let status = failed(object, stalled, reason, &message, Timestamp::now());
    let was = object.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready");
    let is_new = was.is_none_or(|was| was.reason != reason);
    match timeout(PASS_DEADLINE, write_status(object, context, &status)).await {
        Ok(Ok(true)) if is_new => context.tell(object, EventType::Warning, reason, "Evaluate", message).await,
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(policy = %ObjectRef::from_obj(object), error = with_causes(&error), "can't say so"),
        Err(_) => warn!(policy = %ObjectRef::from_obj(object), "can't say so in time"),
    }
}

/// The former status, which says as well that passes fail. What else it says is what was true when one went well last.
fn failed(
    object: &AlertPolicy,
    stalled: bool,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> AlertPolicyStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let parts = vec![
        Desired::new("Ready", false, reason, message),
        Desired::new("Stalled", stalled, reason, if stalled { message } else { "" }),
    ];
    let mut conditions = merge(&status.conditions, parts, generation, now);
    let kept = status.conditions.iter().filter(|old| !["Ready", "Stalled"].contains(&old.type_.as_str()));
    conditions.extend(kept.cloned());
    status.conditions = conditions;
    status.observed_generation = generation;
    status
}

/// Writes the status if it says something new, and says whether it did.
async fn write_status(object: &AlertPolicy, context: &Context, status: &AlertPolicyStatus) -> Result<bool, Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let api: Api<AlertPolicy> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": AlertPolicy::api_version(&()),
        "kind": AlertPolicy::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER).force();
    context.metrics.wrote("alertpolicies/status", "apply");
    match api.patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(false),
        Err(error) => Err(Error::Status(error)),
    }
}
