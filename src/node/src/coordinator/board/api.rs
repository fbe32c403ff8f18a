//! The routes of the dashboard: the page, which holds no data and needs no token, and under `/api/v1` what it shows.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::history::{Extract, HOURS_MAX, Metric, Scope};
use super::looks::Question;
use super::{Frame, Overview, PolicyReport, analysis, assets, findings, kept};
use crate::coordinator::Shared;
use crate::coordinator::api::refusal;
use crate::coordinator::leader;
use crate::gateway::{ErrorBody, from_object};

/// A comment after this much silence, so that nobody on the way takes the connection for dead.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long a forwarded answer may take: a look at patterns takes three seconds at most.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// A forwarded stream ends after this time and is asked for again.
const STREAM_MAX: Duration = Duration::from_secs(3600);

/// Bytes of what a policy says: 64 alerts, 32 receivers and 32 actions, with room to spare.
const REPORT_BYTES_MAX: usize = 128 * 1024;

pub type Coordinator = State<Arc<Shared>>;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(assets::page))
        .route("/web/{file}", get(assets::file))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/history", get(history))
        .route("/api/v1/history/anomalies", get(findings::anomalies))
        .route("/api/v1/history/trends", get(findings::trends))
        .route("/api/v1/patterns", get(patterns))
        .route("/api/v1/quality", get(quality))
        .route("/api/v1/memory", get(memory))
        .route("/api/v1/alerts", get(alerts).put(hear_alerts))
        .route("/api/v1/stream", get(stream))
        .with_state(shared)
}

/// The overview, if this coordinator leads; else the leader's answer, or why there is none.
pub async fn leading(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    timeout: Duration,
) -> Result<Arc<Overview>, Response> {
    if let Some(refusal) = refusal(shared, headers) {
        return Err(refusal);
    }
    if let Frame::Overview(overview) = &*shared.board.frames.borrow() {
        return Ok(overview.clone());
    }
    Err(match leader::other(shared, headers) {
        Some(leader) => leader::forward(shared, &leader, Method::GET, uri, Bytes::new(), timeout).await,
        None => leader::nobody(),
    })
}

async fn overview(State(shared): Coordinator, uri: Uri, headers: HeaderMap) -> Response {
    match leading(&shared, &uri, &headers, FORWARD_TIMEOUT).await {
        Ok(overview) => Json(&*overview).into_response(),
        Err(response) => response,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    domain: Option<String>,
    node: Option<String>,
    metric: Option<String>,
    hours: Option<f64>,
    step: Option<u32>,
}

/// Whose metrics are asked for.
pub fn scope_of(domain: Option<String>, node: Option<String>) -> Result<Scope, String> {
    match (domain, node) {
        (Some(_), Some(_)) => Err("ask for a domain or a node, not both".to_owned()),
        (Some(domain), None) => Ok(Scope::Domain(domain)),
        (None, Some(node)) => Ok(Scope::Node(node)),
        (None, None) => Ok(Scope::Cluster),
    }
}

/// One series.
#[derive(Serialize)]
struct HistoryBody {
    metric: Metric,
    scope: Scope,
    hours: f64,
    resolution_seconds: u32,
    /// `[beginning in seconds since 1970, value, min, max, count]` of each bucket.
    points: Vec<(u32, f64, f32, f32, u16)>,
    summary: Option<analysis::Summary>,
    trend: Option<analysis::Trend>,
    anomalies: Vec<analysis::Anomaly>,
}

#[derive(Serialize)]
struct SeriesName {
    scope: Scope,
    metric: Metric,
}

async fn history(
    State(shared): Coordinator,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Response {
    if let Err(response) = leading(&shared, &uri, &headers, FORWARD_TIMEOUT).await {
        return response;
    }
    let query = match query {
        Ok(Query(query)) => query,
        Err(why) => return bad(format!("the query is not what this endpoint takes: {why}")),
    };
    let scope = match scope_of(query.domain, query.node) {
        Ok(scope) => scope,
        Err(why) => return bad(why),
    };
    let hours = query.hours.unwrap_or(1.0);
    let hours_max = if shared.store.history.is_some() { kept::HOURS_KEPT } else { HOURS_MAX };
    if !(hours > 0.0 && hours <= hours_max) {
        return bad(format!("hours has to be more than 0 and at most {hours_max}"));
    }
    let Some(name) = query.metric else {
        let state = shared.board.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of_scope = state.history.names().filter(|(of, _)| scope == Scope::Cluster || *of == scope);
        let series: Vec<SeriesName> =
            of_scope.map(|(scope, metric)| SeriesName { scope: scope.clone(), metric: *metric }).collect();
        return Json(serde_json::json!({ "series": series })).into_response();
    };
    let Some(metric) = Metric::of(&name) else {
        return bad(format!("there is no metric {name:?}; without one this endpoint lists the series"));
    };
    let extract = match extract(&shared, &scope, metric, hours).await {
        Ok(Some(extract)) => extract.by(query.step.unwrap_or(0)),
        Ok(None) => {
            let body = ErrorBody::new("unknown_series", "nothing was measured under this name in this time");
            return body.respond(StatusCode::NOT_FOUND);
        }
        Err(error) => {
            let body = ErrorBody::new("store_unavailable", error.to_string());
            return body.respond(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let buckets = &extract.buckets;
    Json(HistoryBody {
        metric,
        scope,
        hours,
        resolution_seconds: extract.resolution,
        points: buckets.iter().map(|one| (one.at, one.value(metric), one.min, one.max, one.count)).collect(),
        summary: analysis::summary(metric, buckets),
        trend: analysis::trend(metric, buckets),
        anomalies: analysis::anomalies(metric, buckets),
    })
    .into_response()
}

/// The buckets of a series: from memory as far as it reaches, else from the store.
async fn extract(
    shared: &Shared,
    scope: &Scope,
    metric: Metric,
    hours: f64,
) -> Result<Option<Extract>, hebb_log::LogError> {
    let now = kept::now();
    if let Some(store) = shared.store.history.as_ref().filter(|_| HOURS_MAX < hours) {
        return kept::extract(store, now, scope, metric, hours).await;
    }
    let state = shared.board.state.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(state.history.extract(now, scope.clone(), metric, hours))
}

pub fn bad(why: String) -> Response {
    ErrorBody::new("bad_address", why).respond(StatusCode::BAD_REQUEST)
}

#[derive(Deserialize)]
struct LookQuery {
    domain: String,
}

type Looked = Result<Query<LookQuery>, QueryRejection>;

async fn patterns(from: Coordinator, uri: Uri, headers: HeaderMap, query: Looked) -> Response {
    look(from, uri, headers, query, Question::Patterns).await
}

async fn quality(from: Coordinator, uri: Uri, headers: HeaderMap, query: Looked) -> Response {
    look(from, uri, headers, query, Question::Quality).await
}

async fn memory(from: Coordinator, uri: Uri, headers: HeaderMap, query: Looked) -> Response {
    look(from, uri, headers, query, Question::Memory).await
}

/// What the owners of a domain say.
async fn look(State(shared): Coordinator, uri: Uri, headers: HeaderMap, query: Looked, question: Question) -> Response {
    let overview = match leading(&shared, &uri, &headers, FORWARD_TIMEOUT).await {
        Ok(overview) => overview,
        Err(response) => return response,
    };
    let name = match query {
        Ok(Query(query)) => query.domain,
        Err(why) => return bad(format!("the query is not what this endpoint takes: {why}")),
    };
    let Some(domain) = overview.status.domains.iter().find(|domain| domain.name == name) else {
        return ErrorBody::new("unknown_domain", "there is no such domain").respond(StatusCode::NOT_FOUND);
    };
    if !question.asks().contains(&domain.task) {
        let (is, wanted) = (domain.task, question.asks()[0]);
        return bad(format!("{name} is a {is:?} domain; this is asked of a {wanted:?} domain"));
    }
    match shared.board.looks.look(&shared.store, &name, question, domain.partitions.len() as u32).await {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error) => ErrorBody::new("store_unavailable", error.to_string()).respond(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn alerts(State(shared): Coordinator, uri: Uri, headers: HeaderMap) -> Response {
    if let Err(response) = leading(&shared, &uri, &headers, FORWARD_TIMEOUT).await {
        return response;
    }
    Json(shared.board.state.lock().unwrap_or_else(PoisonError::into_inner).alerts.view()).into_response()
}

/// Takes in what a policy says. Only the operator, and the process itself, are to say so.
async fn hear_alerts(State(shared): Coordinator, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let Ok(body) = axum::body::to_bytes(body, REPORT_BYTES_MAX).await else {
        let why = format!("what a policy says has at most {REPORT_BYTES_MAX} bytes");
        return ErrorBody::new("too_large", why).respond(StatusCode::PAYLOAD_TOO_LARGE);
    };
    if !matches!(&*shared.board.frames.borrow(), Frame::Overview(_)) {
        return match leader::other(&shared, &headers) {
            Some(leader) => leader::forward(&shared, &leader, Method::PUT, &uri, body, FORWARD_TIMEOUT).await,
            None => leader::nobody(),
        };
    }
    let report: PolicyReport = match from_object(&body) {
        Ok(report) => report,
        Err(error) => return ErrorBody::new("bad_body", error.to_string()).respond(StatusCode::BAD_REQUEST),
    };
    let now = kept::now();
    if shared.board.state.lock().unwrap_or_else(PoisonError::into_inner).alerts.hear(now, report) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        ErrorBody::new("too_many_policies", "there is no room for another policy, or its name is none")
            .respond(StatusCode::INSUFFICIENT_STORAGE)
    }
}

/// Server-sent events: the overview now and whenever the leader takes stock.
async fn stream(State(shared): Coordinator, uri: Uri, headers: HeaderMap) -> Response {
    let Ok(seat) = shared.board.listeners.clone().try_acquire_owned() else {
        let body = ErrorBody::new("too_many_listeners", "too many listen already; ask for /api/v1/overview instead");
        return body.respond(StatusCode::SERVICE_UNAVAILABLE);
    };
    if let Err(response) = leading(&shared, &uri, &headers, STREAM_MAX).await {
        // The seat of a forwarded stream is the leader's.
        return response;
    }
    let mut frames = shared.board.frames.subscribe();
    frames.mark_changed();
    let events = futures::stream::unfold((frames, seat), |(mut frames, seat)| async move {
        let text = next_event(&mut frames).await?;
        Some((Ok::<_, Infallible>(text), (frames, seat)))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

/// The next event's text; nothing once there is nothing more to tell.
async fn next_event(frames: &mut watch::Receiver<Frame>) -> Option<String> {
    match tokio::time::timeout(ALIVE_EVERY, frames.changed()).await {
        Err(_) => Some(": alive\n\n".to_owned()),
        Ok(Err(_)) => None,
        Ok(Ok(())) => match frames.borrow_and_update().clone() {
            Frame::Overview(overview) => {
                // Writing plain data has no way to fail.
                Some(format!("data: {}\n\n", serde_json::to_string(&*overview).unwrap_or_default()))
            }
            Frame::None | Frame::Closed => None,
        },
    }
}
