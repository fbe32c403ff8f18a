//! Which actions run now. A run is recorded before it begins, so that none happens twice; what came of it is recorded after.
//! Never runs anything itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hebb_api::{ActionSpec, ActionType, Approval, Mode, Phase};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::digest;
use crate::note::Note;
use crate::policy::{Observation, Policy, Target};
use crate::record::{ACTIONS_MAX, Record};
use crate::template::cut;
use crate::time::{after, elapsed};

/// A run that nobody has reported on for so long ended with the one who began it.
const RUN_MAX: Duration = Duration::from_secs(600);
/// Bytes of the reason of a failure.
const REASON_MAX: usize = 200;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Not well, and why.
    Failed(String),
    /// The one who began it never said.
    Unknown,
    /// It wasn't meant to happen.
    DryRun,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Succeeded => f.write_str("Succeeded"),
            Outcome::Failed(reason) => write!(f, "Failed: {reason}"),
            Outcome::Unknown => f.write_str("Unknown"),
            Outcome::DryRun => f.write_str("DryRun"),
        }
    }
}

/// What holds an action back that would run otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// What goes on with the target.
    Phase(Phase),
    /// Nobody has agreed yet.
    Approval,
    /// Too many targets are being worked on.
    MaxAffected,
}

impl Hold {
    fn words(self) -> &'static str {
        match self {
            Hold::Phase(Phase::Upgrade) => "waits for the end of the upgrade",
            Hold::Phase(Phase::Suspend) => "waits for the end of the suspension",
            Hold::Approval => "waits for approval: annotate the LearningCluster with hebb.dev/approve",
            Hold::MaxAffected => "waits for other LearningClusters: maxAffected is reached",
        }
    }
}

/// How the runs of an action on a target went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionLog {
    /// Name of the action.
    pub action: String,
    /// Name of the LearningCluster.
    pub target: String,
    /// Runs since the target was healthy.
    #[serde(default)]
    pub attempts: u32,
    /// The run that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When the latest began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the latest ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How the latest went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Since when no alert with this action has fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// What holds it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// Whether the approval that stands has been used.
    #[serde(default)]
    pub approval_used: bool,
}

impl ActionLog {
    fn new(action: &str, target: &str) -> Self {
        Self {
            action: action.to_owned(),
            target: target.to_owned(),
            attempts: 0,
            run: None,
            started_at: None,
            finished_at: None,
            outcome: None,
            healthy_since: None,
            held: None,
            approval_used: false,
        }
    }

    /// When it may run next; nothing while it runs, and when it never has.
    pub(crate) fn next_at(&self, spec: &ActionSpec) -> Option<Timestamp> {
        let wait = match self.outcome.as_ref()? {
            Outcome::Succeeded | Outcome::DryRun => spec.cooldown.0,
            Outcome::Failed(_) | Outcome::Unknown => spec.retry_period.0,
        };
        Some(after(self.finished_at?, wait))
    }

    /// Whether it is at work on the target, or lets its work take effect.
    fn is_busy(&self, spec: &ActionSpec, now: Timestamp) -> bool {
        self.run.is_some() || self.next_at(spec).is_some_and(|next| now < next)
    }

    /// Whether it has run as often as it may, and to no avail.
    pub(crate) fn is_exhausted(&self, spec: &ActionSpec, now: Timestamp) -> bool {
        u32::try_from(spec.max_retries).unwrap_or(0) <= self.attempts && !self.is_busy(spec, now)
    }

    /// Cuts back what is still to come: a clock was set back since. The waits begin anew, so that none gets shorter.
    fn mend(&mut self, now: Timestamp) {
        for time in [&mut self.started_at, &mut self.finished_at, &mut self.healthy_since] {
            *time = time.map(|time| time.min(now));
        }
    }
}

/// A run that is to begin now. It is in the record already.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What [`finish`] wants back.
    pub id: String,
    /// The action.
    pub spec: ActionSpec,
    /// Name of the LearningCluster.
    pub target: String,
    /// Name of the rule whose alert fires.
    pub rule: String,
    /// The run's number since the target was healthy, from 1.
    pub attempt: u32,
    /// How many pods of the component may be restarted at a time.
    pub pods: Option<u32>,
    /// Whether the approval is used up by it: the annotation is to be removed first.
    pub uses_approval: bool,
}

/// What an action on a target is known by.
pub(crate) fn key(action: &str, target: &str) -> String {
    format!("{action}/{target}")
}

/// Decides which runs begin now and records them.
pub(crate) fn plan(policy: &Policy, record: &mut Record, seen: &Observation, notes: &mut Vec<Note>) -> Vec<Run> {
    let now = seen.now;
    settle(policy, record, now, notes);
    if policy.spec.mode == Mode::NotifyOnly {
        for alert in record.alerts.values_mut() {
            alert.exhausted = false;
        }
        return Vec::new();
    }
    let mut wanted = wanted(policy, record, now, notes);
    forgive(policy, record, seen);
    // The worst first, then the oldest: what is capped is shared out in this order.
    wanted.sort_by_key(|wish| (std::cmp::Reverse(wish.severity), wish.fired_at));
    let mut runs = Vec::new();
    for wish in wanted {
        let Some(target) = seen.targets.get(&wish.target) else { continue };
        if let Some(run) = consider(policy, record, seen, target, &wish, notes) {
            runs.push(run);
        }
    }
    runs
}

/// An action that an alert asks for.
struct Wish<'a> {
    spec: &'a ActionSpec,
    target: String,
    rule: String,
    severity: hebb_api::Severity,
    fired_at: Option<Timestamp>,
}

/// Ends runs that nobody will report on, and drops what is known of actions that are gone.
fn settle(policy: &Policy, record: &mut Record, now: Timestamp, notes: &mut Vec<Note>) {
    for log in record.actions.values_mut() {
        log.mend(now);
        if log.run.is_some() && log.started_at.is_none_or(|started| RUN_MAX <= elapsed(now, started)) {
            log.run = None;
            log.finished_at = Some(now);
            log.outcome = Some(Outcome::Unknown);
            let text = format!("{} was begun and never reported on", log.action);
            notes.push(Note::warning("ActionUnknown", &log.target, text));
        }
    }
    record.actions.retain(|_, log| log.run.is_some() || policy.action(&log.action).is_some());
}

/// What the firing alerts ask for: of each rule's actions the first that isn't exhausted.
fn wanted<'a>(policy: &'a Policy, record: &mut Record, now: Timestamp, notes: &mut Vec<Note>) -> Vec<Wish<'a>> {
    let mut wanted = Vec::new();
    for alert in record.alerts.values_mut() {
        let rule = policy.rule(&alert.rule).filter(|rule| alert.is_firing() && !rule.actions.is_empty());
        let Some(rule) = rule else {
            alert.exhausted = false;
            continue;
        };
        let next = rule.actions.iter().filter_map(|name| policy.action(name)).find(|spec| {
            let log = record.actions.get(&key(&spec.name, &alert.target));
            !log.is_some_and(|log| log.is_exhausted(spec, now))
        });
        if next.is_none() && !alert.exhausted {
            let text = format!("{} goes on although {} ran as often as allowed", alert.rule, rule.actions.join(", "));
            notes.push(Note::warning("RemediationExhausted", &alert.target, text));
        }
        alert.exhausted = next.is_none();
        wanted.extend(next.map(|spec| Wish {
            spec,
            target: alert.target.clone(),
            rule: alert.rule.clone(),
            severity: alert.severity,
            fired_at: alert.fired_at,
        }));
    }
    wanted
}

/// Forgets the runs on targets that have been healthy for long enough.
fn forgive(policy: &Policy, record: &mut Record, seen: &Observation) {
    let mut firing: BTreeSet<String> = BTreeSet::new();
    for alert in record.alerts.values().filter(|alert| alert.is_firing()) {
        for action in policy.rule(&alert.rule).iter().flat_map(|rule| &rule.actions) {
            firing.insert(key(action, &alert.target));
        }
    }
    record.actions.retain(|key, log| {
        let approved = seen.targets.get(&log.target).is_some_and(|target| target.approved.contains(&log.action));
        log.approval_used &= approved;
        if firing.contains(key) {
            log.healthy_since = None;
            return true;
        }
        log.held = None;
        let since = *log.healthy_since.get_or_insert(seen.now);
        let forget = policy.action(&log.action).is_none_or(|spec| {
            // A run that succeeded just now keeps its cooldown however soon the target is healthy.
            spec.min_healthy_period.0 <= elapsed(seen.now, since) && !log.is_busy(spec, seen.now)
        });
        log.run.is_some() || !forget
    });
}

/// Lets an action run unless something holds it back.
fn consider(
    policy: &Policy,
    record: &mut Record,
    seen: &Observation,
    target: &Target,
    wish: &Wish<'_>,
    notes: &mut Vec<Note>,
) -> Option<Run> {
    let (spec, now) = (wish.spec, seen.now);
    let key = key(&spec.name, &wish.target);
    if !record.actions.contains_key(&key) && record.actions.len() == ACTIONS_MAX {
        return None;
    }
    let busy = record.actions.values().any(|log| log.target == wish.target && log.run.is_some());
    let affected = affected(&record.actions, spec, now);
    let log = record.actions.entry(key).or_insert_with(|| ActionLog::new(&spec.name, &wish.target));
    if busy || log.is_busy(spec, now) || u32::try_from(spec.max_retries).unwrap_or(0) <= log.attempts {
        return None;
    }
    let targets = u32::try_from(seen.targets.len()).unwrap_or(u32::MAX);
    let phase = spec.skip_during.iter().find(|phase| target.phases.contains(phase));
    let approved = target.approved.contains(&spec.name) && !log.approval_used;
    let hold = if let Some(phase) = phase {
        Some(Hold::Phase(*phase))
    } else if spec.approval == Approval::Manual && !approved {
        Some(Hold::Approval)
    } else if spec.max_affected.of(targets) <= affected {
        Some(Hold::MaxAffected)
    } else {
        None
    };
    if let Some(hold) = hold {
        if log.held != Some(hold) {
            log.held = Some(hold);
            notes.push(Note::normal("ActionHeld", &wish.target, format!("{} {}", spec.name, hold.words())));
        }
        return None;
    }
    let dry = policy.spec.mode == Mode::DryRun;
    log.attempts = log.attempts.saturating_add(1);
    log.held = None;
    log.started_at = Some(now);
    let id = digest(
        [&policy.id(), &spec.name, &wish.target, &now.to_string(), &log.attempts.to_string()].map(|part| part.as_str()),
    );
    let words = format!(
        "{} ({}) for {}, run {} of {}",
        spec.name,
        spec.type_.as_str(),
        wish.rule,
        log.attempts,
        spec.max_retries
    );
    if dry {
        (log.finished_at, log.outcome) = (Some(now), Some(Outcome::DryRun));
        notes.push(Note::normal("DryRun", &wish.target, format!("would run {words}")));
        return None;
    }
    log.run = Some(id.clone());
    (log.finished_at, log.outcome) = (None, None);
    let uses_approval = spec.approval == Approval::Manual;
    log.approval_used |= uses_approval;
    notes.push(Note::normal("ActionStarted", &wish.target, words));
    let pods = match (spec.type_, spec.component) {
        (ActionType::RestartComponent, Some(component)) => {
            Some(spec.max_affected.of(target.replicas.get(&component).copied().unwrap_or(1)))
        }
        _ => None,
    };
    Some(Run {
        id,
        spec: spec.clone(),
        target: wish.target.clone(),
        rule: wish.rule.clone(),
        attempt: log.attempts,
        pods,
        uses_approval,
    })
}

/// On how many targets the action is at work.
fn affected(actions: &BTreeMap<String, ActionLog>, spec: &ActionSpec, now: Timestamp) -> u32 {
    let busy = actions.values().filter(|log| log.action == spec.name && log.is_busy(spec, now)).count();
    u32::try_from(busy).unwrap_or(u32::MAX)
}

/// Takes note of how a run went; whether anybody knew of it.
pub fn finish(record: &mut Record, run: &str, outcome: Result<(), String>, now: Timestamp) -> bool {
    let Some(log) = record.actions.values_mut().find(|log| log.run.as_deref() == Some(run)) else { return false };
    log.run = None;
    log.finished_at = Some(now);
    log.outcome = Some(match outcome {
        Ok(()) => Outcome::Succeeded,
        Err(reason) => Outcome::Failed(cut(reason, REASON_MAX)),
    });
    true
}

/// What has been done about a rule's alert, in words.
pub(crate) fn remediation(policy: &Policy, record: &Record, rule: &str, target: &str, now: Timestamp) -> String {
    let actions = policy.rule(rule).map(|rule| rule.actions.as_slice()).unwrap_or_default();
    let mut parts = Vec::new();
    for spec in actions.iter().filter_map(|name| policy.action(name)) {
        let Some(log) = record.actions.get(&key(&spec.name, target)).filter(|log| log.attempts > 0) else { continue };
        let state = match &log.outcome {
            _ if log.is_exhausted(spec, now) => "exhausted".to_owned(),
            Some(outcome) => outcome.to_string(),
            None => "running".to_owned(),
        };
        parts.push(format!("{}: run {} of {}, {state}", spec.name, log.attempts, spec.max_retries));
    }
    cut(parts.join("; "), crate::message::SUMMARY_MAX)
}
