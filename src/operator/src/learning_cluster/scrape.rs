//! Asks the coordinators, away from the reconciler: a pass never waits for a pod.
//!
//! A cluster is reconciled when what its status needs has changed, or when its queue asks for more workers. A coordinator
//! that doesn't answer is unknown, not empty, and its last answer stands for [`STALE_AFTER`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use hebb_api::growth::Growth;
use hebb_api::scaling::{Load, Sample};
use hebb_api::{ACCURACY_LABELS_MIN, LearningCluster};
use kube::runtime::reflector::ObjectRef;
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::debug;

use super::uid_of;

/// How often every coordinator is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_millis(900);
/// How long an action is waited for.
const POST_DEADLINE: Duration = Duration::from_secs(10);
/// Three questions in a row without an answer.
const STALE_AFTER: Duration = Duration::from_secs(4);
/// Coordinators that are asked at once.
const CONCURRENCY: usize = 16;
/// Bytes of an answer: 500 workers with 16,000 partitions take half of them. The image behind it is the tenant's.
const ANSWER_MAX: usize = 4 << 20;
/// Workers and indicators that are taken from an answer.
const WORKERS_MAX: usize = 10_000;
const INDICATORS_MAX: usize = 100;
/// Answers of this span are kept as one smallest and one greatest number.
const SPAN: Duration = Duration::from_secs(5);
/// Spans that are kept where the queue decides how many workers there are: an hour, the longest window of the autoscaler.
const SPANS: usize = 720;
/// Spans that are kept elsewhere, for the status: a minute.
const SPANS_SHOWN: usize = 12;
/// Spans over which rates are taken: a minute.
const RATE_SPANS: usize = 12;
/// A worker that nobody has heard of for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What the operator takes from a coordinator's answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Scraped {
    pub leader: Option<String>,
    pub unowned: Option<u64>,
    #[serde(default)]
    pub lag: u64,
    #[serde(default)]
    workers: Vec<Worker>,
    #[serde(default)]
    domains: Vec<Domain>,
    /// In seconds, of the slowest gateway and of the slowest worker.
    pub answer_p99_seconds: Option<f64>,
    pub apply_p95_seconds: Option<f64>,
    /// Of the largest process, and of the fullest as a share of its limit.
    pub memory_bytes: Option<u64>,
    pub memory_ratio: Option<f64>,
    /// Indicators of meta-learning, by name.
    #[serde(default)]
    pub meta: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Worker {
    id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Domain {
    #[serde(default)]
    name: String,
    #[serde(default)]
    partitions: Vec<Partition>,
    #[serde(default)]
    labels: u64,
    /// Missing where an older coordinator answers.
    learned: Option<u64>,
    recent_accuracy: Option<f64>,
    knn_failure_rate: Option<f64>,
    kl_divergence: Option<f64>,
    rejection_rate: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Partition {
    #[serde(default)]
    index: u32,
    learned: Option<u64>,
    owner: Option<String>,
    #[serde(default)]
    state_bytes: u64,
    #[serde(default)]
    lag: u64,
}

impl Scraped {
    /// Bytes of learned state by worker, also of those that own nothing.
    pub fn state_bytes(&self) -> BTreeMap<String, u64> {
        let mut states: BTreeMap<String, u64> = self.workers.iter().map(|worker| (worker.id.clone(), 0)).collect();
        for partition in self.domains.iter().flat_map(|domain| &domain.partitions) {
            if let Some(bytes) = partition.owner.as_ref().and_then(|owner| states.get_mut(owner)) {
                *bytes = bytes.saturating_add(partition.state_bytes.max(1));
            }
        }
        states
    }

    /// Entries that wait in the longest queue of a partition.
    pub fn longest_queue(&self) -> Option<u64> {
        self.domains.iter().flat_map(|domain| &domain.partitions).map(|partition| partition.lag).max()
    }

    /// Of the domain in which it is greatest.
    pub fn knn_failure_rate(&self) -> Option<f64> {
        self.domains.iter().filter_map(|domain| domain.knn_failure_rate).max_by(f64::total_cmp)
    }

    /// Of the domain in which it is greatest.
    pub fn kl_divergence(&self) -> Option<f64> {
        self.domains.iter().filter_map(|domain| domain.kl_divergence).max_by(f64::total_cmp)
    }

    /// Of the domain in which it is greatest.
    pub fn rejection_rate(&self) -> Option<f64> {
        self.domains.iter().filter_map(|domain| domain.rejection_rate).max_by(f64::total_cmp)
    }

    /// The recent accuracy of the worst domain, of those that have seen labels enough.
    pub fn accuracy(&self) -> Option<f64> {
        let told = self.domains.iter().filter(|domain| domain.labels >= ACCURACY_LABELS_MIN);
        told.filter_map(|domain| domain.recent_accuracy).min_by(f64::total_cmp)
    }

    /// How often the model of each partition has learned, where that is known; of an older coordinator's, each domain's labels.
    fn learned(&self) -> impl Iterator<Item = ((String, u32), u64)> {
        self.domains.iter().flat_map(|domain| {
            let older = domain.learned.is_none().then_some((0, domain.labels));
            let known = domain.partitions.iter().filter_map(|partition| Some((partition.index, partition.learned?)));
            known.chain(older).map(|(index, learned)| ((domain.name.clone(), index), learned))
        })
    }

    fn partitions(&self) -> u64 {
        self.domains.iter().map(|domain| domain.partitions.len() as u64).sum()
    }
}

/// What calls for a pass when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reported {
    leader: Option<String>,
    unowned: Option<u64>,
    workers: BTreeSet<String>,
}

type Key = ObjectRef<LearningCluster>;

/// Whom to ask, and when its queue calls for a pass.
#[derive(Clone)]
pub struct Target {
    pub url: String,
    pub token: String,
    /// More waiting entries than these ask for more workers.
    pub wake_above: Option<u64>,
    /// Whether the number of workers follows the queue.
    pub scaled: bool,
}

struct Known {
    target: Target,
    since: Instant,
    answer: Option<(Scraped, Instant)>,
    reported: Option<Reported>,
    /// When each span began, with the fewest and most waiting entries in it; the newest last.
    spans: VecDeque<(Instant, u64, u64)>,
    growth: Growth,
    /// How often the models had learned, since they are followed, at the beginning of each of the last spans.
    learned: VecDeque<(Instant, u64)>,
    /// Since when there are answers without a gap.
    unbroken_since: Option<Instant>,
    heard: BTreeMap<String, Instant>,
}

/// The coordinators that are asked, and what they said, by the cluster's uid.
#[derive(Clone, Default)]
pub struct Coordinators {
    known: Arc<Mutex<BTreeMap<String, (Key, Known)>>>,
    /// For what isn't a question: made when it is first needed.
    client: Arc<OnceLock<reqwest::Client>>,
}

impl Coordinators {
    /// Asks this coordinator from now on.
    pub fn follow(&self, key: Key, target: Target) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(&uid_of(&key)) {
            Some((_, known)) => known.target = target,
            None => {
                let fresh = Known {
                    target,
                    since: Instant::now(),
                    answer: None,
                    reported: None,
                    spans: VecDeque::new(),
                    growth: Growth::default(),
                    learned: VecDeque::new(),
                    unbroken_since: None,
                    heard: BTreeMap::new(),
                };
                known.insert(uid_of(&key), (key, fresh));
            }
        }
    }

    /// Asks it no more.
    pub fn forget(&self, key: &Key) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid_of(key));
    }

    /// Asks those no more whose uid isn't kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| keep(uid));
    }

    /// What it said, unless that is too long ago.
    pub fn answer(&self, key: &Key) -> Option<Scraped> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid_of(key)).and_then(|(_, known)| fresh(known).cloned())
    }

    /// Whether it is too early to know: this process has begun to ask so lately that no answer says nothing yet.
    pub fn is_early(&self, key: &Key) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid_of(key)).is_none_or(|(_, known)| known.answer.is_none() && known.since.elapsed() < STALE_AFTER)
    }

    /// The load of the cluster; nothing before it is followed.
    pub fn load(&self, key: &Key) -> Option<Load> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, known) = known.get(&uid_of(key))?;
        let last = known.answer.as_ref().map_or(known.since, |(_, at)| *at);
        let sample = |(begun, min, max): &(Instant, u64, u64)| Sample {
            age: begun.elapsed().saturating_sub(SPAN),
            min: *min,
            max: *max,
        };
        Some(Load {
            samples: known.spans.iter().rev().map(sample).collect(),
            known_for: known.unbroken_since.map_or(Duration::ZERO, |since| since.elapsed()),
            silent_for: if fresh(known).is_some() { Duration::ZERO } else { last.elapsed() },
            partitions: known.answer.as_ref().map_or(0, |(scraped, _)| scraped.partitions()),
        })
    }

    /// How often the models learn in a minute, over the last minute; nothing before that is known.
    pub fn update_rate(&self, key: &Key) -> Option<f64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, known) = known.get(&uid_of(key))?;
        fresh(known)?;
        let ((begun, before), (ended, after)) = (known.learned.front()?, known.learned.back()?);
        let seconds = ended.duration_since(*begun).as_secs_f64();
        (known.learned.len() == RATE_SPANS).then(|| after.saturating_sub(*before) as f64 * 60.0 / seconds)
    }

    /// How long ago the coordinators heard of each worker; nothing while none answers.
    pub fn heard(&self, key: &Key) -> Option<BTreeMap<String, Duration>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, known) = known.get(&uid_of(key))?;
        fresh(known)?;
        Some(known.heard.iter().map(|(worker, at)| (worker.clone(), at.elapsed())).collect())
    }

    /// Calls a path of the coordinators' API.
    pub async fn post(&self, key: &Key, path: &str) -> Result<reqwest::Response, String> {
        self.call(key, Method::POST, path, None).await
    }

    /// Puts a document where the coordinators' API takes it.
    pub async fn put(&self, key: &Key, path: &str, document: &serde_json::Value) -> Result<reqwest::Response, String> {
        self.call(key, Method::PUT, path, Some(document)).await
    }

    async fn call(
        &self,
        key: &Key,
        method: Method,
        path: &str,
        document: Option<&serde_json::Value>,
    ) -> Result<reqwest::Response, String> {
        let target = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&uid_of(key)).map(|(_, known)| known.target.clone())
        };
        let target = target.ok_or("the coordinators aren't known yet")?;
        let url =
            target.url.parse::<reqwest::Url>().and_then(|url| url.join(path)).map_err(|error| error.to_string())?;
        let client = match self.client.get() {
            Some(client) => client.clone(),
            None => {
                // Who answers must not choose whom the operator talks to.
                let direct = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
                let made = direct.build().map_err(|error| error.to_string())?;
                self.client.get_or_init(|| made).clone()
            }
        };
        let mut request = client.request(method, url).bearer_auth(&target.token).timeout(POST_DEADLINE);
        if let Some(document) = document {
            request = request.json(document);
        }
        request.send().await.map_err(|error| error.to_string())
    }

    /// Asks all of them again and again; sends the clusters that should be looked at.
    pub async fn ask(&self, client: reqwest::Client, changed: mpsc::Sender<Key>) {
        loop {
            let targets: Vec<(Key, Target)> = {
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn record(&self, key: &Key, answer: Result<Scraped, AskError>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, known)) = known.get_mut(&uid_of(key)) else { return false };
        match answer {
            Ok(scraped) => known.take(scraped, Instant::now()),
            Err(error) => debug!(cluster = %key, %error, "the coordinator doesn't answer"),
        }
        let current = fresh(known).map(|scraped| Reported {
            leader: scraped.leader.clone(),
            unowned: scraped.unowned,
            workers: scraped.workers.iter().map(|worker| worker.id.clone()).collect(),
        });
        let changed = current != known.reported;
        known.reported = current;
        let lag = fresh(known).map(|scraped| scraped.lag);
        changed || matches!((lag, known.target.wake_above), (Some(lag), Some(above)) if lag > above)
    }
}

impl Known {
    fn take(&mut self, scraped: Scraped, now: Instant) {
        if fresh(self).is_none() {
            // Numbers from before a gap say nothing about what happened in it.
            self.spans.clear();
            self.learned.clear();
            self.unbroken_since = Some(now);
        }
        match self.spans.back_mut() {
            Some((begun, min, max)) if now.duration_since(*begun) < SPAN => {
                *min = scraped.lag.min(*min);
                *max = scraped.lag.max(*max);
            }
            _ => {
                self.spans.push_back((now, scraped.lag, scraped.lag));
                self.learned.push_back((now, self.growth.look(scraped.learned())));
            }
        }
        if self.learned.len() > RATE_SPANS {
            self.learned.pop_front();
        }
        let kept = if self.target.scaled { SPANS } else { SPANS_SHOWN };
        let excess = self.spans.len().saturating_sub(kept);
        self.spans.drain(..excess);
        self.heard.retain(|_, at| now.duration_since(*at) < FORGET_AFTER);
        for worker in &scraped.workers {
            if self.heard.len() < WORKERS_MAX || self.heard.contains_key(&worker.id) {
                self.heard.insert(worker.id.clone(), now);
            }
        }
        self.answer = Some((scraped, now));
    }
}

fn fresh(known: &Known) -> Option<&Scraped> {
    known.answer.as_ref().filter(|(_, at)| at.elapsed() < STALE_AFTER).map(|(scraped, _)| scraped)
}

/// Why a coordinator's answer is none.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("the answer can't be read")]
    Unreadable(#[from] serde_json::Error),
}

async fn ask(client: &reqwest::Client, target: &Target) -> Result<Scraped, AskError> {
    let request = client.get(&target.url).bearer_auth(&target.token).timeout(DEADLINE);
    let mut answer = request.send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await? {
        if text.len() + part.len() > ANSWER_MAX {
            return Err(AskError::TooLarge);
        }
        text.extend_from_slice(&part);
    }
    let mut scraped: Scraped = serde_json::from_slice(&text)?;
    scraped.workers.truncate(WORKERS_MAX);
    while scraped.meta.len() > INDICATORS_MAX {
        scraped.meta.pop_last();
    }
    Ok(scraped)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with a head and then so many bytes.
    async fn coordinator(head: &'static str, bytes: usize) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                // Who asked may hang up before everything was said.
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes()).await;
                for _ in 0..bytes / 1_024 {
                    let _ = stream.write_all(&[b' '; 1_024]).await;
                }
                let _ = stream.write_all(b"{}").await;
            }
        });
        Target { url, token: String::new(), wake_above: None, scaled: false }
    }

    fn scraped(domains: serde_json::Value) -> Scraped {
        serde_json::from_value(serde_json::json!({ "domains": domains })).unwrap()
    }

    #[test]
    fn accuracy_is_that_of_the_worst_domain_that_has_seen_labels_enough() {
        let both = |labels: u64| {
            let domains = serde_json::json!([
                {"labels": 5_000, "recent_accuracy": 0.9}, {"labels": labels, "recent_accuracy": 0.0},
            ]);
            scraped(domains).accuracy()
        };
        assert_eq!((both(99), both(100)), (Some(0.9), Some(0.0)));
    }

    #[test]
    fn what_is_learned_counts_and_not_what_was_labelled() {
        let rate = |domain: fn(u64) -> serde_json::Value| {
            let coordinators = Coordinators::default();
            let key = Key::new("a");
            let target = Target { url: String::new(), token: String::new(), wake_above: None, scaled: false };
            coordinators.follow(key.clone(), target);
            // What is still to come is fresh.
            let mut at = Instant::now();
            for span in 0..RATE_SPANS as u64 {
                let mut known = coordinators.known.lock().unwrap();
                let (_, known) = known.get_mut(&uid_of(&key)).unwrap();
                known.take(scraped(serde_json::json!([domain(span)])), at);
                at += SPAN;
            }
            coordinators.update_rate(&key)
        };
        let learns = rate(|span| {
            serde_json::json!({"labels": 0, "learned": 9, "partitions": [
                {"index": 0, "learned": 5 + span * 5}, {"index": 1, "learned": (span > 5).then_some(7_000)},
            ]})
        });
        assert_eq!(learns, Some(60.0), "a domain without labels, of which a partition wasn't known at first");
        let gated = rate(|span| {
            serde_json::json!({"labels": span * 5, "learned": 7, "partitions": [
                {"index": 0, "learned": 7},
            ]})
        });
        assert_eq!(gated, Some(0.0), "labels that the gate lets nothing through of");
        let older = rate(|span| serde_json::json!({"labels": span * 5}));
        assert_eq!(older, Some(60.0), "a coordinator that says labels only");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_none() {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let fits = coordinator("200 OK", ANSWER_MAX / 2).await;
        assert_eq!(ask(&client, &fits).await.unwrap(), Scraped::default());
        let endless = coordinator("200 OK", 4 * ANSWER_MAX).await;
        assert!(matches!(ask(&client, &endless).await, Err(AskError::TooLarge)));
    }

    #[tokio::test]
    async fn nobody_is_followed_elsewhere() {
        let coordinators = Coordinators::default();
        let key = Key::new("a");
        let target = coordinator("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/", 0).await;
        coordinators.follow(key.clone(), target);
        let answer = coordinators.post(&key, "/api/v1/boost").await.unwrap();
        assert_eq!(answer.status(), reqwest::StatusCode::TEMPORARY_REDIRECT);
    }
}
