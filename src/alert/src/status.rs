//! What the policy's status says of a record. Only transitions change it, so that nothing is written at rest.

use std::collections::BTreeMap;

use hebb_api::{ActionStatus, AlertPolicyStatus, AlertState, AlertStatus, ReceiverStatus, Time};
use jiff::Timestamp;

use crate::mute::Mute;
use crate::outbox::has_room;
use crate::policy::{Observation, Policy};
use crate::record::Record;

/// Alerts that the status lists.
const ALERTS_SHOWN: usize = 64;

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The condition's type.
    pub type_: &'static str,
    /// Whether it is so.
    pub status: bool,
    /// A closed word.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Fact {
    fn new(type_: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status, reason, message: message.into() }
    }
}

/// What the conditions of a policy say that can't be used.
pub fn invalid(problems: &[String]) -> Vec<Fact> {
    let text = problems.join("; ");
    vec![
        Fact::new("Ready", false, "ConfigInvalid", text.clone()),
        Fact::new("Stalled", true, "ConfigInvalid", text.clone()),
        Fact::new("ConfigValid", false, "Invalid", text),
    ]
}

/// Seconds are as fine as Kubernetes writes times.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub(crate) fn of(
    policy: &Policy,
    record: &Record,
    mutes: &BTreeMap<String, Mute>,
    seen: &Observation,
) -> (AlertPolicyStatus, Vec<Fact>) {
    let firing = record.alerts.values().filter(|alert| alert.is_firing()).count();
    let status = AlertPolicyStatus {
        firing: Some(count(firing)),
        alerts: alerts(record, mutes),
        receivers: receivers(policy, record),
        actions: actions(policy, record, seen.now),
        ..AlertPolicyStatus::default()
    };
    (status, facts(policy, record, seen))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn alerts(record: &Record, mutes: &BTreeMap<String, Mute>) -> Vec<AlertStatus> {
    let order = |state: AlertState| match state {
        AlertState::Firing => 0,
        AlertState::Pending => 1,
        AlertState::Resolved => 2,
    };
    let mut alerts: Vec<_> = record.alerts.iter().collect();
    alerts.sort_by_key(|(fingerprint, alert)| {
        (order(alert.state), std::cmp::Reverse(alert.severity), alert.since, *fingerprint)
    });
    alerts
        .into_iter()
        .take(ALERTS_SHOWN)
        .map(|(fingerprint, alert)| AlertStatus {
            rule: alert.rule.clone(),
            target: alert.target.clone(),
            state: alert.state,
            since: time(alert.since),
            fingerprint: fingerprint.clone(),
            severity: alert.severity,
            muted_by: mutes.get(fingerprint).filter(|_| alert.is_firing()).map(|mute| mute.as_str().to_owned()),
        })
        .collect()
}

fn receivers(policy: &Policy, record: &Record) -> Vec<ReceiverStatus> {
    let known = policy.spec.receivers.iter().filter_map(|receiver| {
        let deliveries = record.deliveries.get(&receiver.name)?;
        Some(ReceiverStatus {
            name: receiver.name.clone(),
            last_success_time: deliveries.last_success_at.map(time),
            last_failure_time: deliveries.last_failure_at.map(time),
            last_failure_reason: Some(deliveries.last_failure.clone()).filter(|reason| !reason.is_empty()),
            consecutive_failures: i32::try_from(deliveries.consecutive_failures).unwrap_or(i32::MAX),
        })
    });
    known.collect()
}

fn actions(policy: &Policy, record: &Record, now: Timestamp) -> Vec<ActionStatus> {
    let known = policy.spec.actions.iter().filter_map(|spec| {
        let logs = record.actions.values().filter(|log| log.action == spec.name && log.started_at.is_some());
        let log = logs.max_by_key(|log| log.started_at)?;
        let outcome = log.outcome.as_ref().map_or("Running".to_owned(), ToString::to_string);
        Some(ActionStatus {
            name: spec.name.clone(),
            target: Some(log.target.clone()),
            last_run_time: log.started_at.map(time),
            attempts: i32::try_from(log.attempts).unwrap_or(i32::MAX),
            last_outcome: Some(outcome),
            next_allowed_time: log.next_at(spec).filter(|_| !log.is_exhausted(spec, now)).map(time),
        })
    });
    known.collect()
}

fn facts(policy: &Policy, record: &Record, seen: &Observation) -> Vec<Fact> {
    let targets = seen.targets.len();
    // A selector may wait for what it will select; a name that is nobody's is a mistake, or comes too early.
    let ready = if targets == 0 && policy.spec.target_ref.is_some() {
        Fact::new("Ready", false, "NoTarget", "no LearningCluster of this namespace has the name")
    } else if record.left_out > 0 {
        Fact::new(
            "Ready",
            false,
            "TooManyAlerts",
            format!("{} alerts are not followed: there are too many", record.left_out),
        )
    } else {
        Fact::new(
            "Ready",
            true,
            "Evaluating",
            format!("{} rules on {targets} LearningCluster(s)", policy.spec.rules.len()),
        )
    };
    let found = Fact::new(
        "TargetFound",
        targets > 0,
        if targets > 0 { "Found" } else { "NotFound" },
        format!("{targets} LearningCluster(s)"),
    );
    let exhausted: Vec<String> = record
        .alerts
        .values()
        .filter(|alert| alert.exhausted)
        .map(|alert| format!("{} on {}", alert.rule, alert.target))
        .collect();
    let remediation = if exhausted.is_empty() {
        Fact::new("RemediationExhausted", false, "NotExhausted", "")
    } else {
        Fact::new("RemediationExhausted", true, "Exhausted", format!("actions didn't help: {}", exhausted.join(", ")))
    };
    let stalled = Fact::new("Stalled", false, "Working", "");
    vec![ready, stalled, Fact::new("ConfigValid", true, "Valid", ""), found, healthy(record), remediation]
}

fn healthy(record: &Record) -> Fact {
    let failing: Vec<String> = record
        .deliveries
        .iter()
        .filter(|(_, deliveries)| !deliveries.is_healthy())
        .map(|(name, deliveries)| format!("{name}: {}", deliveries.last_failure))
        .collect();
    if !failing.is_empty() {
        return Fact::new("ReceiversHealthy", false, "DeliveryFails", failing.join("; "));
    }
    if !has_room(record) {
        return Fact::new("ReceiversHealthy", false, "OutboxFull", "more is to be told than receivers take");
    }
    Fact::new("ReceiversHealthy", true, "Delivering", "")
}
