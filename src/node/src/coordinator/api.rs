//! The coordinator's API: `GET /api/v1/status` and `/metrics`. A follower forwards the status to the leader.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus::{IntGauge, Opts, Registry};

use super::{ClusterStatus, Shared, leader, meta};
use crate::gateway::{ErrorBody, bearer_matches, expose};

/// How long the leader's answer is waited for.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(shared.clone())
        .merge(meta::router(shared))
}

/// The answer to a request without the token, where there is one.
pub fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let token = shared.options.token.as_ref()?;
    (!bearer_matches(headers, token)).then(|| {
        ErrorBody::new("unauthorized", "the internal token is missing or wrong").respond(StatusCode::UNAUTHORIZED)
    })
}

async fn status(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let status = shared.view.lock().unwrap_or_else(PoisonError::into_inner).status.clone();
    if let Some(status) = status {
        return Json(status).into_response();
    }
    match leader::other(&shared, &headers) {
        Some(leader) => leader::forward(&shared, &leader, Method::GET, &uri, Bytes::new(), FORWARD_TIMEOUT).await,
        None => leader::nobody(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let (leads, status) = {
        let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
        (view.leads, view.status.clone())
    };
    match gather(leads, status.as_ref()) {
        Ok(registry) => expose(&registry),
        Err(error) => ErrorBody::new("metrics", error.to_string()).respond(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn gather(leads: bool, status: Option<&ClusterStatus>) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: i64| {
        let gauge = IntGauge::with_opts(Opts::new(name, help))?;
        gauge.set(value);
        registry.register(Box::new(gauge))
    };
    gauge("hebb_coordinator_leads", "1 on the coordinator that leads", i64::from(leads))?;
    if let Some(status) = status {
        gauge("queue_depth", "Entries appended and not yet applied", status.lag as i64)?;
        gauge("worker_count", "Workers that live", status.workers.len() as i64)?;
        gauge("hebb_unowned_partitions", "Partitions that nobody owns", status.unowned as i64)?;
        let events = status.domains.iter().map(|domain| domain.events as i64).sum();
        gauge("hebb_events_applied", "Distinct events applied, of all domains", events)?;
    }
    Ok(registry)
}
