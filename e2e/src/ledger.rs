//! A client that sends events until each is acknowledged, and the ledger of what was.
//!
//! The oracle of exactly-once: the cluster's count and digest of applied events must equal those of the acknowledged ids.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt;
use hebb_engine::event_digest;
use serde_json::{Value, json};

use crate::Error;
use crate::data::Record;

/// How long one event is tried: longer than any recovery.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// Wait before a retry.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// One attempt: the gateway itself gives up a little earlier.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);

/// Answers that are this far apart are no outage.
const SILENCE_MIN: Duration = Duration::from_millis(200);

/// What became of one event.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// The event's place in the stream.
    pub place: usize,
    /// When the answer came.
    pub at: Instant,
    /// Of the attempt that was answered.
    pub latency: Duration,
    /// Attempts before that one.
    pub retries: u32,
    /// Whether the prediction was the label.
    pub right: bool,
}

/// Sends events to one domain.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    prefix: String,
}

impl Client {
    /// A client whose event ids begin with `prefix`.
    ///
    /// # Errors
    /// An HTTP client that can't be made.
    pub fn new(gateway: &str, domain: &str, prefix: &str) -> Result<Self, Error> {
        let http = reqwest::Client::builder().timeout(ATTEMPT_TIMEOUT).pool_max_idle_per_host(256).build()?;
        Ok(Self { http, url: format!("{gateway}/v1/domains/{domain}"), prefix: prefix.to_owned() })
    }

    /// The id of the event at a place.
    pub fn id(&self, place: usize) -> String {
        format!("{}{place}", self.prefix)
    }

    /// Sends one event until it is acknowledged.
    ///
    /// # Errors
    /// An answer that no retry can change, or no answer for [`GIVE_UP_AFTER`].
    pub async fn send(&self, place: usize, record: &Record) -> Result<Acknowledged, Error> {
        let body = json!({"id": self.id(place), "features": record.features, "label": record.label});
        let started = Instant::now();
        let mut retries = 0;
        loop {
            let attempt = Instant::now();
            let sent = self.http.post(format!("{}/infer-and-adapt", self.url)).json(&body).send().await;
            let said = match sent {
                Ok(response) if response.status().is_success() => {
                    // A body that breaks off is no acknowledgement.
                    match response.json::<Value>().await {
                        Ok(answer) => {
                            return Ok(Acknowledged {
                                place,
                                at: Instant::now(),
                                latency: attempt.elapsed(),
                                retries,
                                right: answer["prediction"].as_str() == Some(record.label.as_str()),
                            });
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Ok(response) if response.status().is_client_error() && response.status() != 429 => {
                    return Err(format!("{}: {}", response.status(), response.text().await?).into());
                }
                Ok(response) => response.status().to_string(),
                Err(error) => error.to_string(),
            };
            if started.elapsed() > GIVE_UP_AFTER {
                return Err(format!("event {place} was never acknowledged; last: {said}").into());
            }
            retries += 1;
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// What the domain says of itself.
    ///
    /// # Errors
    /// No good answer.
    pub async fn describe(&self) -> Result<Value, Error> {
        Ok(self.http.get(&self.url).send().await?.error_for_status()?.json().await?)
    }

    /// Sends all events in order, so many under way at once and at most `rate` a second; `seen` is told of each.
    ///
    /// # Errors
    /// The first event that can't be acknowledged.
    pub async fn replay(
        &self,
        records: &[Record],
        in_flight: usize,
        rate: Option<f64>,
        mut seen: impl FnMut(&Acknowledged),
    ) -> Result<Ledger, Error> {
        let started = Instant::now();
        let sends = futures::stream::iter(records.iter().enumerate()).map(|(place, record)| async move {
            if let Some(rate) = rate {
                let due = started + Duration::from_secs_f64(place as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            self.send(place, record).await
        });
        let mut sends = sends.buffered(in_flight);
        let mut ledger = Ledger::default();
        while let Some(acknowledged) = sends.next().await {
            let acknowledged = acknowledged?;
            ledger.digest = ledger.digest.wrapping_add(event_digest(&self.id(acknowledged.place)));
            seen(&acknowledged);
            ledger.events.push(acknowledged);
        }
        ledger.seconds = started.elapsed().as_secs_f64();
        Ok(ledger)
    }

    /// Sends all events in one request, a line each; how long it took until the last answer, once the domain says that exactly
    /// these were applied.
    ///
    /// # Errors
    /// An event that wasn't acknowledged, or wasn't applied once.
    pub async fn stream(&self, records: &[Record]) -> Result<Duration, Error> {
        let mut body = String::new();
        let mut digest = 0u64;
        for (place, record) in records.iter().enumerate() {
            let id = self.id(place);
            digest = digest.wrapping_add(event_digest(&id));
            body.push_str(&json!({"id": id, "features": record.features, "label": record.label}).to_string());
            body.push('\n');
        }
        // All of it may take longer than one event.
        let http = reqwest::Client::new();
        let started = Instant::now();
        let request = http.post(format!("{}/infer-and-adapt", self.url)).header("content-type", "application/x-ndjson");
        let answers = request.body(body).send().await?.error_for_status()?.text().await?;
        let took = started.elapsed();
        let good = answers.lines().filter(|line| line.contains("\"prediction\"")).count();
        let domain = self.describe().await?;
        if good != records.len() || domain["appliedDigest"] != format!("{digest:016x}").as_str() {
            return Err(format!("{good} of {} were acknowledged, {} applied", records.len(), domain["events"]).into());
        }
        Ok(took)
    }

    /// [`Client::replay`] on a thread of its own, while the caller does something else.
    pub fn replay_beside(
        &self,
        records: Vec<Record>,
        in_flight: usize,
        rate: Option<f64>,
    ) -> JoinHandle<Result<Ledger, Error>> {
        let client = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(client.replay(&records, in_flight, rate, |_| {}))
        })
    }

    /// Compares the ledger with what the cluster has applied.
    ///
    /// # Errors
    /// Where an acknowledged event was lost, or one was applied twice.
    pub async fn settle(&self, ledger: &Ledger) -> Result<Value, Error> {
        let domain = self.describe().await?;
        let digest = format!("{:016x}", ledger.digest);
        if domain["events"].as_u64() != Some(ledger.events.len() as u64) || domain["appliedDigest"] != digest.as_str() {
            return Err(format!(
                "acknowledged {} events with digest {digest}, but applied {} with digest {}",
                ledger.events.len(),
                domain["events"],
                domain["appliedDigest"]
            )
            .into());
        }
        Ok(domain)
    }
}

/// Everything that was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In the order of the stream.
    pub events: Vec<Acknowledged>,
    /// Wrapping sum of the digests of the acknowledged ids.
    pub digest: u64,
    /// From the first send to the last answer.
    pub seconds: f64,
}

impl Ledger {
    /// Share of right predictions.
    pub fn accuracy(&self) -> f64 {
        self.events.iter().filter(|event| event.right).count() as f64 / self.events.len().max(1) as f64
    }

    /// A quantile of the latency, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        let mut sorted: Vec<Duration> = self.events.iter().map(|event| event.latency).collect();
        sorted.sort();
        let place = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// How long after `event` answers came again: the end of the longest silence after it. Nothing where no silence was
    /// longer than [`SILENCE_MIN`].
    pub fn recovery(&self, event: Instant) -> Duration {
        let mut times: Vec<Instant> = self.events.iter().map(|acknowledged| acknowledged.at).collect();
        times.sort();
        let after = |pair: &&[Instant]| pair[1] > event && pair[0] < event + Duration::from_secs(30);
        let silences = times.windows(2).filter(after).filter(|pair| pair[1] - pair[0] > SILENCE_MIN);
        let longest = silences.max_by_key(|pair| pair[1] - pair[0]);
        longest.map_or(Duration::ZERO, |pair| pair[1].saturating_duration_since(event))
    }
}
