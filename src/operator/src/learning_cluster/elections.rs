//! Asks the Sentinels of the Redis that Hebb runs, or the servers of its Redis Cluster, who is primary, away from the
//! reconciler. They decide; what they say is only shown, and says which pods are renewed last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use hebb_api::LearningCluster;
use hebb_redis::Group;
use hebb_redis::sharded::primaries;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use super::uid_of;

/// How often every group is asked.
const EVERY: Duration = Duration::from_secs(2);
/// Groups that are asked at once.
const CONCURRENCY: usize = 16;

type Key = ObjectRef<LearningCluster>;

/// The members of a Redis that Hebb runs.
#[derive(Clone)]
pub enum Members {
    /// Each has a Sentinel.
    Sentinels(Group),
    /// They are a Redis Cluster.
    Cluster(Group),
}

/// Who takes writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Primaries {
    /// By their numbers: with Sentinels the one that was elected last.
    pub members: BTreeSet<usize>,
    /// Slots of a Redis Cluster that nobody holds.
    pub uncovered: u32,
}

impl Members {
    /// Who takes writes; nothing while nobody answers.
    async fn primaries(&self) -> Option<Primaries> {
        match self {
            Members::Sentinels(group) => {
                let newest = group.newest().await?;
                Some(Primaries { members: BTreeSet::from([newest.member]), uncovered: 0 })
            }
            Members::Cluster(group) => {
                let (members, uncovered) = primaries(&group.hosts, &group.hear().await)?;
                Some(Primaries { members, uncovered })
            }
        }
    }
}

struct Known {
    members: Members,
    primaries: Option<Primaries>,
}

/// The groups that are asked, and what they said, by the cluster's uid.
#[derive(Clone, Default)]
pub struct Elections(Arc<Mutex<BTreeMap<String, (Key, Known)>>>);

impl Elections {
    /// Asks these from now on.
    pub fn follow(&self, key: Key, members: Members) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(&uid_of(&key)) {
            Some((_, known)) => known.members = members,
            None => {
                known.insert(uid_of(&key), (key, Known { members, primaries: None }));
            }
        }
    }

    /// Asks it no more.
    pub fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid_of(key));
    }

    /// Asks those no more whose uid isn't kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| keep(uid));
    }

    /// Who takes writes by the newest elections; nothing while nobody answers.
    pub fn primaries(&self, key: &Key) -> Option<Primaries> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid_of(key)).and_then(|(_, known)| known.primaries.clone())
    }

    /// Asks all of them again and again; sends the clusters of which something has changed.
    pub async fn ask(&self, changed: mpsc::Sender<Key>) {
        loop {
            let all: Vec<(Key, Members)> = {
                let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.values().map(|(key, known)| (key.clone(), known.members.clone())).collect()
            };
            let asked =
                futures::stream::iter(all).map(|(key, members)| async move { (key, members.primaries().await) });
            let answers: Vec<_> = asked.buffer_unordered(CONCURRENCY).collect().await;
            for (key, primaries) in answers {
                if self.record(&key, primaries) && changed.send(key).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether the cluster should be looked at again.
    fn record(&self, key: &Key, primaries: Option<Primaries>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, known)) = known.get_mut(&uid_of(key)) else { return false };
        let changed = known.primaries != primaries;
        known.primaries = primaries;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_primary_or_a_lost_slot_calls_for_a_pass() {
        let elections = Elections::default();
        let key = Key::new("demo").within("ns");
        let of =
            |members: &[usize], uncovered| Some(Primaries { members: members.iter().copied().collect(), uncovered });
        assert!(!elections.record(&key, of(&[0], 0)), "nobody follows it");
        elections.follow(key.clone(), Members::Cluster(Group::default()));
        assert!(elections.record(&key, of(&[0, 1], 0)));
        assert!(!elections.record(&key, of(&[1, 0], 0)), "the same ones were elected again");
        assert!(elections.record(&key, of(&[0], 5_461)));
        assert!(elections.record(&key, of(&[0, 3], 0)));
        assert_eq!(elections.primaries(&key), of(&[0, 3], 0));
        assert!(elections.record(&key, None));
        assert_eq!(elections.primaries(&key), None);
    }

    #[test]
    fn the_next_cluster_of_a_name_inherits_nothing() {
        let elections = Elections::default();
        let key = |uid: &str| {
            let mut key = Key::new("demo").within("ns");
            key.extra.uid = Some(uid.to_owned());
            key
        };
        elections.follow(key("a"), Members::Cluster(Group::default()));
        elections.record(&key("a"), Some(Primaries::default()));
        assert_eq!(elections.primaries(&key("b")), None);
        elections.follow(key("b"), Members::Cluster(Group::default()));
        elections.retain(|uid| uid == "b");
        assert_eq!(elections.primaries(&key("a")), None);
        assert!(elections.record(&key("b"), Some(Primaries::default())), "it is followed still");
    }
}
