//! Decides which pods are replaced because they don't recover by themselves: pure, and within a budget.
//!
//! Kubernetes restarts what exits. What is left: processes that hang, pods that can't end, crash loops that another node or
//! an empty disk may cure, and broken pods of an old revision that a StatefulSet waits for. A replacement is written down
//! before it happens, so that no crash of the operator spends the budget twice or forgets it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use hebb_api::names::Role;
use hebb_api::{HealingSpec, Replacement};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::pods::PodView;

/// A worker that runs and that the coordinators haven't heard of for so long hangs. Longer than a change of
/// the leader takes, shorter than a liveness probe.
const HUNG_AFTER: Duration = Duration::from_secs(15);
/// A pod that should have ended so long ago is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// A pod that runs and isn't ready for so long doesn't become it.
const UNREADY_AFTER: Duration = Duration::from_secs(300);
/// Restarts by the kubelet that a crash loop is given before the pod is replaced.
const RESTARTS: i32 = 3;
/// The wait after the first replacement; it doubles.
const BACKOFF: Duration = Duration::from_secs(10);
/// Replacements that the status holds.
const REMEMBERED: usize = 16;

/// A pod that should be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sick {
    pub pod: String,
    pub uid: String,
    pub reason: &'static str,
    /// Without waiting for the kubelet.
    pub force: bool,
}

impl Sick {
    /// What is written down before it is replaced.
    pub fn replacement(&self, now: Timestamp) -> Replacement {
        let at = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        Replacement { pod: self.pod.clone(), uid: self.uid.clone(), reason: self.reason.to_owned(), at }
    }
}

/// What is known of the pods.
pub struct Patients<'a> {
    pub pods: &'a [PodView],
    /// The digest of the pod template that each role should run.
    pub templates: &'a BTreeMap<Role, String>,
    /// How long ago the coordinators heard of each worker; nothing while no coordinator answers.
    pub heard: Option<&'a BTreeMap<String, Duration>>,
    /// Whether Redis works: while it doesn't, nobody else can become ready.
    pub redis_up: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is sick.
    Healthy,
    /// Replace this one.
    Replace(Sick),
    /// One is sick, and the last replacement is too recent.
    Wait(Sick),
    /// One is sick, and the budget is spent.
    Exhausted(Sick),
}

/// The pods that don't recover by themselves, the worst first.
pub fn sick(patients: &Patients<'_>) -> Vec<Sick> {
    let mut found: Vec<Sick> = patients.pods.iter().filter_map(|pod| diagnose(pod, patients)).collect();
    found.sort_by(|a, b| (!a.force, &a.pod).cmp(&(!b.force, &b.pod)));
    found
}

fn diagnose(pod: &PodView, patients: &Patients<'_>) -> Option<Sick> {
    let role = pod.role?;
    let sick = |reason, force| Some(Sick { pod: pod.name.clone(), uid: pod.uid.clone(), reason, force });
    if let Some(overdue) = pod.overdue {
        // Two servers must never share a volume, and only the node can say that the first one has ended.
        return if overdue >= STUCK_AFTER && role != Role::Redis { sick("StuckTerminating", true) } else { None };
    }
    if pod.leaving {
        return None;
    }
    let waiting = pod.waiting.as_deref();
    let outdated = patients.templates.get(&role).is_some_and(|wanted| pod.template.as_ref() != Some(wanted));
    // Of one that no node has room for, or whose volume isn't there, no container says why it waits.
    let never_began = !pod.running && pod.in_this_state_for >= STUCK_AFTER;
    if outdated && !pod.ready && (waiting.is_some() || never_began) {
        return sick("BrokenOldRevision", false);
    }
    if waiting == Some("CrashLoopBackOff") && pod.restarts >= RESTARTS && (patients.redis_up || role == Role::Redis) {
        return sick("CrashLoopBackOff", false);
    }
    if role == Role::Worker
        && pod.running
        && patients.redis_up
        && let Some(heard) = patients.heard
    {
        // One that is starting has never been heard of, and is not ready yet.
        let silent = heard.get(&pod.name).copied().or(pod.ready.then_some(pod.in_this_state_for));
        if silent.is_some_and(|silent| silent.min(pod.in_this_state_for) >= HUNG_AFTER) {
            return sick("Hung", false);
        }
    }
    if !pod.ready && pod.running && pod.in_this_state_for >= UNREADY_AFTER && patients.redis_up {
        return sick("NotReady", false);
    }
    None
}

/// What to do about the first of them, given what was done lately.
pub fn decide(spec: &HealingSpec, sick: &[Sick], former: &[Replacement], now: Timestamp) -> Verdict {
    let Some(first) = sick.first() else { return Verdict::Healthy };
    // Of one that was written down and is still there, the deletion has never arrived.
    if spec.enabled
        && let Some(again) = sick.iter().find(|sick| is_recorded(sick, former))
    {
        return Verdict::Replace(again.clone());
    }
    let spent = former.len();
    if room(spec, former) == 0 {
        return Verdict::Exhausted(first.clone());
    }
    let doubled = BACKOFF.saturating_mul(1 << spent.saturating_sub(1).min(10));
    match former.iter().map(|replacement| replacement.at.0).max() {
        Some(last) if since(last, now) < doubled => Verdict::Wait(first.clone()),
        _ => Verdict::Replace(first.clone()),
    }
}

/// Whether the replacement of this very pod for this very reason was written down.
pub fn is_recorded(sick: &Sick, former: &[Replacement]) -> bool {
    former.iter().any(|replacement| replacement.uid == sick.uid && replacement.reason == sick.reason)
}

/// The replacements that still count. They lapse with the window, but not while pods are sick: a budget that fills up by
/// itself would replace for ever what nobody has mended.
pub fn remembered(spec: &HealingSpec, former: &[Replacement], sick: &[Sick], now: Timestamp) -> Vec<Replacement> {
    let counts = |replacement: &&Replacement| !sick.is_empty() || since(replacement.at.0, now) < spec.window.0;
    let mut kept: Vec<Replacement> = former.iter().filter(counts).cloned().collect();
    let surplus = kept.len().saturating_sub(REMEMBERED);
    kept.drain(..surplus);
    kept
}

/// Replacements that the budget still allows.
pub fn room(spec: &HealingSpec, former: &[Replacement]) -> usize {
    if !spec.enabled {
        return 0;
    }
    usize::try_from(spec.max_replacements).unwrap_or(0).saturating_sub(former.len())
}

/// The pods of a role that somebody wants restarted: those that aren't ready first, then those with the most restarts.
pub fn worst(pods: &[PodView], role: Role, count: usize) -> Vec<Sick> {
    let mut pods: Vec<&PodView> = pods.iter().filter(|pod| pod.role == Some(role) && !pod.leaving).collect();
    pods.sort_by_key(|pod| (pod.ready, Reverse(pod.restarts), pod.name.clone()));
    pods.into_iter().take(count).map(|pod| asked(pod, "Requested")).collect()
}

/// Of these primaries the one that gives its role up when somebody wants a failover: one that isn't ready, else the one that
/// has been for longest, so that with several shards repeated failovers take turns.
pub fn primary_to_move(pods: &[PodView], primaries: &[String]) -> Option<Sick> {
    let of_primary = |pod: &&PodView| !pod.leaving && primaries.contains(&pod.name);
    let chosen =
        pods.iter().filter(of_primary).min_by_key(|pod| (pod.ready, Reverse(pod.in_this_state_for), &pod.name));
    chosen.map(|pod| asked(pod, "Failover"))
}

/// A pod that somebody wants replaced, and the word for why.
fn asked(pod: &PodView, reason: &'static str) -> Sick {
    Sick { pod: pod.name.clone(), uid: pod.uid.clone(), reason, force: false }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(role: Role) -> PodView {
        PodView {
            name: "p".to_owned(),
            uid: "u".to_owned(),
            role: Some(role),
            ready: true,
            running: true,
            leaving: false,
            overdue: None,
            in_this_state_for: Duration::from_secs(1_000),
            waiting: None,
            restarts: 0,
            template: Some("t".to_owned()),
            marked: false,
        }
    }

    fn examine(pod: &PodView, heard: Option<u64>, redis_up: bool) -> Option<&'static str> {
        let templates = [Role::Gateway, Role::Coordinator, Role::Worker, Role::Redis]
            .into_iter()
            .map(|role| (role, "t".to_owned()))
            .collect();
        let heard = heard.map(|seconds| BTreeMap::from([(pod.name.clone(), Duration::from_secs(seconds))]));
        let patients =
            Patients { pods: std::slice::from_ref(pod), templates: &templates, heard: heard.as_ref(), redis_up };
        sick(&patients).first().map(|sick| sick.reason)
    }

    #[test]
    fn each_way_of_being_sick_is_told_from_being_well() {
        let worker = pod(Role::Worker);
        assert_eq!(examine(&worker, Some(1), true), None);
        assert_eq!(examine(&worker, Some(15), true), Some("Hung"));
        assert_eq!(examine(&worker, None, true), None, "no coordinator answers: nobody can tell");
        let unready = PodView { ready: false, ..pod(Role::Worker) };
        assert_eq!(examine(&unready, Some(20), true), Some("Hung"));
        assert_eq!(examine(&unready, Some(20), false), None, "nobody is heard of without Redis");
        let young = PodView { in_this_state_for: Duration::from_secs(5), ..pod(Role::Worker) };
        assert_eq!(examine(&young, Some(15), true), None);
        let crashing = PodView {
            ready: false,
            running: false,
            waiting: Some("CrashLoopBackOff".to_owned()),
            restarts: 3,
            ..pod(Role::Gateway)
        };
        assert_eq!(examine(&crashing, None, true), Some("CrashLoopBackOff"));
        assert_eq!(examine(&crashing, None, false), None, "it crashes because Redis is away");
        let unready = PodView { ready: false, ..pod(Role::Gateway) };
        assert_eq!(examine(&unready, None, true), Some("NotReady"));
        assert_eq!(examine(&unready, None, false), None);
        let stuck = |role| PodView { leaving: true, overdue: Some(STUCK_AFTER), ..pod(role) };
        assert_eq!(examine(&stuck(Role::Worker), None, true), Some("StuckTerminating"));
        assert_eq!(examine(&stuck(Role::Redis), None, true), None);
        let old = PodView {
            ready: false,
            running: false,
            waiting: Some("ImagePullBackOff".to_owned()),
            template: Some("before".to_owned()),
            ..pod(Role::Redis)
        };
        assert_eq!(examine(&old, None, false), Some("BrokenOldRevision"));
        let unscheduled = PodView { waiting: None, ..old.clone() };
        assert_eq!(examine(&unscheduled, None, false), Some("BrokenOldRevision"));
        let starting = PodView { in_this_state_for: Duration::from_secs(5), ..unscheduled };
        assert_eq!(examine(&starting, None, false), None);
        let new = PodView { template: Some("t".to_owned()), ..old };
        assert_eq!(examine(&new, None, false), None, "the same image fails on every node");
    }

    #[test]
    fn failovers_of_several_shards_take_turns_after_one_that_is_not_ready() {
        let redis = |name: &str, ready, seconds| PodView {
            name: name.to_owned(),
            ready,
            in_this_state_for: Duration::from_secs(seconds),
            ..pod(Role::Redis)
        };
        let primaries = ["r-0".to_owned(), "r-1".to_owned(), "r-2".to_owned()];
        let moved = |pods: &[PodView]| primary_to_move(pods, &primaries).map(|sick| sick.pod);
        let replica = redis("r-3", false, 900);
        let mut pods = [redis("r-0", true, 100), redis("r-1", true, 200), redis("r-2", true, 150), replica];
        assert_eq!(moved(&pods).as_deref(), Some("r-1"));
        pods[1].in_this_state_for = Duration::ZERO;
        assert_eq!(moved(&pods).as_deref(), Some("r-2"));
        pods[0].ready = false;
        assert_eq!(moved(&pods).as_deref(), Some("r-0"));
        pods[0].leaving = true;
        assert_eq!(moved(&pods).as_deref(), Some("r-2"));
        assert_eq!(moved(&pods[3..]), None);
    }

    proptest! {
        #[test]
        fn no_history_of_failures_spends_more_than_the_budget(waits in prop::collection::vec(1i64..200, 1..80)) {
            let spec = HealingSpec::default();
            let mut replaced: Vec<Replacement> = Vec::new();
            let mut now = Timestamp::UNIX_EPOCH;
            for (number, wait) in waits.into_iter().enumerate() {
                let ill = [Sick { pod: "p".to_owned(), uid: number.to_string(), reason: "Hung", force: false }];
                now = Timestamp::from_second(now.as_second() + wait).unwrap();
                replaced = remembered(&spec, &replaced, &ill, now);
                if let Verdict::Replace(sick) = decide(&spec, &ill, &replaced, now) {
                    replaced.push(sick.replacement(now));
                    // Its deletion is tried until it arrives, and costs nothing more.
                    prop_assert_eq!(decide(&spec, &ill, &replaced, now), Verdict::Replace(sick));
                }
            }
            prop_assert!(replaced.len() <= 3);
            let gaps: Vec<i64> =
                replaced.windows(2).map(|pair| pair[1].at.0.as_second() - pair[0].at.0.as_second()).collect();
            prop_assert!(gaps.iter().zip([10, 20]).all(|(gap, least)| *gap >= least), "{gaps:?}");
            // Once everything is well, the window lets go of what was done.
            let later = Timestamp::from_second(now.as_second() + 601).unwrap();
            prop_assert!(remembered(&spec, &replaced, &[], later).is_empty());
        }
    }
}
