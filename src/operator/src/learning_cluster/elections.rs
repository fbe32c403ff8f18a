//! Asks the Sentinels of the Redis that Hebb runs who is primary, away from the reconciler. The Sentinels decide; what they
//! say is only shown, and says which pod is renewed last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use hebb_api::LearningCluster;
use hebb_redis::{Group, Newest};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

/// How often every group is asked.
const EVERY: Duration = Duration::from_secs(2);
/// Groups that are asked at once.
const CONCURRENCY: usize = 16;

/// A cluster is looked at every five minutes; one that wasn't for so long is gone.
const FORGET_AFTER: Duration = Duration::from_secs(900);

type Key = ObjectRef<LearningCluster>;

struct Known {
    group: Group,
    newest: Option<Newest>,
    followed_at: Instant,
}

/// The groups that are asked, and what they said.
#[derive(Clone, Default)]
pub struct Elections(Arc<Mutex<BTreeMap<String, (Key, Known)>>>);

fn id(key: &Key) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}

impl Elections {
    /// Asks this group from now on.
    pub fn follow(&self, key: Key, group: Group) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(&id(&key)) {
            Some((_, known)) => {
                known.group = group;
                known.followed_at = Instant::now();
            }
            None => {
                known.insert(id(&key), (key, Known { group, newest: None, followed_at: Instant::now() }));
            }
        }
    }

    /// Asks it no more.
    pub fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id(key));
    }

    /// The number of the member that is primary by the newest election; nothing while no Sentinel answers.
    pub fn primary(&self, key: &Key) -> Option<usize> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id(key)).and_then(|(_, known)| known.newest).map(|newest| newest.member)
    }

    /// Asks all of them again and again; sends the clusters whose primary is another one.
    pub async fn ask(&self, changed: mpsc::Sender<Key>) {
        loop {
            let groups: Vec<(Key, Group)> = {
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, (_, known)| known.followed_at.elapsed() < FORGET_AFTER);
                known.values().map(|(key, known)| (key.clone(), known.group.clone())).collect()
            };
            let asked = futures::stream::iter(groups).map(|(key, group)| async move { (key, group.newest().await) });
            let answers: Vec<_> = asked.buffer_unordered(CONCURRENCY).collect().await;
            for (key, newest) in answers {
                if self.record(&key, newest) && changed.send(key).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether the cluster should be looked at again.
    fn record(&self, key: &Key, newest: Option<Newest>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, known)) = known.get_mut(&id(key)) else { return false };
        let member = |newest: Option<Newest>| newest.map(|newest| newest.member);
        let changed = member(known.newest) != member(newest);
        known.newest = newest;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_primary_calls_for_a_pass() {
        let elections = Elections::default();
        let key = Key::new("demo").within("ns");
        let newest = |epoch, member| Some(Newest { epoch, member });
        assert!(!elections.record(&key, newest(0, 0)), "nobody follows it");
        elections.follow(key.clone(), Group { hosts: Vec::new(), password: String::new() });
        assert!(elections.record(&key, newest(0, 0)));
        assert!(!elections.record(&key, newest(2, 0)), "the same one was elected again");
        assert!(elections.record(&key, newest(3, 1)));
        assert_eq!(elections.primary(&key), Some(1));
        assert!(elections.record(&key, None));
        assert_eq!(elections.primary(&key), None);
    }
}
