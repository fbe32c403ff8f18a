//! The clients: they send events to whichever gateway is there, and repeat each under its id until it is acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hebb_engine::event_digest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use crate::chance::Chance;
use crate::cluster::{Cluster, DOMAIN};

/// Bytes of an answer: the list of what a domain's partitions say is the longest.
const ANSWER_MAX: usize = 64 << 20;
/// How long a client waits before it repeats what failed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a client waits that was told that a queue is full.
const FULL_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Of a hundred requests, how many only ask, and how many send an event whose label comes later.
const INFER: u64 = 10;
const FEEDBACK: u64 = 10;

/// What clients know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Requests that were begun, and those of them that have ended.
    pub begun: u64,
    /// See `begun`.
    pub ended: u64,
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// Wrapping sum of their ids' digests.
    pub digest: u64,
    /// Labels that were acknowledged, with their event or later.
    pub labels: u64,
    /// Attempts that were made, requests and repetitions alike.
    pub attempts: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Of those, by a full queue.
    pub refused: u64,
    /// Milliseconds from a request to its answer, of the attempts that succeeded.
    pub answered_ms: Vec<u32>,
    /// Answers that no client should get, in words.
    pub odd: Vec<String>,
}

/// The clients. Clones are the same ones.
#[derive(Clone)]
pub struct Clients(Arc<Shared>);

struct Shared {
    cluster: Cluster,
    ledger: Mutex<Ledger>,
    is_over: AtomicBool,
}

/// One request, apart from where it is sent.
struct Ask {
    path: String,
    body: Option<Value>,
}

impl Clients {
    /// Clients of a cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self(Arc::new(Shared { cluster, ledger: Mutex::default(), is_over: AtomicBool::new(false) }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they know now.
    pub fn known(&self) -> Ledger {
        self.ledger().clone()
    }

    /// Requests that haven't ended.
    pub fn open(&self) -> u64 {
        let ledger = self.ledger();
        ledger.begun - ledger.ended
    }

    /// Has those that are still at it give up: nothing they want is counted any more.
    pub fn give_up(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    /// Sends `rate` requests a second for a time, whatever becomes of them.
    pub async fn send(&self, seed: u64, rate: f64, during: Duration) {
        let mut chance = Chance::new(seed, "clients");
        let begun_at = Instant::now();
        let count = (rate * during.as_secs_f64()) as u64;
        for number in 0..count {
            sleep_until(begun_at + Duration::from_secs_f64(number as f64 / rate)).await;
            let place = [chance.signed(), chance.signed(), chance.signed()];
            let kind = chance.number(0..100);
            let pause = chance.duration(&(Duration::from_millis(100)..Duration::from_secs(3)));
            let mine = Chance::new(seed, &format!("client {number}"));
            self.ledger().begun += 1;
            let clients = self.clone();
            tokio::spawn(async move {
                clients.request(number, place, kind, pause, mine).await;
                clients.ledger().ended += 1;
            });
        }
    }

    async fn request(&self, number: u64, place: [f64; 3], kind: u64, pause: Duration, mut chance: Chance) {
        let label = if place[0] + place[1] / 2.0 > 0.0 { "above" } else { "below" };
        let id = format!("event-{number}");
        if kind < INFER {
            let ask = Ask::post("infer", json!({"features": place}));
            self.until_answered(&ask, &mut chance).await;
            return;
        }
        let is_later = kind < INFER + FEEDBACK;
        let mut event = json!({"id": id, "features": place});
        if !is_later {
            event["label"] = json!(label);
        }
        let Some(answer) = self.until_answered(&Ask::post("infer-and-adapt", event), &mut chance).await else { return };
        {
            let mut ledger = self.ledger();
            ledger.acknowledged += 1;
            ledger.digest = ledger.digest.wrapping_add(event_digest(&id));
            ledger.labels += u64::from(!is_later);
            if answer["id"] != json!(id) {
                ledger.odd(format!("{id} was answered with {answer}"));
            }
        }
        if is_later {
            sleep(pause).await;
            let ask = Ask::post("feedback", json!({"id": id, "label": label}));
            if self.until_answered(&ask, &mut chance).await.is_some() {
                self.ledger().labels += 1;
            }
        }
    }

    /// Repeats a request until it succeeds, or nobody cares any more.
    async fn until_answered(&self, ask: &Ask, chance: &mut Chance) -> Option<Value> {
        while !self.0.is_over.load(Ordering::Relaxed) {
            let begun_at = Instant::now();
            let answer = self.attempt(ask, chance).await;
            let took = u32::try_from(begun_at.elapsed().as_millis()).unwrap_or(u32::MAX);
            let pause = {
                let mut ledger = self.ledger();
                ledger.attempts += 1;
                match answer {
                    Some((StatusCode::OK, body)) => {
                        ledger.answered_ms.push(took);
                        return Some(body);
                    }
                    Some((StatusCode::TOO_MANY_REQUESTS, _)) => {
                        ledger.refused += 1;
                        ledger.failed += 1;
                        FULL_AGAIN_AFTER
                    }
                    Some((status, body)) => {
                        ledger.failed += 1;
                        if status.is_client_error() {
                            ledger.odd(format!("{} was answered with {status}: {body}", ask.path));
                            return None;
                        }
                        AGAIN_AFTER
                    }
                    None => {
                        ledger.failed += 1;
                        AGAIN_AFTER
                    }
                }
            };
            sleep(pause).await;
        }
        None
    }

    /// Sends a request to one of the gateways that run. Nothing comes back where there is none, or where it dies.
    async fn attempt(&self, ask: &Ask, chance: &mut Chance) -> Option<(StatusCode, Value)> {
        let doors = self.0.cluster.doors();
        let place = usize::try_from(chance.number(0..doors.len() as u64)).ok()?;
        let door = doors.into_iter().nth(place)?;
        let request = ask.request()?;
        let answered = async {
            let response = door.router.clone().oneshot(request).await.ok()?;
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), ANSWER_MAX).await.ok()?;
            Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        tokio::select! {
            biased;
            () = door.broken() => None,
            answer = answered => answer,
        }
    }

    /// What the domain says of itself, through a gateway.
    pub async fn describe(&self, seed: u64) -> Option<Value> {
        let ask = Ask { path: format!("/v1/domains/{DOMAIN}"), body: None };
        match self.attempt(&ask, &mut Chance::new(seed, "describe")).await {
            Some((StatusCode::OK, body)) => Some(body),
            _ => None,
        }
    }
}

impl Ledger {
    fn odd(&mut self, what: String) {
        /// Told in full; a client sends nothing that should be refused, so one is one too many.
        const TOLD_MAX: usize = 10;
        if self.odd.len() < TOLD_MAX {
            self.odd.push(what);
        }
    }
}

impl Ask {
    fn post(operation: &str, body: Value) -> Self {
        Self { path: format!("/v1/domains/{DOMAIN}/{operation}"), body: Some(body) }
    }

    fn request(&self) -> Option<Request<Body>> {
        let request = Request::builder().uri(&self.path).header(header::CONTENT_TYPE, "application/json");
        let request = match &self.body {
            Some(body) => request.method("POST").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        request.ok()
    }
}
