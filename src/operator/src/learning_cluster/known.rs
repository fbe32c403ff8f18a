//! What the watches say of the children: which are there, and at which version. So a pass reads only what has changed since
//! an earlier one found nothing to do about it.
//!
//! A watch that lags makes a pass late, never wrong: what is decided is decided on objects that were read, a version that
//! is newer than the one that was judged is read, and whatever the watch hasn't told yet calls for a pass when it does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::plan::{Live, applied};
use super::render::{Child, Desired, Kind, WORKLOADS};

/// Everything is read again after so long, should a watch have missed something.
const TRUST_FOR: Duration = Duration::from_secs(300);

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
}

/// The children of one cluster about which nothing was to be done.
struct Judged {
    /// When all were read last.
    at: Instant,
    /// Version, and digest of what was wanted.
    settled: HashMap<(Kind, String), (String, String)>,
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
            Event::InitDone => seen.versions = Some(std::mem::take(&mut seen.incoming)),
            Event::Apply(object) => {
                if let Some(versions) = &mut seen.versions {
                    versions.insert(place(object), object.resource_version().unwrap_or_default());
                }
            }
            Event::Delete(object) => {
                if let Some(versions) = &mut seen.versions {
                    versions.remove(&place(object));
                }
            }
        }
    }

    /// Leaves out of what is wanted of a cluster, by its uid, what needs no look: children that stand as they were when
    /// nothing was to be done about them, and unwanted ones that aren't there. Workloads are always looked at, for their
    /// status. Also says whether every child is to be looked at.
    pub fn leave_out(&self, uid: &str, namespace: &str, mut desired: Desired) -> (Desired, bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = judged.get(uid).filter(|judged| judged.at.elapsed() < TRUST_FOR).map(|judged| &judged.settled);
        let mut version = |kind: Kind, name: &str| {
            let versions = seen.entry(kind).or_default().versions.as_ref()?;
            Some(versions.get(&(namespace.to_owned(), name.to_owned())).cloned())
        };
        let mut is_settled = |child: &Child| {
            let Some((judged, wanted)) = settled.and_then(|settled| settled.get(&(child.kind, child.name.clone())))
            else {
                return false;
            };
            applied(&child.object) == wanted.as_str()
                && version(child.kind, &child.name).flatten().as_ref() == Some(judged)
        };
        let count = desired.present.len();
        desired.present.retain(|child| !is_settled(child));
        let whole = desired.present.len() == count;
        desired.absent.retain(|(kind, name)| settled.is_none() || version(*kind, name) != Some(None));
        (desired, whole)
    }

    /// Notes about which children of those that were looked at nothing is to be done, as they stand now; `whole` says that
    /// all were.
    pub fn judge(&self, uid: &str, whole: bool, looked_at: &Desired, live: &Live, undone: &[(Kind, String)]) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        // What is no longer trusted is of no use, and its cluster may be gone.
        judged.retain(|_, judged| judged.at.elapsed() < TRUST_FOR);
        let entry =
            judged.entry(uid.to_owned()).or_insert_with(|| Judged { at: Instant::now(), settled: HashMap::new() });
        if whole {
            entry.at = Instant::now();
        }
        for child in &looked_at.present {
            let key = (child.kind, child.name.clone());
            let version = live.get(&key).and_then(|found| found["metadata"]["resourceVersion"].as_str());
            match (version, applied(&child.object).as_str()) {
                (Some(version), Some(digest)) if !WORKLOADS.contains(&child.kind) && !undone.contains(&key) => {
                    entry.settled.insert(key, (version.to_owned(), digest.to_owned()));
                }
                _ => {
                    entry.settled.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::PartialObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::learning_cluster::render::APPLIED_ANNOTATION;

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

    #[test]
    fn what_stands_as_it_was_judged_is_left_out_and_anything_else_is_looked_at() {
        let known = Known::default();
        let service = child(Kind::Service, "a", "d1");
        let all = Desired {
            present: vec![service.clone(), child(Kind::Deployment, "a", "d1")],
            absent: vec![(Kind::CronJob, "a".to_owned())],
        };
        let names = |uid: &str, all: &Desired| {
            let (left, _) = known.leave_out(uid, "ns", all.clone());
            (left.present.iter().map(|child| child.kind).collect::<Vec<_>>(), left.absent.len())
        };
        let whole = (vec![Kind::Service, Kind::Deployment], 1);
        assert_eq!(names("u", &all), whole, "nothing was judged");
        hear_list(&known, Kind::Service, &[object("a", "7")]);
        hear_list(&known, Kind::CronJob, &[]);
        known.judge("u", true, &all, &live(&all.present, "7"), &[]);
        assert_eq!(names("u", &all), (vec![Kind::Deployment], 0), "workloads are always looked at");
        assert_eq!(names("other", &all), whole);
        let mut changed = all.clone();
        changed.present[0] = child(Kind::Service, "a", "d2");
        assert_eq!(names("u", &changed).0, whole.0, "something else is wanted");

        known.hear(Kind::Service, &Event::Apply(object("a", "8")));
        assert_eq!(names("u", &all).0, whole.0, "somebody wrote it");
        known.judge("u", true, &all, &live(&all.present, "8"), &[(Kind::Service, "a".to_owned())]);
        assert_eq!(names("u", &all).0, whole.0, "something is still to be done about it");
        known.judge("u", true, &all, &live(&all.present, "8"), &[]);
        known.hear(Kind::Service, &Event::Delete(object("a", "9")));
        assert_eq!(names("u", &all).0, whole.0, "it is gone");
        known.hear(Kind::CronJob, &Event::Apply(object("a", "9")));
        assert_eq!(names("u", &all).1, 1, "what is unwanted is there");
    }

    #[test]
    fn a_list_that_is_being_read_counts_when_it_is_complete() {
        let known = Known::default();
        let all =
            Desired { present: vec![child(Kind::Service, "a", "d1")], absent: vec![(Kind::CronJob, "a".to_owned())] };
        known.judge("u", true, &all, &live(&all.present, "7"), &[]);
        let looked_at = || known.leave_out("u", "ns", all.clone()).0;
        assert_eq!(looked_at(), all, "no watch has told anything");
        hear_list(&known, Kind::Service, &[object("a", "7")]);
        assert_eq!((looked_at().present.len(), looked_at().absent.len()), (0, 1));
        known.hear::<Object>(Kind::Service, &Event::Init);
        assert_eq!(looked_at().present.len(), 0, "the former list counts until the next is complete");
        known.hear::<Object>(Kind::Service, &Event::InitDone);
        assert_eq!(looked_at().present.len(), 1, "it isn't in the newest list");
    }
}
