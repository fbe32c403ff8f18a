//! One evaluation of a policy, from what was seen to what is to be done. Pure: time, values and the record are given, and
//! nothing is sent or run here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hebb_api::{ActionSpec, AlertPolicySpec, AlertPolicyStatus, AlertRule, AlertState, Component, Mode, Phase};
use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Value, context};

use crate::action::{self, Run};
use crate::group::{self, Present};
use crate::history::History;
use crate::interval::Interval;
use crate::message::{DESCRIPTION_MAX, Labels, Notice, SUMMARY_MAX, Standing};
use crate::mute::{Mute, Mutes};
use crate::note::Note;
use crate::outbox::{Delivery, expire, take_due};
use crate::record::{ALERTS_MAX, Record};
use crate::route::{self, CompiledRoute};
use crate::rule::{self, Verdict};
use crate::state::{self, Alert, Stand, Timing, fingerprint};
use crate::status::{self, Fact};
use crate::template::render;
use crate::time::elapsed;
use crate::validate;

/// How long the status shows an alert that has ended.
const ENDED_SHOWN: Duration = Duration::from_secs(300);

/// A policy, ready to be used: everything in it has been checked and compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) spec: AlertPolicySpec,
    pub(crate) routes: Vec<CompiledRoute>,
    pub(crate) mutes: Mutes,
    intervals: BTreeMap<String, Interval>,
}

/// What is seen of the targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The time.
    pub now: Timestamp,
    /// Every LearningCluster that the policy selects, by name. One of which nothing could be read has no samples; one that
    /// isn't here is gone, and its alerts end.
    pub targets: BTreeMap<String, Target>,
}

/// What is seen of a LearningCluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Values of indicators, by name; those that can't be told are missing.
    pub samples: BTreeMap<String, f64>,
    /// What goes on with it on purpose.
    pub phases: BTreeSet<Phase>,
    /// Number of pods of each component.
    pub replicas: BTreeMap<Component, u32>,
    /// Names of the actions that somebody has agreed to.
    pub approved: BTreeSet<String>,
}

/// What is to be done. The record is stored first.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is to be remembered.
    pub record: Record,
    /// Messages to be sent now; each is answered by [`crate::receipt`].
    pub sends: Vec<Delivery>,
    /// Actions to be run now; each is answered by [`crate::finish`].
    pub runs: Vec<Run>,
    /// Lines for the log, and Events.
    pub notes: Vec<Note>,
    /// The status, without `observedGeneration` and conditions.
    pub status: AlertPolicyStatus,
    /// What the conditions should say.
    pub facts: Vec<Fact>,
    /// The alerts of the status as messages would describe them now.
    pub notices: Vec<Notice>,
}

impl Policy {
    /// Checks and compiles a policy.
    ///
    /// # Errors
    /// What is wrong with it, each with the place in the object.
    pub fn new(namespace: &str, name: &str, spec: &AlertPolicySpec) -> Result<Self, Vec<String>> {
        let mut problems = spec.problems();
        let mut routes = Vec::new();
        for (index, route) in spec.routes.iter().enumerate() {
            routes.push(CompiledRoute::new(route, &format!("spec.routes[{index}]"), &mut problems));
        }
        let mutes = Mutes::new(&spec.silences, &spec.inhibit_rules, &spec.mute_during, &mut problems);
        let mut intervals = BTreeMap::new();
        for (index, interval) in spec.time_intervals.iter().enumerate() {
            match Interval::new(interval) {
                Ok(compiled) => {
                    intervals.insert(interval.name.clone(), compiled);
                }
                Err(problem) => problems.push(format!("spec.timeIntervals[{index}].location: {problem}")),
            }
        }
        let policy = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            spec: spec.clone(),
            routes,
            mutes,
            intervals,
        };
        validate::contents(&policy, &mut problems);
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    /// Namespace and name.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The spec that it was made of.
    pub fn spec(&self) -> &AlertPolicySpec {
        &self.spec
    }

    /// An empty past that keeps what the rules look at.
    pub fn history(&self) -> History {
        let mut keep: BTreeMap<String, Duration> = BTreeMap::new();
        for (indicator, window) in self.spec.rules.iter().flat_map(rule::windows) {
            let longest = keep.entry(indicator.to_owned()).or_default();
            *longest = (*longest).max(window);
        }
        History::new(self.spec.interval.0, keep)
    }

    /// Says which routes an alert of these labels would take, and why not the others.
    pub fn explain(&self, labels: &Labels, now: Timestamp) -> String {
        let mut text = route::explain(&self.routes, labels);
        for route in route::taken(&self.routes, labels) {
            if !self.is_active(route, now) {
                text.push_str(&format!("{} is told nothing at this time: a time interval\n", route.spec.receiver));
            }
        }
        if let Some(mute) = self.mutes.of(labels, &BTreeSet::new(), &BTreeMap::new(), now) {
            text.push_str(&format!("nobody is told at this time: {}\n", mute.as_str()));
        }
        text
    }

    pub(crate) fn rule(&self, name: &str) -> Option<&AlertRule> {
        self.spec.rules.iter().find(|rule| rule.name == name)
    }

    pub(crate) fn action(&self, name: &str) -> Option<&ActionSpec> {
        self.spec.actions.iter().find(|action| action.name == name)
    }

    /// Whether a route tells anything at this time.
    pub(crate) fn is_active(&self, route: &CompiledRoute, now: Timestamp) -> bool {
        let within = |names: &[String]| {
            names.iter().filter_map(|name| self.intervals.get(name)).any(|interval| interval.contains(now))
        };
        let active = &route.spec.active_time_intervals;
        !within(&route.spec.mute_time_intervals) && (active.is_empty() || within(active))
    }

    /// What templates may name.
    pub(crate) fn known(&self, rule: &AlertRule, target: &str, labels: &Labels, value: Option<f64>) -> Value {
        let (threshold, window) = rule::bounds(rule);
        context! {
            rule => rule.name.as_str(),
            target => target,
            namespace => self.namespace.as_str(),
            policy => self.name.as_str(),
            severity => rule.severity.as_str(),
            priority => rule.severity.priority(),
            value => value,
            threshold => threshold,
            window => window.map(|window| hebb_api::Duration(window).to_string()),
            labels => Value::from(Serde(labels)),
        }
    }
}

/// Evaluates the rules on what was seen, and decides what to tell and to do. Its own result at the same time gives nothing new.
pub fn evaluate(policy: &Policy, history: &mut History, record: Record, seen: &Observation) -> Decision {
    let mut record = record;
    let mut notes = Vec::new();
    record.enter(policy.spec.mode);
    let values = follow(policy, history, &mut record, seen, &mut notes);
    let runs = action::plan(policy, &mut record, seen, &mut notes);
    let mutes = mutes(policy, &record, seen);
    let described = record.clone();
    let describe = |fingerprint: &str, alert: &Alert, standing| {
        let value = values.get(fingerprint).copied().flatten();
        notice(policy, &described, fingerprint, alert, standing, value, seen.now)
    };
    expire(&mut record, &policy.spec.receivers, seen.now);
    let present = Present { policy, now: seen.now, mutes: &mutes, describe: &describe };
    group::speak(&mut record, &present, &mut notes);
    forget(&mut record, seen.now);
    let sends = match policy.spec.mode {
        Mode::DryRun => Vec::new(),
        Mode::Enforce | Mode::NotifyOnly => take_due(&mut record, &policy.spec.receivers, seen.now),
    };
    record.deliveries.retain(|name, _| policy.spec.receivers.iter().any(|receiver| &receiver.name == name));
    let (status, facts) = status::of(policy, &record, &mutes, seen);
    let notices = status.alerts.iter().filter_map(|shown| {
        let alert = record.alerts.get(&shown.fingerprint)?;
        let standing = if alert.state == AlertState::Resolved { Standing::Resolved } else { Standing::Firing };
        Some(describe(&shown.fingerprint, alert, standing))
    });
    let notices = notices.collect();
    Decision { record, sends, runs, notes, status, facts, notices }
}

/// Takes every alert a step further; the values that the rules saw, by fingerprint.
fn follow(
    policy: &Policy,
    history: &mut History,
    record: &mut Record,
    seen: &Observation,
    notes: &mut Vec<Note>,
) -> BTreeMap<String, Option<f64>> {
    let now = seen.now;
    let mut values = BTreeMap::new();
    history.retain(&seen.targets.keys().map(String::as_str).collect());
    record.left_out = 0;
    for (target, observed) in &seen.targets {
        history.observe(now, target, &observed.samples);
        for rule in &policy.spec.rules {
            let labels = state::labels(&policy.namespace, &policy.name, rule, target);
            let fingerprint = fingerprint(&labels);
            let verdict = rule::evaluate(rule, history, target, now);
            values.insert(fingerprint.clone(), verdict.value());
            advance(record, rule, target, labels, &fingerprint, verdict, now, notes);
        }
    }
    // What no rule and no target stands for any more ends.
    for (_, alert) in record.alerts.iter_mut().filter(|(fingerprint, _)| !values.contains_key(*fingerprint)) {
        if alert.is_firing() {
            alert.end(now);
            notes.push(Note::normal(
                "AlertResolved",
                &alert.target,
                format!("{} has ended with its rule or target", alert.rule),
            ));
        }
    }
    record.alerts.retain(|fingerprint, alert| values.contains_key(fingerprint) || alert.state != AlertState::Pending);
    values
}

#[expect(clippy::too_many_arguments, reason = "one alert of one rule on one target, and where it is kept")]
fn advance(
    record: &mut Record,
    rule: &AlertRule,
    target: &str,
    labels: Labels,
    fingerprint: &str,
    verdict: Verdict,
    now: Timestamp,
    notes: &mut Vec<Note>,
) {
    let former = record.alerts.get(fingerprint).map(Alert::stand);
    let next = state::step(former, verdict, Timing::of(rule), now);
    let begins_to_fire = next.is_some_and(|next| next.state == AlertState::Firing)
        && former.is_none_or(|former| former.state != AlertState::Firing);
    match (record.alerts.get_mut(fingerprint), next) {
        (Some(alert), Some(next)) => {
            let fired = alert.is_firing();
            alert.take(next);
            if fired && !alert.is_firing() {
                notes.push(Note::normal("AlertResolved", target, format!("{} has ended", rule.name)));
            }
        }
        (Some(alert), None) => match alert.resolved_at {
            // Somebody may still have to be told of its former end.
            Some(resolved_at) => {
                alert.take(Stand { state: AlertState::Resolved, since: resolved_at, clear_since: None });
            }
            None => {
                record.alerts.remove(fingerprint);
            }
        },
        (None, Some(next)) => {
            if ALERTS_MAX <= record.alerts.len() && !make_room(record) {
                record.left_out += 1;
                return;
            }
            record.alerts.insert(fingerprint.to_owned(), Alert::begin(rule, target, labels, next));
        }
        (None, None) => {}
    }
    if begins_to_fire {
        let value = verdict.value().map_or("no data".to_owned(), |value| format!("value {value}"));
        let text = format!("{} ({}) fires: {value}", rule.name, rule.severity.as_str());
        notes.push(Note::warning("AlertFiring", target, text));
    }
}

/// Gives up the alert that ended longest ago.
fn make_room(record: &mut Record) -> bool {
    let ended = record.alerts.iter().filter(|(_, alert)| alert.state == AlertState::Resolved);
    let oldest = ended.min_by_key(|(_, alert)| alert.since).map(|(fingerprint, _)| fingerprint.clone());
    oldest.is_some_and(|fingerprint| record.alerts.remove(&fingerprint).is_some())
}

/// Why alerts are told to nobody, by fingerprint.
fn mutes(policy: &Policy, record: &Record, seen: &Observation) -> BTreeMap<String, Mute> {
    let none = BTreeSet::new();
    let firing: BTreeMap<&str, &Labels> = record
        .alerts
        .iter()
        .filter(|(_, alert)| alert.is_firing())
        .map(|(fingerprint, alert)| (fingerprint.as_str(), &alert.labels))
        .collect();
    let mut mutes = BTreeMap::new();
    for (fingerprint, alert) in &record.alerts {
        let phases = seen.targets.get(&alert.target).map_or(&none, |target| &target.phases);
        if let Some(mute) = policy.mutes.of(&alert.labels, phases, &firing, seen.now) {
            mutes.insert(fingerprint.clone(), mute);
        }
    }
    mutes
}

fn notice(
    policy: &Policy,
    record: &Record,
    fingerprint: &str,
    alert: &Alert,
    standing: Standing,
    value: Option<f64>,
    now: Timestamp,
) -> Notice {
    let rule = policy.rule(&alert.rule);
    let text = |template: Option<&String>, max| match (rule, template) {
        (Some(rule), Some(template)) => render(template, &policy.known(rule, &alert.target, &alert.labels, value), max),
        _ => String::new(),
    };
    let annotations = rule.map(|rule| &rule.annotations);
    Notice {
        fingerprint: fingerprint.to_owned(),
        rule: alert.rule.clone(),
        target: alert.target.clone(),
        status: standing,
        severity: alert.severity,
        since: alert.fired_at.unwrap_or(alert.since),
        ended: alert.resolved_at.filter(|_| standing == Standing::Resolved),
        value,
        labels: alert.labels.clone(),
        summary: text(annotations.and_then(|annotations| annotations.summary.as_ref()), SUMMARY_MAX),
        description: text(annotations.and_then(|annotations| annotations.description.as_ref()), DESCRIPTION_MAX),
        runbook_url: text(annotations.and_then(|annotations| annotations.runbook_url.as_ref()), SUMMARY_MAX),
        remediation: action::remediation(policy, record, &alert.rule, &alert.target, now),
    }
}

/// Forgets alerts that have ended, once those who knew of them know.
fn forget(record: &mut Record, now: Timestamp) {
    let over: Vec<String> = record
        .alerts
        .iter()
        .filter(|(_, alert)| alert.state == AlertState::Resolved && ENDED_SHOWN <= elapsed(now, alert.since))
        .filter(|(fingerprint, _)| !group::is_told(record, fingerprint))
        .map(|(fingerprint, _)| fingerprint.clone())
        .collect();
    for fingerprint in over {
        record.alerts.remove(&fingerprint);
    }
}
