//! The coordinator's API: `GET /api/v1/status` and `/metrics`. A follower forwards the status to the leader.

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus::{IntGauge, Opts, Registry};

use super::{ClusterStatus, Shared};
use crate::gateway::{ErrorBody, bearer_matches, expose};

/// Says that a request was forwarded already, so that two coordinators that take each other for the leader don't loop.
pub const FORWARDED: &str = "x-hebb-forwarded";

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/api/v1/status", get(status)).route("/metrics", get(metrics)).with_state(shared)
}

/// The answer to a request without the token, where there is one.
pub fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let token = shared.options.token.as_ref()?;
    (!bearer_matches(headers, token)).then(|| {
        ErrorBody::new("unauthorized", "the internal token is missing or wrong").respond(StatusCode::UNAUTHORIZED)
    })
}

async fn status(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let (leadership, status) = {
        let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
        (view.leadership.clone(), view.status.clone())
    };
    match (status, leadership) {
        (Some(status), _) => Json(status).into_response(),
        (None, Some(leadership)) if !headers.contains_key(FORWARDED) => {
            forward(&shared, &leadership.address).await.unwrap_or_else(|error| {
                ErrorBody::new(
                    "leader_unreachable",
                    format!("the leader {} doesn't answer: {error}", leadership.leader),
                )
                .respond(StatusCode::BAD_GATEWAY)
            })
        }
        _ => ErrorBody::new("no_leader", "no coordinator leads at the moment; try again in a few seconds")
            .respond(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn forward(shared: &Shared, address: &str) -> Result<Response, reqwest::Error> {
    let mut request = shared.client.get(format!("http://{address}/api/v1/status")).header(FORWARDED, "1");
    if let Some(token) = &shared.options.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let status: ClusterStatus = request.send().await?.error_for_status()?.json().await?;
    Ok(Json(status).into_response())
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
