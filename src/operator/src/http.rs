//! Health and metrics of the operator.
//!
//! Ready means that watching works: the own Lease is watched, which somebody renews every two seconds, so silence is an API
//! server that is away; and no other watch has been silent for longer than an API server that works would let it be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};

use crate::metrics::Metrics;
use crate::watches::Watches;

/// More than a lease that expires unrenewed, and its takeover.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// When the watch was last heard.
#[derive(Clone)]
pub struct WatchAge(Arc<Mutex<Option<Instant>>>);

impl Default for WatchAge {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl WatchAge {
    /// An event came; returns the silence before it.
    pub fn heard(&self) -> Option<Duration> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.replace(Instant::now()).map(|at| at.elapsed())
    }

    fn trouble(&self) -> Option<String> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Some("no watch has answered yet".to_owned()),
            Some(at) if at.elapsed() > SILENCE_MAX => {
                Some(format!("the watch has been silent for {} s", at.elapsed().as_secs()))
            }
            Some(_) => None,
        }
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    lease: WatchAge,
    watches: Watches,
}

/// The routes.
pub fn router(metrics: Metrics, lease: WatchAge, watches: Watches) -> Router {
    Router::new()
        .route("/health/liveness", get(|| async { "ok\n" }))
        .route("/health/readiness", get(readiness))
        .route("/metrics", get(expose))
        .with_state(Shared { metrics, lease, watches })
}

async fn readiness(State(shared): State<Shared>) -> Response {
    match shared.lease.trouble().or_else(|| shared.watches.trouble()) {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn expose(State(shared): State<Shared>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    shared.metrics.watches(&shared.watches.ages());
    match encoder.encode(&shared.metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
