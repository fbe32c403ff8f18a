//! Asks the coordinators, away from the reconciler: a pass never waits for a pod.
//!
//! A cluster is reconciled when what its status needs has changed. A coordinator that doesn't answer is unknown, not empty,
//! and its last answer stands for [`STALE_AFTER`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use hebb_api::LearningCluster;
use kube::runtime::reflector::ObjectRef;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::debug;

/// How often every coordinator is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_millis(900);
/// Three questions in a row without an answer.
const STALE_AFTER: Duration = Duration::from_secs(4);
/// Coordinators that are asked at once.
const CONCURRENCY: usize = 32;

/// What the status of a cluster takes from its coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Scraped {
    pub leader: Option<String>,
    pub unowned: Option<u64>,
}

type Key = ObjectRef<LearningCluster>;

#[derive(Clone)]
struct Target {
    url: String,
    token: String,
}

struct Known {
    target: Target,
    answer: Option<(Scraped, Instant)>,
    reported: Option<Scraped>,
}

/// The coordinators that are asked, and what they said.
#[derive(Clone, Default)]
pub struct Coordinators(Arc<Mutex<BTreeMap<String, (Key, Known)>>>);

fn id(key: &Key) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}

impl Coordinators {
    /// Asks this coordinator from now on.
    pub fn follow(&self, key: Key, url: String, token: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let target = Target { url, token };
        match known.get_mut(&id(&key)) {
            Some((_, known)) => known.target = target,
            None => {
                known.insert(id(&key), (key, Known { target, answer: None, reported: None }));
            }
        }
    }

    /// Asks it no more.
    pub fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id(key));
    }

    /// What it said, unless that is too long ago.
    pub fn answer(&self, key: &Key) -> Option<Scraped> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id(key)).and_then(|(_, known)| fresh(known))
    }

    /// Asks all of them again and again; sends the clusters whose answers changed.
    pub async fn ask(&self, client: reqwest::Client, changed: mpsc::Sender<Key>) {
        loop {
            let targets: Vec<(Key, Target)> = {
                let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.values().map(|(key, known)| (key.clone(), known.target.clone())).collect()
            };
            let asked = futures::stream::iter(targets).map(|(key, target)| {
                let client = client.clone();
                async move { (key, ask(&client, &target).await) }
            });
            let answers: Vec<_> = asked.buffer_unordered(CONCURRENCY).collect().await;
            for (key, answer) in answers {
                if self.record(&key, answer) && changed.send(key).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether the cluster should be looked at again.
    fn record(&self, key: &Key, answer: Result<Scraped, reqwest::Error>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, known)) = known.get_mut(&id(key)) else { return false };
        match answer {
            Ok(scraped) => known.answer = Some((scraped, Instant::now())),
            Err(error) => debug!(cluster = %key, %error, "the coordinator doesn't answer"),
        }
        let fresh = fresh(known);
        let changed = fresh != known.reported;
        known.reported = fresh;
        changed
    }
}

fn fresh(known: &Known) -> Option<Scraped> {
    known.answer.as_ref().filter(|(_, at)| at.elapsed() < STALE_AFTER).map(|(scraped, _)| scraped.clone())
}

async fn ask(client: &reqwest::Client, target: &Target) -> Result<Scraped, reqwest::Error> {
    let request = client.get(&target.url).bearer_auth(&target.token).timeout(DEADLINE);
    request.send().await?.error_for_status()?.json().await
}
