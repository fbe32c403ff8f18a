//! Hands messages over, away from the reconciler, and tells the next pass what came of it.

use std::sync::Arc;
use std::time::Duration;

use hebb_alert::notify::{self, EventNote, Secrets};
use hebb_alert::{Delivery, FailureKind, Message, Notice, SendError};
use hebb_api::{AlertPolicy, AlertPolicyStatus, LearningCluster, Receiver, SecretKeyRef};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::Error;
use super::observe::Watched;
use crate::context::Context;

/// Annotation on an AlertPolicy: the receiver that a test message is sent to, once.
const TEST_ANNOTATION: &str = "hebb.dev/test-receiver";

/// Sends a message in the background.
pub fn send(context: &Arc<Context>, policy: &AlertPolicy, delivery: Delivery) {
    let Some(receiver) = policy.spec.receivers.iter().find(|receiver| receiver.name == delivery.receiver).cloned()
    else {
        return;
    };
    let (context, policy) = (context.clone(), policy.clone());
    tokio::spawn(async move {
        let outcome = hand_over(&context, &policy, &receiver, &delivery.message, delivery.deadline).await;
        let of = ObjectRef::from_obj(&policy);
        match &outcome {
            Ok(()) => info!(policy = %of, receiver = receiver.name, key = delivery.key, "told"),
            Err(error) => {
                warn!(policy = %of, receiver = receiver.name, attempt = delivery.attempt, error = error.reason, "not told");
            }
        }
        context.metrics.told(if outcome.is_ok() { "delivered" } else { "failed" });
        context.pasts.sent(&policy, delivery.key, outcome);
        // An error says that the operator is ending.
        let _ = context.policies_changed.send(of).await;
    });
}

/// Has the dashboard of each target show what the policy says of it. A dashboard that can't be told now is told by the next
/// evaluation.
pub fn show(
    context: &Arc<Context>,
    policy: &AlertPolicy,
    targets: &[Watched],
    status: &AlertPolicyStatus,
    notices: &[Notice],
) {
    for watched in targets.iter().filter(|watched| !watched.cluster.spec.suspend) {
        let target = watched.cluster.name_any();
        let report =
            json!({"policy": policy.name_any(), "status": about(status, &target), "notices": words(notices, &target)});
        let (context, key) = (context.clone(), ObjectRef::from_obj(&watched.cluster));
        tokio::spawn(async move {
            let told = context.coordinators.put(&key, "/api/v1/alerts", &report).await;
            let told = told.and_then(|answer| answer.error_for_status().map_err(|error| error.to_string()));
            if let Err(why) = told {
                debug!(cluster = %key, why, "the dashboard doesn't know of the alerts");
            }
        });
    }
}

/// What of a status is about one of the targets: the others are none of its business.
fn about(status: &AlertPolicyStatus, target: &str) -> AlertPolicyStatus {
    AlertPolicyStatus {
        alerts: status.alerts.iter().filter(|alert| alert.target == target).cloned().collect(),
        receivers: status.receivers.clone(),
        actions: status.actions.iter().filter(|action| action.target.as_deref() == Some(target)).cloned().collect(),
        ..AlertPolicyStatus::default()
    }
}

/// What is the matter with one of the targets, by the fingerprint of the alert.
fn words(notices: &[Notice], target: &str) -> Value {
    let about = notices.iter().filter(|notice| notice.target == target);
    about
        .map(|notice| {
            let Notice { summary, value, runbook_url, .. } = notice;
            (notice.fingerprint.clone(), json!({"summary": summary, "value": value, "runbookUrl": runbook_url}))
        })
        .collect()
}

async fn hand_over(
    context: &Context,
    policy: &AlertPolicy,
    receiver: &Receiver,
    message: &Message,
    deadline: Duration,
) -> Result<(), SendError> {
    let secrets = secrets(context, policy, &receiver.secrets()).await?;
    let delivered = notify::send(receiver, message, &secrets, &context.edges, deadline).await?;
    for event in delivered.events {
        write_event(context, policy, event).await;
    }
    Ok(())
}

/// The values that a receiver or webhook refers to. What is missing is said by whoever needs it.
pub async fn secrets(
    context: &Context,
    policy: &AlertPolicy,
    references: &[&SecretKeyRef],
) -> Result<Secrets, SendError> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &policy.namespace().unwrap_or_default());
    let mut secrets = Secrets::default();
    for reference in references {
        let unread = |error: kube::Error| {
            SendError::transient(FailureKind::Secret, format!("the Secret {} can't be read: {error}", reference.name))
        };
        let found = api.get_opt(&reference.name).await.map_err(unread)?;
        let value = found.and_then(|secret| secret.data).and_then(|mut data| data.remove(&reference.key));
        if let Some(value) = value.and_then(|bytes| String::from_utf8(bytes.0).ok()) {
            secrets.insert(reference, &value);
        }
    }
    Ok(secrets)
}

async fn write_event(context: &Context, policy: &AlertPolicy, event: EventNote) {
    let reference = ObjectReference {
        api_version: Some(LearningCluster::api_version(&()).into_owned()),
        kind: Some(LearningCluster::kind(&()).into_owned()),
        name: Some(event.target),
        namespace: policy.namespace(),
        ..ObjectReference::default()
    };
    let type_ = if event.warning { EventType::Warning } else { EventType::Normal };
    context.tell_of(reference, type_, event.reason, "Alert", event.note).await;
}

/// Sends the test message that an annotation asks for. The annotation goes first: the test is sent once at most.
pub async fn test_fire(context: &Arc<Context>, policy: &AlertPolicy, now: Timestamp) -> Result<(), Error> {
    let Some(name) = policy.annotations().get(TEST_ANNOTATION) else { return Ok(()) };
    let api: Api<AlertPolicy> = Api::namespaced(context.client.clone(), &policy.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"annotations": {TEST_ANNOTATION: null}}});
    context.metrics.wrote("alertpolicies", "patch");
    api.patch_metadata(&policy.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(Error::Status)?;
    let Some(receiver) = policy.spec.receivers.iter().find(|receiver| &receiver.name == name).cloned() else {
        let note = format!("there is no receiver {name:?} to test");
        context.tell(policy, EventType::Warning, "TestFailed", "Test", note).await;
        return Ok(());
    };
    let (context, policy) = (context.clone(), policy.clone());
    tokio::spawn(async move {
        let message = Message::test(&policy.name_any(), now);
        match hand_over(&context, &policy, &receiver, &message, receiver.timeout.0).await {
            Ok(()) => {
                let note = format!("receiver {} took a test message", receiver.name);
                context.tell(&policy, EventType::Normal, "TestDelivered", "Test", note).await;
            }
            Err(error) => {
                let note = format!("receiver {} took no test message: {}", receiver.name, error.reason);
                context.tell(&policy, EventType::Warning, "TestFailed", "Test", note).await;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use hebb_api::{ActionStatus, AlertState, AlertStatus, ReceiverStatus, Severity, Time};

    use super::*;

    #[test]
    fn a_dashboard_is_told_of_its_own_cluster_only() {
        let alert = |target: &str| AlertStatus {
            rule: "slow".to_owned(),
            target: target.to_owned(),
            state: AlertState::Firing,
            since: Time(Timestamp::UNIX_EPOCH),
            fingerprint: target.to_owned(),
            severity: Severity::Warning,
            muted_by: None,
        };
        let action = |target: &str| ActionStatus { target: Some(target.to_owned()), ..ActionStatus::default() };
        let status = AlertPolicyStatus {
            firing: Some(2),
            alerts: vec![alert("a"), alert("b")],
            receivers: vec![ReceiverStatus::default()],
            actions: vec![action("a"), action("b")],
            ..AlertPolicyStatus::default()
        };
        let told = about(&status, "b");
        assert_eq!(told.alerts, [alert("b")]);
        assert_eq!(told.actions, [action("b")]);
        assert_eq!((told.receivers.len(), told.firing), (1, None));
    }
}
