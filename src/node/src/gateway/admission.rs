//! Who is let in: a slot, a key, a token of its bucket; in this order, the cheapest first. Where no key is asked for, no page of
//! another site.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::Shared;
use super::keys::KeyRing;
use super::limits::{Buckets, Client, Limit, Limits, Verdict};
use super::priority::Priority;
use super::reply::{Failure, bearer};
use crate::browser::is_foreign;
use crate::stop::Stop;

/// Requests under way in one process, streams among them. At 10 ms each that is 200,000 a second, far more than a gateway can.
const REQUESTS_MAX: usize = 2_048;

/// Why somebody is not let in.
const BUSY: &str = "busy";
const UNAUTHORIZED: &str = "unauthorized";
const RATE_LIMIT: &str = "rate_limit";
const CROSS_SITE: &str = "cross_site";

/// The door of the API.
pub struct Admission {
    keys: Option<KeyRing>,
    limits: Option<Limits>,
    buckets: Mutex<Buckets>,
    slots: Arc<Semaphore>,
    refused: IntCounterVec,
    clients: IntGauge,
}

/// One who was let in, until the last answer is out.
#[derive(Clone)]
pub struct Admitted(Arc<Visit>);

struct Visit {
    client: Client,
    limit: Option<Limit>,
    _slot: OwnedSemaphorePermit,
}

impl Admitted {
    /// Who it is.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The highest priority that the client's requests have.
    pub fn priority_max(&self) -> Priority {
        self.0.limit.map_or(Priority::High, |limit| limit.priority_max())
    }
}

impl Admission {
    /// A door that asks for one of these keys, and lets each client through as often as these limits say.
    pub fn new(keys: Option<KeyRing>, limits: Option<Limits>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "hebb_refused_total",
                "Requests that were not let in, by reason; a waiting stream counts each wait",
            ),
            &["reason"],
        )?;
        let clients = IntGauge::new("hebb_limited_clients", "Clients whose requests are counted for the rate limit")?;
        registry.register(Box::new(refused.clone()))?;
        // A rate can be told only of what was there before.
        for reason in [BUSY, UNAUTHORIZED, RATE_LIMIT, CROSS_SITE] {
            refused.with_label_values(&[reason]);
        }
        registry.register(Box::new(clients.clone()))?;
        let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
        Ok(Self { keys, limits, buckets: Mutex::default(), slots, refused, clients })
    }

    /// Takes up keys that change, until the stop.
    pub async fn follow(&self, stop: Stop) {
        if let Some(keys) = &self.keys {
            keys.follow(self.limits.as_ref(), stop).await;
        }
    }

    fn admit(&self, request: &Request) -> Result<Admitted, Failure> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| self.refuse(BUSY, Failure::Busy))?;
        let (client, tier) = match &self.keys {
            Some(ring) => {
                let keys = ring.now();
                let owner = bearer(request.headers()).and_then(|key| keys.owner(key));
                let owner = owner.ok_or_else(|| self.refuse(UNAUTHORIZED, Failure::Unauthorized))?;
                (Client::Key(owner.name.clone()), owner.tier.clone())
            }
            // A browser adds no key by itself, so that one is a proof of will.
            None if !request.method().is_safe() && is_foreign(request.headers()) => {
                return Err(self.refuse(CROSS_SITE, Failure::CrossSite));
            }
            None => (Client::at(address(request)), None),
        };
        let limit = self.limits.as_ref().map(|limits| limits.of(tier.as_deref()));
        let admitted = Admitted(Arc::new(Visit { client, limit, _slot: slot }));
        match self.take(&admitted) {
            Ok(()) => Ok(admitted),
            Err(wait) => Err(Failure::RateLimited { client: admitted.0.client.to_string(), wait }),
        }
    }

    /// Charges what a request needs beyond the token that it was let in with. It is served all the same, and the next one
    /// waits.
    pub fn charge(&self, admitted: &Admitted, more: usize) {
        if let Some(limit) = admitted.0.limit {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.charge(&admitted.0.client, limit, more as f64, Instant::now());
        }
    }

    /// Whether somebody has to wait for tokens.
    pub fn is_limited(&self, admitted: &Admitted) -> bool {
        admitted.0.limit.is_some()
    }

    /// Waits for a token: a stream is slowed down, not refused.
    pub async fn pace(&self, admitted: &Admitted) {
        while let Err(wait) = self.take(admitted) {
            tokio::time::sleep(wait).await;
        }
    }

    fn take(&self, admitted: &Admitted) -> Result<(), Duration> {
        let Visit { client, limit: Some(limit), .. } = &*admitted.0 else { return Ok(()) };
        let verdict = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let verdict = buckets.take(client, *limit, Instant::now());
            self.clients.set(buckets.len() as i64);
            verdict
        };
        let Verdict::Refused { wait, say } = verdict else { return Ok(()) };
        self.refused.with_label_values(&[RATE_LIMIT]).inc();
        if let Some(refused) = say {
            warn!(%client, refused, "rate_limit_exceeded");
        }
        Err(wait)
    }

    fn refuse(&self, reason: &str, failure: Failure) -> Failure {
        self.refused.with_label_values(&[reason]).inc();
        failure
    }
}

/// Lets a request in or answers why not. Who is in finds its [`Admitted`] in the request.
pub async fn admit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    match shared.admission.admit(&request) {
        Ok(admitted) => {
            request.extensions_mut().insert(admitted.clone());
            let response = next.run(request).await;
            // A stream has a share of its own, and keeps the slot.
            drop(admitted);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Where a request comes from: the other end of its connection. What headers say about it anybody can write.
fn address(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}
