//! What the watches say of the children: which are there, and at which version. So a pass reads only what has changed since
//! an earlier one found nothing to do about it.
//!
//! A watch that lags makes a pass late, never wrong: what is decided is decided on objects that were read, a version that
//! is newer than the one that was judged is read, and whatever the watch hasn't told yet calls for a pass when it does. What
//! no watch knows is made without being looked for, in a way that the API server refuses where it is there after all.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hebb_api::names::TEMPLATE_ANNOTATION;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::plan::{Live, applied, keeps_replicas};
use super::render::{Desired, Kind, WORKLOADS, template_digest};

/// Everything is read again after so long, should a watch have missed something.
const TRUST_FOR: Duration = Duration::from_secs(300);
/// A cluster is looked at more often than this, so one that wasn't is gone.
const FORGET_AFTER: Duration = TRUST_FOR.saturating_mul(2);

/// Namespace and name.
type Place = (String, String);

/// Versions of the children of all clusters, and what passes have made of them.
#[derive(Default)]
pub struct Known {
    seen: Mutex<HashMap<Kind, Seen>>,
    judged: Mutex<HashMap<String, Judged>>,
}

/// What the watch of one kind has told.
#[derive(Default)]
struct Seen {
    /// Nothing before the first list is complete.
    versions: Option<HashMap<Place, String>>,
    /// The list that is being read.
    incoming: HashMap<Place, String>,
    /// What was read of some, with when and at which version.
    texts: HashMap<Place, (Instant, String, String)>,
}

impl Seen {
    /// The version that the watch has told of an object, or that it isn't there; nothing before the first list.
    fn version(&self, place: &Place) -> Option<Option<&str>> {
        Some(self.versions.as_ref()?.get(place).map(String::as_str))
    }
}

/// The children of one cluster about which nothing was to be done.
struct Judged {
    /// When all were read last.
    at: Instant,
    settled: HashMap<(Kind, String), Settled>,
    /// Children that were there although no watch knew them.
    hidden: BTreeSet<(Kind, String)>,
}

impl Default for Judged {
    fn default() -> Self {
        Self { at: Instant::now(), settled: HashMap::new(), hidden: BTreeSet::new() }
    }
}

/// A child about which nothing was to be done.
struct Settled {
    version: String,
    /// Digest of what was wanted.
    wanted: String,
    /// Of a workload, the part that the status is made from; as text, which is a tenth of the value.
    workload: Option<String>,
}

/// What a pass looks at.
#[derive(Debug, Default, PartialEq)]
pub struct Look {
    /// What is to be read, and judged.
    pub at: Desired,
    /// Those of them that no watch knows: they needn't be read.
    pub missing: BTreeSet<(Kind, String)>,
    /// The workloads that needn't be read, as they stand: numbers and status.
    pub workloads: Live,
    /// Whether nothing is left out.
    pub whole: bool,
}

/// What is known of an object without reading it.
#[derive(Debug, PartialEq, Eq)]
pub enum Recalled {
    /// It has this text.
    Text(String),
    /// No watch knows it.
    Missing,
    /// It has to be read.
    Unknown,
}

/// Whether a version that a watch tells is no newer than another one. The watch may not have heard of that yet.
fn is_within(told: &str, known: &str) -> bool {
    match (told.parse::<u64>(), known.parse::<u64>()) {
        (Ok(told), Ok(known)) => told <= known,
        _ => told == known,
    }
}

impl Known {
    /// Takes in what the watch of a kind tells.
    pub fn hear<K: ResourceExt>(&self, kind: Kind, event: &Event<K>) {
        let place = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(kind).or_default();
        match event {
            Event::Init => seen.incoming.clear(),
            Event::InitApply(object) => {
                seen.incoming.insert(place(object), object.resource_version().unwrap_or_default());
            }
            Event::InitDone => {
                let versions = std::mem::take(&mut seen.incoming);
                seen.texts.retain(|place, _| versions.contains_key(place));
                seen.versions = Some(versions);
            }
            Event::Apply(object) => {
                if let Some(versions) = &mut seen.versions {
                    versions.insert(place(object), object.resource_version().unwrap_or_default());
                }
            }
            Event::Delete(object) => {
                let place = place(object);
                seen.texts.remove(&place);
                if let Some(versions) = &mut seen.versions {
                    versions.remove(&place);
                }
            }
        }
    }

    /// Remembers a text that was read of an object at a version.
    pub fn remember(&self, kind: Kind, namespace: &str, name: &str, version: String, text: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (namespace.to_owned(), name.to_owned());
        seen.entry(kind).or_default().texts.insert(place, (Instant::now(), version, text));
    }

    /// What is known of an object of which a text may have been read.
    pub fn recall(&self, kind: Kind, namespace: &str, name: &str) -> Recalled {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (namespace.to_owned(), name.to_owned());
        let Some(seen) = seen.get(&kind) else { return Recalled::Unknown };
        match (seen.version(&place), seen.texts.get(&place)) {
            (Some(Some(told)), Some((at, version, text))) if at.elapsed() < TRUST_FOR && is_within(told, version) => {
                Recalled::Text(text.clone())
            }
            (Some(None), None) => Recalled::Missing,
            _ => Recalled::Unknown,
        }
    }

    /// Leaves out of what is wanted of a cluster, by its uid, what needs no look: children that stand as they were when
    /// nothing was to be done about them, and unwanted ones that aren't there.
    pub fn leave_out(&self, uid: &str, namespace: &str, mut desired: Desired) -> Look {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = judged.get(uid);
        if judged.is_some_and(|judged| judged.at.elapsed() >= TRUST_FOR) {
            return Look { at: desired, whole: true, ..Look::default() };
        }
        let version = |kind: Kind, name: &str| seen.get(&kind)?.version(&(namespace.to_owned(), name.to_owned()));
        let is_hidden = |key: &(Kind, String)| judged.is_some_and(|judged| judged.hidden.contains(key));
        let mut look = Look::default();
        let count = desired.present.len();
        desired.present.retain(|child| {
            let key = (child.kind, child.name.clone());
            let settled = judged.and_then(|judged| judged.settled.get(&key));
            match (version(child.kind, &child.name), settled) {
                (Some(None), None) if !is_hidden(&key) && !keeps_replicas(child) => {
                    look.missing.insert(key);
                }
                (Some(Some(told)), Some(settled))
                    if is_within(told, &settled.version) && applied(&child.object) == settled.wanted.as_str() =>
                {
                    let workload = settled.workload.as_ref().and_then(|text| serde_json::from_str(text).ok());
                    look.workloads.extend(workload.map(|workload| (key, workload)));
                    return false;
                }
                _ => {}
            }
            true
        });
        look.whole = desired.present.len() == count;
        desired.absent.retain(|(kind, name)| version(*kind, name) != Some(None));
        look.at = desired;
        look
    }

    /// Notes that a child was there although no watch knew it: somebody else's. It is looked for from now on.
    pub fn found_hidden(&self, uid: &str, child: (Kind, String)) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.entry(uid.to_owned()).or_default().hidden.insert(child);
    }

    /// Notes about which children of those that were looked at nothing is to be done, as they stand now.
    pub fn judge(&self, uid: &str, look: &Look, live: &Live, undone: &[(Kind, String)]) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.retain(|_, judged| judged.at.elapsed() < FORGET_AFTER);
        let entry = judged.entry(uid.to_owned()).or_default();
        if look.whole {
            entry.at = Instant::now();
        }
        for child in &look.at.present {
            let key = (child.kind, child.name.clone());
            let found = live.get(&key);
            let version = found.and_then(|found| found["metadata"]["resourceVersion"].as_str());
            match (found, version, applied(&child.object).as_str()) {
                (Some(found), Some(version), Some(wanted)) if !undone.contains(&key) => {
                    let workload = WORKLOADS.contains(&child.kind).then(|| numbers(found).to_string());
                    let settled = Settled { version: version.to_owned(), wanted: wanted.to_owned(), workload };
                    entry.settled.insert(key, settled);
                }
                _ => {
                    entry.settled.remove(&key);
                }
            }
        }
    }
}

/// The part of a workload that is of interest while nothing is to be done about it.
fn numbers(workload: &Value) -> Value {
    let status = |field: &str| workload["status"][field].clone();
    let annotations = template_digest(workload).map(|digest| json!({TEMPLATE_ANNOTATION: digest}));
    json!({
        "metadata": {"generation": workload["metadata"]["generation"]},
        "spec": {
            "replicas": workload["spec"]["replicas"],
            "template": {"metadata": {"annotations": annotations}},
        },
        "status": {
            "observedGeneration": status("observedGeneration"), "replicas": status("replicas"),
            "readyReplicas": status("readyReplicas"), "updatedReplicas": status("updatedReplicas"),
        },
    })
}

#[cfg(test)]
mod tests {
    use kube::core::PartialObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::learning_cluster::render::{APPLIED_ANNOTATION, Child};

    type Object = PartialObjectMeta<k8s_openapi::api::core::v1::Service>;

    fn object(name: &str, version: &str) -> Object {
        let metadata = json!({"name": name, "namespace": "ns", "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn child(kind: Kind, name: &str, digest: &str) -> Child {
        let annotations = json!({APPLIED_ANNOTATION: digest});
        Child { kind, name: name.to_owned(), object: json!({"metadata": {"annotations": annotations}}) }
    }

    fn live(children: &[Child], version: &str) -> Live {
        let stand = |child: &Child| {
            let mut object = child.object.clone();
            object["metadata"]["resourceVersion"] = json!(version);
            ((child.kind, child.name.clone()), object)
        };
        children.iter().map(stand).collect()
    }

    fn hear_list(known: &Known, kind: Kind, objects: &[Object]) {
        known.hear::<Object>(kind, &Event::Init);
        for object in objects {
            known.hear(kind, &Event::InitApply(object.clone()));
        }
        known.hear::<Object>(kind, &Event::InitDone);
    }

    fn look(known: &Known, all: &Desired) -> (Vec<Kind>, usize) {
        let look = known.leave_out("u", "ns", all.clone());
        (look.at.present.iter().map(|child| child.kind).collect(), look.at.absent.len())
    }

    #[test]
    fn what_stands_as_it_was_judged_is_left_out_and_anything_else_is_looked_at() {
        let known = Known::default();
        let service = child(Kind::Service, "a", "d1");
        let all = Desired { present: vec![service.clone()], absent: vec![(Kind::CronJob, "a".to_owned())] };
        let judge = |version: &str, undone: &[(Kind, String)]| {
            let look = Look { at: all.clone(), whole: true, ..Look::default() };
            known.judge("u", &look, &live(&all.present, version), undone);
        };
        let whole = vec![Kind::Service];
        assert_eq!(look(&known, &all), (whole.clone(), 1), "nothing was judged");
        hear_list(&known, Kind::Service, &[object("a", "7")]);
        hear_list(&known, Kind::CronJob, &[]);
        judge("7", &[]);
        assert_eq!(look(&known, &all), (vec![], 0));
        assert_eq!(known.leave_out("other", "ns", all.clone()).at.present.len(), 1);
        let mut changed = all.clone();
        changed.present[0] = child(Kind::Service, "a", "d2");
        assert_eq!(look(&known, &changed).0, whole, "something else is wanted");

        known.hear(Kind::Service, &Event::Apply(object("a", "8")));
        assert_eq!(look(&known, &all).0, whole, "somebody wrote it");
        judge("8", &[(Kind::Service, "a".to_owned())]);
        assert_eq!(look(&known, &all).0, whole, "something is still to be done about it");
        judge("9", &[]);
        assert_eq!(look(&known, &all).0, vec![], "the watch hasn't told yet what was judged");
        known.hear(Kind::Service, &Event::Apply(object("a", "10")));
        assert_eq!(look(&known, &all).0, whole);
        known.hear(Kind::Service, &Event::Delete(object("a", "11")));
        let gone = known.leave_out("u", "ns", all.clone());
        assert_eq!((gone.at.present.len(), gone.missing.len()), (1, 0), "it was there, so it is looked for");
        known.hear(Kind::CronJob, &Event::Apply(object("a", "12")));
        assert_eq!(look(&known, &all).1, 1, "what is unwanted is there");
    }

    #[test]
    fn what_no_watch_knows_is_not_looked_for() {
        let known = Known::default();
        let mut autoscaled = child(Kind::Deployment, "b", "d1");
        autoscaled.object["spec"] = json!({"template": {}});
        let claim = child(Kind::PersistentVolumeClaim, "a", "d1");
        let all = Desired { present: vec![child(Kind::Service, "a", "d1"), autoscaled, claim], absent: vec![] };
        assert!(known.leave_out("u", "ns", all.clone()).missing.is_empty(), "no watch has told anything");
        hear_list(&known, Kind::Service, &[]);
        hear_list(&known, Kind::Deployment, &[]);
        let look = known.leave_out("u", "ns", all.clone());
        assert_eq!(look.missing, BTreeSet::from([(Kind::Service, "a".to_owned())]), "claims aren't watched");
        assert_eq!(look.at, all);
        known.found_hidden("u", (Kind::Service, "a".to_owned()));
        assert!(known.leave_out("u", "ns", all).missing.is_empty());
    }

    #[test]
    fn a_workload_that_is_left_out_stands_with_its_numbers() {
        let known = Known::default();
        let mut workload = child(Kind::Deployment, "a", "d1");
        workload.object["spec"] = json!({"replicas": 2, "template": {"spec": {}}});
        workload.object["status"] = json!({"readyReplicas": 2, "conditions": [{"type": "Available"}]});
        let all = Desired { present: vec![workload], absent: vec![] };
        hear_list(&known, Kind::Deployment, &[object("a", "7")]);
        let look = Look { at: all.clone(), whole: true, ..Look::default() };
        known.judge("u", &look, &live(&all.present, "7"), &[]);
        let left = known.leave_out("u", "ns", all);
        let stands = &left.workloads[&(Kind::Deployment, "a".to_owned())];
        assert_eq!((&stands["spec"]["replicas"], &stands["status"]["readyReplicas"]), (&json!(2), &json!(2)));
        assert!(left.at.present.is_empty() && stands["status"]["conditions"].is_null());
    }

    #[test]
    fn a_text_is_recalled_as_long_as_its_object_stands() {
        let known = Known::default();
        let recall = || known.recall(Kind::Secret, "ns", "a");
        assert_eq!(recall(), Recalled::Unknown, "no watch has told anything");
        hear_list(&known, Kind::Secret, &[]);
        assert_eq!(recall(), Recalled::Missing);
        known.remember(Kind::Secret, "ns", "a", "7".to_owned(), "text".to_owned());
        assert_eq!(recall(), Recalled::Unknown, "it was read, and no watch knows it");
        known.hear(Kind::Secret, &Event::Apply(object("a", "7")));
        assert_eq!(recall(), Recalled::Text("text".to_owned()));
        known.hear(Kind::Secret, &Event::Apply(object("a", "8")));
        assert_eq!(recall(), Recalled::Unknown, "somebody wrote it");
        known.hear(Kind::Secret, &Event::Delete(object("a", "9")));
        assert_eq!(recall(), Recalled::Missing);
    }

    #[test]
    fn a_list_that_is_being_read_counts_when_it_is_complete() {
        let known = Known::default();
        let all =
            Desired { present: vec![child(Kind::Service, "a", "d1")], absent: vec![(Kind::CronJob, "a".to_owned())] };
        let judged = Look { at: all.clone(), whole: true, ..Look::default() };
        known.judge("u", &judged, &live(&all.present, "7"), &[]);
        let count = || look(&known, &all).0.len();
        assert_eq!(count(), 1, "no watch has told anything");
        hear_list(&known, Kind::Service, &[object("a", "7")]);
        assert_eq!(look(&known, &all), (vec![], 1));
        known.hear::<Object>(Kind::Service, &Event::Init);
        assert_eq!(count(), 0, "the former list counts until the next is complete");
        known.hear::<Object>(Kind::Service, &Event::InitDone);
        assert_eq!(count(), 1, "it isn't in the newest list");
    }
}
