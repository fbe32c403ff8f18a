//! What AlertPolicies say of this cluster: the operator, or the process itself, tells the leader after every evaluation.
//! Current states and the last transitions, in bounded memory. Pure; the time is an argument.

use std::collections::{BTreeMap, VecDeque};

use hebb_api::{AlertPolicyStatus, AlertState, AlertStatus, Severity};
use serde::{Deserialize, Serialize};

/// Policies that are known at once.
const POLICIES_MAX: usize = 32;
/// Transitions that are remembered.
const EVENTS_MAX: usize = 256;
/// Seconds after which a policy that says nothing any more is forgotten: longer than any interval of evaluation.
const SILENT_MAX: u32 = 2 * 3600;
/// Bytes of a policy's name.
const NAME_MAX: usize = 253;
/// Characters of a text that an event holds.
const TEXT_MAX: usize = 256;

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyReport {
    /// Its name.
    pub policy: String,
    /// Its status, of which only what concerns this cluster is told.
    pub status: AlertPolicyStatus,
    /// What is the matter with its alerts, by fingerprint.
    #[serde(default)]
    pub notices: BTreeMap<String, AlertNotice>,
}

/// What is the matter, in the words of the rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertNotice {
    /// In a line; may be empty.
    #[serde(default)]
    pub summary: String,
    /// The rule's value, last seen.
    #[serde(default)]
    pub value: Option<f64>,
    /// Address of the page that says what to do; may be empty.
    #[serde(default)]
    pub runbook_url: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The policy.
    pub policy: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum What {
    /// An alert is in another state.
    Alert { rule: String, state: AlertState, severity: Severity },
    /// A receiver took a message.
    Told { receiver: String },
    /// A receiver took none.
    NotTold { receiver: String, reason: String },
    /// An action was run, or its run has ended.
    Action { action: String, outcome: String },
}

/// The policies and what happened.
#[derive(Debug, Default)]
pub struct Alerts {
    /// With the second since 1970 in which they said it.
    policies: BTreeMap<String, (u32, PolicyReport)>,
    events: VecDeque<Event>,
}

/// What the API answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    policies: Vec<PolicyView<'a>>,
    /// The last transitions that this leader was told of, oldest first.
    events: &'a VecDeque<Event>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyView<'a> {
    policy: &'a str,
    /// When it said so, in seconds since 1970.
    at: u32,
    status: &'a AlertPolicyStatus,
    notices: &'a BTreeMap<String, AlertNotice>,
}

impl Alerts {
    /// Takes in what a policy says at `now`, in seconds since 1970. Whether there was room for it.
    pub fn hear(&mut self, now: u32, report: PolicyReport) -> bool {
        self.policies.retain(|_, (at, _)| now <= at.saturating_add(SILENT_MAX));
        let policy = report.policy.clone();
        let is_full = self.policies.len() >= POLICIES_MAX && !self.policies.contains_key(&policy);
        if is_full || policy.is_empty() || policy.len() > NAME_MAX {
            return false;
        }
        let nothing = AlertPolicyStatus::default();
        let before = self.policies.get(&policy).map_or(&nothing, |(_, report)| &report.status);
        let mut news: Vec<Event> = changes(before, &report.status)
            .into_iter()
            .map(|(at, what)| Event { at, policy: policy.clone(), what })
            .collect();
        news.sort_by_key(|event| event.at);
        self.events.extend(news);
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        self.policies.insert(policy, (now, report));
        true
    }

    /// How many alerts fire.
    pub fn firing(&self) -> u64 {
        let alerts = self.policies.values().flat_map(|(_, report)| &report.status.alerts);
        alerts.filter(|alert| alert.state == AlertState::Firing).count() as u64
    }

    /// What is known.
    pub fn view(&self) -> View<'_> {
        let policies = self.policies.iter().map(|(policy, (at, report))| PolicyView {
            policy,
            at: *at,
            status: &report.status,
            notices: &report.notices,
        });
        View { policies: policies.collect(), events: &self.events }
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// What happened between two statuses of a policy, with the second since 1970 at which it did.
fn changes(before: &AlertPolicyStatus, after: &AlertPolicyStatus) -> Vec<(i64, What)> {
    let mut found = Vec::new();
    let known: BTreeMap<&str, &AlertStatus> =
        before.alerts.iter().map(|alert| (alert.fingerprint.as_str(), alert)).collect();
    for alert in &after.alerts {
        let former = known.get(alert.fingerprint.as_str());
        if former.is_none_or(|former| (former.state, former.since.0) != (alert.state, alert.since.0)) {
            let what = What::Alert { rule: clipped(&alert.rule), state: alert.state, severity: alert.severity };
            found.push((alert.since.0.as_second(), what));
        }
    }
    for receiver in &after.receivers {
        let former = before.receivers.iter().find(|one| one.name == receiver.name);
        let told = receiver.last_success_time.as_ref();
        if let Some(at) = told.filter(|at| former.and_then(|one| one.last_success_time.as_ref()) != Some(*at)) {
            found.push((at.0.as_second(), What::Told { receiver: clipped(&receiver.name) }));
        }
        let failed = receiver.last_failure_time.as_ref();
        if let Some(at) = failed.filter(|at| former.and_then(|one| one.last_failure_time.as_ref()) != Some(*at)) {
            let reason = clipped(receiver.last_failure_reason.as_deref().unwrap_or_default());
            found.push((at.0.as_second(), What::NotTold { receiver: clipped(&receiver.name), reason }));
        }
    }
    for action in &after.actions {
        let former = before.actions.iter().find(|one| one.name == action.name);
        let is_news = former
            .is_none_or(|one| (&one.last_run_time, &one.last_outcome) != (&action.last_run_time, &action.last_outcome));
        if let Some(at) = action.last_run_time.as_ref().filter(|_| is_news) {
            let outcome = clipped(action.last_outcome.as_deref().unwrap_or_default());
            found.push((at.0.as_second(), What::Action { action: clipped(&action.name), outcome }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use hebb_api::{ActionStatus, ReceiverStatus, Time};
    use jiff::Timestamp;

    use super::*;

    fn time(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn alert(state: AlertState, since: i64) -> AlertStatus {
        AlertStatus {
            rule: "slow".to_owned(),
            target: "demo".to_owned(),
            state,
            since: time(since),
            fingerprint: "f".to_owned(),
            severity: Severity::Warning,
            muted_by: None,
        }
    }

    fn report(policy: &str, status: AlertPolicyStatus) -> PolicyReport {
        PolicyReport { policy: policy.to_owned(), status, notices: BTreeMap::new() }
    }

    #[test]
    fn every_transition_is_told_once() {
        let mut alerts = Alerts::default();
        let pending = AlertPolicyStatus { alerts: vec![alert(AlertState::Pending, 10)], ..Default::default() };
        assert!(alerts.hear(10, report("p", pending.clone())));
        assert!(alerts.hear(25, report("p", pending)));
        assert_eq!((alerts.events.len(), alerts.firing()), (1, 0));
        let receiver =
            ReceiverStatus { name: "oncall".to_owned(), last_success_time: Some(time(32)), ..Default::default() };
        let action = ActionStatus {
            name: "boost".to_owned(),
            last_run_time: Some(time(31)),
            last_outcome: Some("Running".to_owned()),
            ..Default::default()
        };
        let mut firing = AlertPolicyStatus {
            alerts: vec![alert(AlertState::Firing, 30)],
            receivers: vec![receiver],
            actions: vec![action],
            ..Default::default()
        };
        alerts.hear(40, report("p", firing.clone()));
        assert_eq!(alerts.firing(), 1);
        firing.actions[0].last_outcome = Some("Succeeded".to_owned());
        firing.alerts[0] = alert(AlertState::Resolved, 50);
        alerts.hear(55, report("p", firing));
        let times: Vec<i64> = alerts.events.iter().map(|event| event.at).collect();
        assert_eq!(times, [10, 30, 31, 32, 31, 50]);
        assert_eq!(alerts.firing(), 0);
    }

    #[test]
    fn what_is_the_matter_is_told_with_the_alert() {
        let text = r#"{"policy": "p", "status": {}, "notices": {"f": {"summary": "is slow", "value": 2.5}}}"#;
        let mut alerts = Alerts::default();
        alerts.hear(10, serde_json::from_str(text).unwrap());
        let view = serde_json::to_value(alerts.view()).unwrap();
        let wanted = serde_json::json!({"f": {"summary": "is slow", "value": 2.5, "runbookUrl": ""}});
        assert_eq!(view["policies"][0]["notices"], wanted);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_silent_make_room() {
        let mut alerts = Alerts::default();
        for policy in 0..POLICIES_MAX {
            assert!(alerts.hear(10, report(&format!("p{policy}"), AlertPolicyStatus::default())));
        }
        assert!(!alerts.hear(10, report("one too many", AlertPolicyStatus::default())));
        for second in 0..2 * EVENTS_MAX as i64 {
            let status = AlertPolicyStatus { alerts: vec![alert(AlertState::Firing, second)], ..Default::default() };
            alerts.hear(10, report("p0", status));
        }
        assert_eq!(alerts.events.len(), EVENTS_MAX);
        assert!(alerts.hear(11 + SILENT_MAX, report("one too many", AlertPolicyStatus::default())));
        assert_eq!(alerts.view().policies.len(), 1);
    }
}
