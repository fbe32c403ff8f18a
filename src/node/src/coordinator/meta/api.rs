//! The API of meta-learning. A follower forwards to the leader, where the same paths are served on the status API's port.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State as From};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Router, body};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MetaError, State};
use crate::coordinator::Shared;
use crate::coordinator::api::refusal;
use crate::coordinator::leader::{self, forward};
use crate::gateway::{Address, ErrorBody, from_object, wrong_method};
use crate::memory::Memory;

/// Where the paths are.
const BASE: &str = "/api/v4/meta-learning";
/// Bytes of a request.
const BODY_MAX: usize = 4_096;
/// Cycles in an answer unless it is asked for another number.
const LIMIT: usize = 50;
/// The shortest interval that can be asked for, in milliseconds: a cycle costs some.
const INTERVAL_MIN_MS: u64 = 100;
/// A week.
const INTERVAL_MAX_MS: u64 = 7 * 24 * 3_600_000;

/// The paths under [`BASE`].
pub fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/status", get(status))
        .route("/continuous-status", get(continuous_status))
        .route("/production-dashboard", get(dashboard))
        .route("/metrics-trend", get(trend))
        .route("/adaptation-history", get(history))
        .route("/performance", get(performance))
        .route("/alerts", get(alerts))
        .route("/metrics", get(metrics))
        .route("/run-all", post(run_all))
        .route("/boost", post(boost))
        .route("/reset", post(reset))
        .route("/start-continuous", post(start))
        .route("/stop-continuous", post(stop))
        .with_state(shared.clone());
    // Around the nest, within which a path is cut: the leader needs it whole.
    Router::new().nest(BASE, api).layer(middleware::from_fn_with_state(shared, on_leader))
}

/// What the port of meta-learning serves: the paths, and `GET /health`.
pub fn port_router(shared: Arc<Shared>) -> Router {
    let healthy = || async { Json(json!({"ok": true, "timestamp": Timestamp::now()})) };
    let nothing = || async {
        ErrorBody::new("unknown_route", format!("no such endpoint; the API is under {BASE}"))
            .respond(StatusCode::NOT_FOUND)
    };
    router(shared).route("/health", get(healthy)).fallback(nothing).method_not_allowed_fallback(wrong_method)
}

/// Lets a request through where this coordinator leads, else has the leader answer it.
async fn on_leader(From(shared): From<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Some(refusal) = refusal(&shared, request.headers()) {
        return refusal;
    }
    if shared.meta.state().is_some() {
        return next.run(request).await;
    }
    let Some(leader) = leader::other(&shared, request.headers()) else { return leader::nobody() };
    let (parts, body) = request.into_parts();
    let body = match whole(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    // A cycle may take as long as its limit, and a little for the way.
    let timeout = super::CYCLE_WITHIN + super::RETRY_AFTER;
    forward(&shared, &leader, parts.method, &parts.uri, body, timeout).await
}

/// A body within the bound.
async fn whole(body: Body) -> Result<Bytes, Response> {
    body::to_bytes(body, BODY_MAX).await.map_err(|_| {
        let why = format!("a body has at most {BODY_MAX} bytes");
        ErrorBody::new("too_large", why).respond(StatusCode::PAYLOAD_TOO_LARGE)
    })
}

impl IntoResponse for MetaError {
    fn into_response(self) -> Response {
        let (code, status) = match self {
            Self::NotLeading => ("no_leader", StatusCode::SERVICE_UNAVAILABLE),
            Self::Store(_) => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::Note(_) => ("note", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Stuck => ("stuck", StatusCode::GATEWAY_TIMEOUT),
            Self::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE),
        };
        ErrorBody::new(code, self.to_string()).respond(status)
    }
}

type Answer = Result<Json<Value>, MetaError>;

fn state(shared: &Shared) -> Result<Arc<State>, MetaError> {
    shared.meta.state().ok_or(MetaError::NotLeading)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<usize>,
}

impl Limit {
    fn get(&self) -> usize {
        self.limit.unwrap_or(LIMIT)
    }
}

fn system_status(state: &State) -> Value {
    let last = state.history.back().map(|cycle| cycle.at);
    json!({"started": true, "continuousActive": state.continuous, "lastUpdated": last})
}

/// The four by name, null before there is enough experience.
fn current(state: &State) -> Value {
    let nothing = json!({
        "learningVelocity": null, "adaptationSpeed": null, "knowledgeRetention": null, "transferEfficiency": null,
    });
    state.metrics().map_or(nothing, |metrics| json!(metrics))
}

fn performance_of(state: &State) -> Value {
    let mut recent: Vec<Value> =
        state.moving().take(10).map(|cycle| json!({"at": cycle.at, "delta": cycle.delta})).collect();
    recent.reverse();
    json!({
        "currentMetrics": current(state),
        "totalImprovements": state.total_improvements,
        "recentVelocity": recent,
    })
}

fn activity(state: &State) -> Json<Value> {
    Json(json!({"ok": true, "continuousActive": state.continuous, "timestamp": Timestamp::now()}))
}

async fn status(From(shared): From<Arc<Shared>>) -> Answer {
    let state = state(&shared)?;
    Ok(Json(json!({
        "ok": true,
        "systemStatus": system_status(&state),
        "cycles": state.cycles,
        "totalImprovements": state.total_improvements,
        "boosts": state.boosts,
        "intervalMs": state.interval_ms,
        "maxCycles": state.max_cycles,
        "nextCycleAt": state.next_at,
        "runningSeconds": shared.meta.running().map(|running| running.as_secs_f64()),
    })))
}

async fn continuous_status(From(shared): From<Arc<Shared>>) -> Answer {
    state(&shared).map(|state| activity(&state))
}

async fn dashboard(From(shared): From<Arc<Shared>>) -> Answer {
    let state = state(&shared)?;
    let stuck = state.alerts(0, Timestamp::now()).iter().any(|alert| alert.name == "stuck_phase");
    Ok(Json(json!({
        "ok": true,
        "systemStatus": system_status(&state),
        "performance": performance_of(&state),
        "health": {
            "metricsHealthy": state.metrics_healthy(),
            "phasesHealthy": !stuck,
            "logSize": state.history.len(),
        },
    })))
}

async fn trend(From(shared): From<Arc<Shared>>, Address(Query(limit)): Address<Query<Limit>>) -> Answer {
    let state = state(&shared)?;
    let trend: Vec<Value> = state
        .newest(limit.get())
        .map(|cycle| {
            json!({
                "at": cycle.at, "metrics": cycle.metrics, "score": cycle.score, "metricsSource": cycle.metrics_source,
            })
        })
        .collect();
    Ok(Json(json!({"ok": true, "trend": trend})))
}

async fn history(From(shared): From<Arc<Shared>>, Address(Query(limit)): Address<Query<Limit>>) -> Answer {
    let state = state(&shared)?;
    let history: Vec<_> = state.newest(limit.get()).collect();
    Ok(Json(json!({"ok": true, "history": history})))
}

async fn performance(From(shared): From<Arc<Shared>>) -> Answer {
    let state = state(&shared)?;
    Ok(Json(json!({
        "ok": true,
        "performance": performance_of(&state),
        "meanDelta": state.mean_delta(),
        "arms": state.arms,
    })))
}

async fn alerts(From(shared): From<Arc<Shared>>) -> Answer {
    let alerts = state(&shared)?.alerts(Memory::now().bytes, Timestamp::now());
    Ok(Json(json!({"ok": true, "alerts": alerts})))
}

async fn metrics(From(shared): From<Arc<Shared>>) -> Answer {
    let state = state(&shared)?;
    let source = state.history.back().map(|cycle| cycle.metrics_source);
    Ok(Json(json!({"ok": true, "metrics": current(&state), "metricsSource": source})))
}

async fn run_all(From(shared): From<Arc<Shared>>) -> Answer {
    let asked = shared.clone();
    let cycle = shared.meta.to_its_end(async move { super::cycle(&asked, false).await }).await?;
    Ok(Json(json!({"ok": true, "cycle": cycle})))
}

async fn boost(From(shared): From<Arc<Shared>>) -> Answer {
    let asked = shared.clone();
    let state = shared.meta.to_its_end(async move { super::boost(&asked).await }).await?;
    Ok(Json(json!({"ok": true, "boosts": state.boosts, "timestamp": Timestamp::now()})))
}

async fn reset(From(shared): From<Arc<Shared>>) -> Answer {
    let asked = shared.clone();
    let state = shared.meta.to_its_end(async move { super::reset(&asked).await }).await?;
    Ok(activity(&state))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Start {
    interval_ms: Option<u64>,
    max_cycles: Option<u64>,
}

async fn start(From(shared): From<Arc<Shared>>, body: Body) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let asked: Result<Start, _> = if body.is_empty() { Ok(Start::default()) } else { from_object(&body) };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return ErrorBody::new("bad_body", error.to_string()).respond(StatusCode::BAD_REQUEST),
    };
    let interval_ms = asked.interval_ms.unwrap_or(shared.options.meta.interval_ms);
    if !(INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(&interval_ms) {
        let why = format!("intervalMs has to be from {INTERVAL_MIN_MS} to {INTERVAL_MAX_MS}");
        return ErrorBody::new("bad_interval", why).respond(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let max_cycles = asked.max_cycles.unwrap_or(0);
    let started = |state: &mut State| state.start(interval_ms, max_cycles, Timestamp::now());
    super::change(&shared, started).await.map(|((), state)| activity(&state)).into_response()
}

async fn stop(From(shared): From<Arc<Shared>>) -> Answer {
    let ((), state) = super::change(&shared, State::stop).await?;
    Ok(activity(&state))
}
