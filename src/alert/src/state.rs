//! From verdicts to alerts: inactive → pending → firing → resolved. A pure state machine.

use std::time::Duration;

use hebb_api::{AlertRule, AlertState, OnNoData, Severity};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::digest;
use crate::message::Labels;
use crate::rule::Verdict;
use crate::time::elapsed;

/// An alert that isn't inactive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Name of the rule.
    pub rule: String,
    /// Name of the LearningCluster.
    pub target: String,
    /// How bad it is.
    pub severity: Severity,
    /// All its labels.
    pub labels: Labels,
    /// How far it is.
    pub state: AlertState,
    /// Since when it has been so far.
    pub since: Timestamp,
    /// Since when it has fired, or fired last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_at: Option<Timestamp>,
    /// Since when its rule hasn't held although it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_since: Option<Timestamp>,
    /// When it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// Whether every action that it has was tried as often as allowed.
    #[serde(default)]
    pub exhausted: bool,
}

/// How a rule makes alerts of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long it must hold.
    pub hold: Duration,
    /// How long it goes on firing.
    pub keep: Duration,
    /// What missing data means.
    pub on_no_data: OnNoData,
}

impl Timing {
    /// That of a rule.
    pub fn of(rule: &AlertRule) -> Self {
        Self { hold: rule.for_.0, keep: rule.keep_firing_for.0, on_no_data: rule.on_no_data }
    }
}

/// Where an alert stands: what the state machine works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// How far it is.
    pub state: AlertState,
    /// Since when.
    pub since: Timestamp,
    /// Since when its rule hasn't held although it fires.
    pub clear_since: Option<Timestamp>,
}

/// The next stand; none is inactive.
pub fn step(stand: Option<Stand>, verdict: Verdict, timing: Timing, now: Timestamp) -> Option<Stand> {
    let holds = match (verdict, timing.on_no_data) {
        (Verdict::Breach(_), _) | (Verdict::NoData, OnNoData::Alert) => true,
        (Verdict::Clear(_), _) | (Verdict::NoData, OnNoData::Ok) => false,
        (Verdict::NoData, OnNoData::KeepLast) => return stand,
    };
    let begin = |state| Some(Stand { state, since: now, clear_since: None });
    match (stand, holds) {
        (Some(Stand { state: AlertState::Pending, since, .. }), true) => {
            // A clock that was set back must not make it wait longer than from now on.
            let since = since.min(now);
            if timing.hold <= elapsed(now, since) {
                begin(AlertState::Firing)
            } else {
                Some(Stand { state: AlertState::Pending, since, clear_since: None })
            }
        }
        (Some(stand @ Stand { state: AlertState::Firing, .. }), true) => Some(Stand { clear_since: None, ..stand }),
        (_, true) if timing.hold.is_zero() => begin(AlertState::Firing),
        (_, true) => begin(AlertState::Pending),
        (Some(stand @ Stand { state: AlertState::Firing, .. }), false) => {
            let clear_since = stand.clear_since.unwrap_or(now).min(now);
            if timing.keep <= elapsed(now, clear_since) {
                begin(AlertState::Resolved)
            } else {
                Some(Stand { clear_since: Some(clear_since), ..stand })
            }
        }
        (Some(stand @ Stand { state: AlertState::Resolved, .. }), false) => Some(stand),
        (Some(Stand { state: AlertState::Pending, .. }) | None, false) => None,
    }
}

/// All labels of a rule's alert on a target.
pub fn labels(namespace: &str, policy: &str, rule: &AlertRule, target: &str) -> Labels {
    let mut labels = rule.labels.clone();
    for (name, value) in [
        ("alertname", rule.name.as_str()),
        ("cluster", target),
        ("namespace", namespace),
        ("policy", policy),
        ("severity", rule.severity.as_str()),
        ("priority", rule.severity.priority()),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// What an alert is known by, over restarts and versions. The labels hold policy, rule and target.
pub fn fingerprint(labels: &Labels) -> String {
    digest(labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
}

impl Alert {
    /// An alert that begins.
    pub(crate) fn begin(rule: &AlertRule, target: &str, labels: Labels, stand: Stand) -> Self {
        let mut alert = Self {
            rule: rule.name.clone(),
            target: target.to_owned(),
            severity: rule.severity,
            labels,
            state: stand.state,
            since: stand.since,
            fired_at: None,
            clear_since: None,
            resolved_at: None,
            exhausted: false,
        };
        alert.take(stand);
        alert
    }

    /// Where it stands.
    pub fn stand(&self) -> Stand {
        Stand { state: self.state, since: self.since, clear_since: self.clear_since }
    }

    /// Takes its next stand; whether it began to fire or to be resolved.
    pub(crate) fn take(&mut self, stand: Stand) -> bool {
        let changed = self.state != stand.state || self.since != stand.since;
        (self.state, self.since, self.clear_since) = (stand.state, stand.since, stand.clear_since);
        match stand.state {
            AlertState::Firing => self.fired_at = Some(stand.since),
            AlertState::Resolved => self.end(stand.since),
            AlertState::Pending => {}
        }
        changed
    }

    /// It is over.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.state = AlertState::Resolved;
        self.since = now;
        self.clear_since = None;
        self.resolved_at = Some(now);
        self.exhausted = false;
    }

    /// Whether it fires.
    pub fn is_firing(&self) -> bool {
        self.state == AlertState::Firing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn timing(hold: u64, keep: u64, on_no_data: OnNoData) -> Timing {
        Timing { hold: Duration::from_secs(hold), keep: Duration::from_secs(keep), on_no_data }
    }

    /// The states after each verdict (`b`reach, `c`lear, `n`o data), 10 s apart: `i`nactive, `p`ending, `f`iring, `r`esolved.
    fn check(timing: Timing, verdicts: &str, states: &str) {
        let mut stand = None;
        let mut seen = String::new();
        for (step_number, verdict) in verdicts.chars().enumerate() {
            let verdict = match verdict {
                'b' => Verdict::Breach(1.0),
                'c' => Verdict::Clear(0.0),
                _ => Verdict::NoData,
            };
            stand = step(stand, verdict, timing, at(step_number as i64 * 10));
            seen.push(match stand.map(|stand| stand.state) {
                None => 'i',
                Some(AlertState::Pending) => 'p',
                Some(AlertState::Firing) => 'f',
                Some(AlertState::Resolved) => 'r',
            });
        }
        assert_eq!(seen, states, "{verdicts} with {timing:?}");
    }

    #[test]
    fn an_alert_fires_after_it_held_for_long_enough() {
        check(timing(0, 0, OnNoData::KeepLast), "bcb", "frf");
        check(timing(20, 0, OnNoData::KeepLast), "bbbbccbb", "ppffrrpp");
        check(timing(20, 0, OnNoData::KeepLast), "bbcbbb", "ppippf");
    }

    #[test]
    fn an_alert_goes_on_firing_for_a_while() {
        check(timing(0, 20, OnNoData::KeepLast), "bccccb", "fffrrf");
        check(timing(0, 20, OnNoData::KeepLast), "bcbccc", "fffffr");
    }

    #[test]
    fn missing_data_is_what_the_rule_says_it_is() {
        check(timing(20, 0, OnNoData::KeepLast), "nbnnbn", "ipppff");
        check(timing(20, 0, OnNoData::Ok), "nbnbbbn", "ipippfr");
        check(timing(20, 0, OnNoData::Alert), "nnnc", "ppfr");
    }

    #[test]
    fn a_fingerprint_is_pinned() {
        let rule = AlertRule { name: "lag".to_owned(), ..AlertRule::default() };
        let labels = labels("default", "p", &rule, "demo");
        assert_eq!(labels["priority"], "P2");
        assert_eq!(fingerprint(&labels), "abcdbc7fd84b203f");
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![Just(Verdict::Breach(1.0)), Just(Verdict::Clear(0.0)), Just(Verdict::NoData)]
    }

    fn no_data() -> impl Strategy<Value = OnNoData> {
        prop_oneof![Just(OnNoData::Alert), Just(OnNoData::Ok), Just(OnNoData::KeepLast)]
    }

    proptest! {
        #[test]
        fn the_state_machine_keeps_its_promises(
            hold in 0u64..100, keep in 0u64..100, on_no_data in no_data(),
            steps in proptest::collection::vec((verdict(), 0i64..40), 1..60),
        ) {
            let timing = timing(hold, keep, on_no_data);
            let mut now = 0;
            let mut stand: Option<Stand> = None;
            let mut held_since: Option<i64> = None;
            for (verdict, wait) in steps {
                now += wait;
                let former = stand;
                stand = step(stand, verdict, timing, at(now));
                prop_assert_eq!(step(stand, verdict, timing, at(now)), stand, "the same verdict at the same time changes nothing");
                let holds = match (verdict, on_no_data) {
                    (Verdict::Breach(_), _) | (Verdict::NoData, OnNoData::Alert) => Some(true),
                    (Verdict::NoData, OnNoData::KeepLast) => None,
                    _ => Some(false),
                };
                match holds {
                    Some(true) => { held_since.get_or_insert(now); }
                    Some(false) => held_since = None,
                    None => {}
                }
                let fires = |stand: Option<Stand>| stand.is_some_and(|s| s.state == AlertState::Firing);
                if fires(stand) && !fires(former) {
                    prop_assert!(held_since.is_some_and(|since| now - since >= hold as i64), "it fires too early");
                }
                if fires(former) && !fires(stand) {
                    prop_assert_eq!(stand.map(|s| s.state), Some(AlertState::Resolved), "a firing alert ends resolved");
                    prop_assert_eq!(holds, Some(false), "it ends only on evidence");
                }
                if holds == Some(true) && held_since.is_some_and(|since| now - since >= hold as i64) {
                    prop_assert!(fires(stand), "it fires when it held for long enough");
                }
            }
        }
    }
}
