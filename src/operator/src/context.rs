//! What the controllers share.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hebb_alert::notify::Edges;
use hebb_api::{AlertPolicy, LearningCluster};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tracing::debug;

use crate::alert_policy::Pasts;
use crate::learning_cluster::elections::Elections;
use crate::learning_cluster::known::Known;
use crate::learning_cluster::requests::Requests;
use crate::learning_cluster::scrape::Coordinators;
use crate::learning_cluster::topology::Defaults;
use crate::metrics::Metrics;

/// The first wait after a failed pass; it doubles.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest wait: a cluster is mended within two minutes of what hindered it.
const DELAY_MAX: Duration = Duration::from_secs(120);
/// The shortest rest between two passes over an object.
const REST_MIN: Duration = Duration::from_millis(500);
/// The longest.
const REST_MAX: Duration = Duration::from_secs(2);
/// How long failures in a row are remembered after the last.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// Objects whose last write is remembered: more than there are on the largest cluster that is tested.
const WRITTEN_MAX: usize = 20_000;
/// Bytes of an Event's note.
const NOTE_MAX: usize = 1_000;

/// What the controllers share.
pub struct Context {
    pub client: Client,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub defaults: Defaults,
    pub coordinators: Coordinators,
    pub elections: Elections,
    pub failures: Failures,
    /// How soon a pass may follow another one.
    pub paces: Paces,
    /// What was written last.
    pub written: Written,
    /// What the watches say of children.
    pub known: Known,
    /// What receivers may reach.
    pub edges: Edges,
    /// What policies must not forget.
    pub pasts: Pasts,
    /// What alerts ask of clusters.
    pub requests: Requests,
    /// Calls for a pass over a cluster.
    pub clusters_changed: mpsc::Sender<ObjectRef<LearningCluster>>,
    /// Calls for a pass over a policy.
    pub policies_changed: mpsc::Sender<ObjectRef<AlertPolicy>>,
}

impl Context {
    /// Lets go of what is kept of clusters whose uid isn't kept, so that nobody asks for them any more.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.coordinators.retain(&keep);
        self.elections.retain(&keep);
        self.requests.retain(&keep);
    }

    /// Publishes an Event about an object. One that can't be published is no reason to fail.
    pub async fn tell<K>(&self, object: &K, type_: EventType, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.tell_of(object.object_ref(&()), type_, reason, action, note).await;
    }

    /// As [`Context::tell`], about an object whose type isn't known here.
    pub async fn tell_of(
        &self,
        mut reference: ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        let end = (0..=NOTE_MAX.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
        note.truncate(end.unwrap_or(0));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: (!note.is_empty()).then_some(note),
            action: action.to_owned(),
            secondary: None,
        };
        // Without the resource version, so that repeats are counted as one.
        reference.resource_version = None;
        self.metrics.wrote("events", "create");
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            debug!(%error, reason, "an Event could not be published");
        }
    }
}

/// Failed passes in a row, by the object's uid.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<String, (u32, Instant)>>);

impl Failures {
    /// The wait before the next pass: doubled with each failure, up to a fifth longer or shorter by chance.
    pub fn next_delay(&self, uid: &str) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What has not failed for so long is gone, or well.
        failures.retain(|_, (_, at)| at.elapsed() < FORGET_AFTER);
        let (count, at) = failures.entry(uid.to_owned()).or_insert((0, Instant::now()));
        *at = Instant::now();
        let delay = DELAY_MIN.saturating_mul(1 << (*count).min(10)).min(DELAY_MAX);
        *count = count.saturating_add(1);
        delay.mul_f64(rand::random_range(0.8..1.2))
    }

    /// A pass went well, or the object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// When the last pass over each object that isn't ready for the first time ended, and how long it took, by the object's uid.
/// One pass takes in everything that has happened, so that what happens in a row waits for as long as a pass takes: where
/// the API server is slow, it is asked less often.
#[derive(Default)]
pub struct Paces(Mutex<HashMap<String, (Instant, Duration)>>);

impl Paces {
    /// For how long the next pass has to wait; nothing where it may begin.
    pub fn rest(&self, uid: &str) -> Option<Duration> {
        let paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, took) = paces.get(uid)?;
        (*took).clamp(REST_MIN, REST_MAX).checked_sub(ended.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// A pass has ended.
    pub fn ended(&self, uid: &str, took: Duration) {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.retain(|_, (ended, _)| ended.elapsed() < REST_MAX);
        paces.insert(uid.to_owned(), (Instant::now(), took));
    }
}

/// The resource version of the last write to each object, by uid: a cache may not have seen it yet, and what was written
/// must not be decided again from before it.
#[derive(Default)]
pub struct Written(Mutex<HashMap<String, u64>>);

impl Written {
    /// The object was written, and has this resource version since.
    pub fn note(&self, uid: &str, version: Option<&str>) {
        if let Some(version) = version.and_then(|version| version.parse().ok()) {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A restart of the operator forgets them all; so many are a leak of deleted objects.
            if written.len() >= WRITTEN_MAX {
                written.clear();
            }
            written.insert(uid.to_owned(), version);
        }
    }

    /// Whether an object of this resource version is older than what was written.
    pub fn is_stale(&self, uid: &str, version: Option<&str>) -> bool {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = version.and_then(|version| version.parse::<u64>().ok());
        matches!((written.get(uid), seen), (Some(written), Some(seen)) if seen < *written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_starts_anew_after_success() {
        let failures = Failures::default();
        let delays: Vec<f64> = (0..12).map(|_| failures.next_delay("a").as_secs_f64()).collect();
        assert!((0.8..1.2).contains(&delays[0]) && (1.6..2.4).contains(&delays[1]), "{delays:?}");
        assert!(delays.iter().all(|delay| *delay < 144.0));
        failures.forget("a");
        assert!(failures.next_delay("a").as_secs_f64() < 1.2);
    }

    #[test]
    fn a_pass_follows_another_one_after_a_rest() {
        let paces = Paces::default();
        assert_eq!(paces.rest("a"), None);
        paces.ended("a", Duration::ZERO);
        assert!(paces.rest("a").is_some_and(|rest| rest <= REST_MIN) && paces.rest("b").is_none());
        paces.ended("a", Duration::from_secs(60));
        assert!(paces.rest("a").is_some_and(|rest| rest > REST_MIN && rest <= REST_MAX));
        std::thread::sleep(REST_MAX);
        assert_eq!(paces.rest("a"), None);
    }

    #[test]
    fn a_cache_that_is_behind_is_noticed() {
        let written = Written::default();
        assert!(!written.is_stale("a", Some("5")));
        written.note("a", Some("7"));
        assert!(written.is_stale("a", Some("5")));
        assert!(!written.is_stale("a", Some("7")) && !written.is_stale("b", Some("1")));
    }
}
