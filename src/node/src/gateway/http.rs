//! The routes of the API.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post};
use futures::{StreamExt, stream};
use hebb_engine::{Answer, Entry, FeedbackOutcome, Outcome, Query as EngineQuery, SmolStr, Statistics, Task};
use hebb_log::{Domain, PartitionKey};
use serde::{Deserialize, Serialize};

use super::admission::{Admitted, admit};
use super::consistency::{self, ReadQuery};
use super::detailed::detailed;
use super::dispatch::{Manner, OnFull, Sent};
use super::domains::partition_of;
use super::priority::{Priority, Urgency};
use super::reply::{Address, ErrorBody, Failure, expose, wrong_method};
use super::statistics::{self, PartitionStatistics};
use super::wire::{self, AnswerBody, BatchBody, EventBody, FeedbackBody, SignalBody};
use super::{Shared, governed, library, ndjson, reset};
use crate::trail;

type Gateway = State<Arc<Shared>>;

/// What OpenAPI says of all this. Kept by hand: `tests/roles/openapi.rs` compares it with the server, both ways.
const DOCUMENT: &str = include_str!("openapi.json");

/// What a stream of events is called: there is no registered name for it.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// The addresses under which there is something to be had, with a key where keys are asked for.
fn routes() -> [(&'static str, MethodRouter<Arc<Shared>>); 15] {
    [
        ("/v1/domains", get(list_domains)),
        ("/v1/domains/{domain}", get(describe_domain)),
        ("/v1/domains/{domain}/infer-and-adapt", post(infer_and_adapt)),
        ("/v1/domains/{domain}/infer", post(infer)),
        ("/v1/domains/{domain}/feedback", post(feedback)),
        ("/v1/domains/{domain}/perceive", post(perceive)),
        ("/v1/domains/{domain}/perceive:batch", post(perceive_batch)),
        ("/v1/domains/{domain}/patterns", get(library::patterns)),
        ("/v1/domains/{domain}/patterns:merge", post(library::merge)),
        ("/v1/domains/{domain}/patterns:archive", post(library::archive)),
        ("/v1/domains/{domain}/patterns:restore", post(library::restore)),
        ("/v1/domains/{domain}/events/{id}", get(event)),
        ("/v1/domains/{domain}/reset", post(reset::reset)),
        ("/event", post(governed::event)),
        ("/state", get(governed::state)),
    ]
}

pub fn router(shared: Arc<Shared>) -> Router {
    let api = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    api.route_layer(middleware::from_fn_with_state(shared.clone(), admit))
        .route_layer(middleware::from_fn(trail::follow))
        .route("/metrics", get(metrics))
        .route("/health/metrics", get(metrics))
        .route("/health/detailed", get(detailed))
        .route("/openapi.json", get(document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

async fn unknown_route() -> Response {
    ErrorBody::new("unknown_route", "no such endpoint; the API is under /v1/domains").respond(StatusCode::NOT_FOUND)
}

async fn metrics(State(shared): Gateway) -> Response {
    expose(shared.families())
}

fn is_ndjson(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| NDJSON.iter().any(|known| kind.trim().eq_ignore_ascii_case(known)))
}

async fn infer_and_adapt(
    State(shared): Gateway,
    Address(Path(domain)): Address<Path<String>>,
    Extension(admitted): Extension<Admitted>,
    urgency: Urgency,
    request: Request,
) -> Response {
    let priority = urgency.or(Priority::Normal);
    if is_ndjson(&request) {
        return ndjson::stream(shared, domain, admitted, priority, request).await;
    }
    let started = Instant::now();
    let result = async {
        let body = shared.bodies.read(request.into_body()).await?;
        one_event(&shared, &domain, &body, OnFull::Refuse.at(priority)).await
    };
    respond(&shared, "infer-and-adapt", started, result.await)
}

/// An entry on its way to its answer.
pub struct Begun {
    sent: Sent,
    started: Instant,
}

/// Applies one event and says what the engine answered.
async fn one_event(shared: &Shared, domain: &str, body: &[u8], manner: Manner) -> Result<AnswerBody, Failure> {
    finish(shared, begin_event(shared, domain, body, manner).await?).await
}

/// Checks an event and sends it; events that are begun one after the other are learned in that order.
pub async fn begin_event(shared: &Shared, domain: &str, body: &[u8], manner: Manner) -> Result<Begun, Failure> {
    let started = Instant::now();
    let body: EventBody = wire::parse(body)?;
    let key = checked_key(body.key.as_deref())?;
    let domain = match shared.domains.find(domain).await? {
        Some(domain) => domain,
        None => {
            let implied = body.implied_task();
            // Checked before an unknown domain is made: a bad event changes nothing.
            wire::event(body.clone(), implied, SmolStr::default)?;
            shared.domains.find_or_declare(domain, || implied).await?
        }
    };
    // Somebody else may have made it meanwhile, with another task.
    let event = wire::event(body, domain.config.task, fresh_id)?;
    let partition = partition_of(&domain, key.as_deref(), &event.id);
    let sent = shared.dispatcher.send(&partition, Entry::Event(event).encode(), manner).await?;
    Ok(Begun { sent, started })
}

/// Waits for the answer to what was begun.
pub async fn finish(shared: &Shared, begun: Begun) -> Result<AnswerBody, Failure> {
    let Begun { sent, started } = begun;
    Ok(wire::answer_body(answered(shared, sent).await?, started.elapsed().as_secs_f64() * 1e3))
}

/// Waits for the engine's answer to an event.
pub async fn answered(shared: &Shared, sent: Sent) -> Result<Answer, Failure> {
    match shared.dispatcher.outcome(sent).await? {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Rejected(rejection) => Err(rejection.into()),
        _ => Err(Failure::Unexpected),
    }
}

fn checked_key(key: Option<&str>) -> Result<Option<String>, Failure> {
    if let Some(key) = key {
        wire::check_name("the key", key)?;
    }
    Ok(key.map(str::to_owned))
}

/// 128 random bits: two gateways never give the same.
pub fn fresh_id() -> SmolStr {
    format!("{:032x}", rand::random::<u128>()).into()
}

pub fn respond<T: Serialize>(
    shared: &Shared,
    operation: &str,
    started: Instant,
    result: Result<T, Failure>,
) -> Response {
    shared.metrics.answered(operation, result.is_ok(), started.elapsed().as_secs_f64());
    match result {
        Ok(body) => Json(body).into_response(),
        Err(failure) => failure.into_response(),
    }
}

pub async fn known_domain(shared: &Shared, name: &str) -> Result<Domain, Failure> {
    shared.domains.find(name).await?.ok_or_else(|| Failure::UnknownDomain(name.to_owned()))
}

async fn infer(
    State(shared): Gateway,
    Address(Path(domain)): Address<Path<String>>,
    Address(Query(query)): Address<Query<ReadQuery>>,
    urgency: Urgency,
    body: Body,
) -> Response {
    let started = Instant::now();
    let manner = OnFull::Refuse.at(urgency.or(Priority::Normal));
    let result = async {
        let body = shared.bodies.read(body).await?;
        let body: EventBody = wire::parse(&body)?;
        if body.label.is_some() {
            let why = "infer takes no label: use infer-and-adapt to learn".to_owned();
            return Err(wire::WireError::Unfit(why).into());
        }
        let domain = known_domain(&shared, &domain).await?;
        let key = checked_key(body.key.as_deref())?;
        if let Some(id) = &body.id {
            wire::check_name("the id", id)?;
        }
        let id = body.id.unwrap_or_default();
        let input = wire::input(body.features, body.signal, domain.config.task)?;
        let partition = partition_of(&domain, key.as_deref(), &id);
        match consistency::read(&shared, &domain, &partition, &Entry::Infer(input), query.consistency, manner).await? {
            (Outcome::Answer(answer), staleness) => {
                let latency_ms = started.elapsed().as_secs_f64() * 1e3;
                Ok(AnswerBody { staleness, ..wire::answer_body(answer, latency_ms) })
            }
            (Outcome::Rejected(rejection), _) => Err(rejection.into()),
            _ => Err(Failure::Unexpected),
        }
    };
    respond(&shared, "infer", started, result.await)
}

async fn perceive(
    State(shared): Gateway,
    Address(Path(domain)): Address<Path<String>>,
    urgency: Urgency,
    body: Body,
) -> Response {
    let started = Instant::now();
    let result = async {
        let body = shared.bodies.read(body).await?;
        let signal = wire::parse(&body)?;
        let manner = OnFull::Refuse.at(urgency.or(Priority::Normal));
        finish(&shared, begin_signal(&shared, &domain, signal, manner).await?).await
    };
    respond(&shared, "perceive", started, result.await)
}

/// Checks a signal and sends it; signals that are begun one after the other are learned in that order.
async fn begin_signal(shared: &Shared, domain: &str, body: SignalBody, manner: Manner) -> Result<Begun, Failure> {
    let started = Instant::now();
    let key = checked_key(body.key.as_deref())?;
    if let Some(id) = &body.id {
        wire::check_name("the id", id)?;
    }
    let domain = match shared.domains.find(domain).await? {
        Some(domain) => domain,
        None => {
            wire::signal_input(body.signal.clone(), Task::Patterns)?;
            shared.domains.find_or_declare(domain, || Task::Patterns).await?
        }
    };
    let input = wire::signal_input(body.signal, domain.config.task)?;
    let event = hebb_engine::Event { id: body.id.unwrap_or_else(fresh_id), input, label: None };
    let partition = partition_of(&domain, key.as_deref(), &event.id);
    let sent = shared.dispatcher.send(&partition, Entry::Event(event).encode(), manner).await?;
    Ok(Begun { sent, started })
}

/// An answer of a batch, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum BatchAnswer {
    Answer(AnswerBody),
    Failed(ErrorBody),
}

/// Answers in the order of the signals. Where the signals are for several partitions they are learned at the same time.
async fn perceive_batch(
    State(shared): Gateway,
    Address(Path(domain)): Address<Path<String>>,
    Extension(admitted): Extension<Admitted>,
    urgency: Urgency,
    body: Body,
) -> Response {
    let started = Instant::now();
    let manner = OnFull::Wait.at(urgency.or(Priority::Normal));
    let result = async {
        let body = shared.bodies.read(body).await?;
        let (signals, size) = wire::parse::<BatchBody>(&body)?.checked()?;
        // What is wrong with the domain is wrong with the request, not with each signal.
        shared.domains.find_or_allow(&domain).await?;
        shared.admission.charge(&admitted, signals.len() - 1);
        let (begin, end, domain): (_, _, Arc<str>) = (shared.clone(), shared.clone(), domain.into());
        let answers = stream::iter(signals)
            .then(move |signal| {
                let (shared, domain) = (begin.clone(), domain.clone());
                async move { begin_signal(&shared, &domain, signal, manner).await }
            })
            .map(move |begun| {
                let shared = end.clone();
                async move { finish(&shared, begun?).await }
            })
            .buffered(size)
            .map(|result| match result {
                Ok(answer) => BatchAnswer::Answer(answer),
                Err(failure) => BatchAnswer::Failed(failure.body()),
            });
        Ok(serde_json::json!({ "answers": answers.collect::<Vec<_>>().await }))
    };
    respond(&shared, "perceive-batch", started, result.await)
}

#[derive(Serialize)]
struct FeedbackAnswer {
    id: SmolStr,
    /// `joined`, or `already_labelled` for a retry.
    outcome: &'static str,
}

async fn feedback(
    State(shared): Gateway,
    Address(Path(domain)): Address<Path<String>>,
    urgency: Urgency,
    body: Body,
) -> Response {
    let started = Instant::now();
    // Of many events few get a label, and each of those teaches something.
    let manner = OnFull::Refuse.at(urgency.or(Priority::High));
    let result = async {
        let body = shared.bodies.read(body).await?;
        let body: FeedbackBody = wire::parse(&body)?;
        wire::check_name("the id", &body.id)?;
        let key = checked_key(body.key.as_deref())?;
        let domain = known_domain(&shared, &domain).await?;
        let label = body.label.for_task(domain.config.task)?;
        let partition = partition_of(&domain, key.as_deref(), &body.id);
        let entry = Entry::Feedback { id: body.id.clone(), label };
        match shared.dispatcher.submit(&partition, entry.encode(), manner).await? {
            Outcome::Feedback(FeedbackOutcome::Joined) => Ok(FeedbackAnswer { id: body.id, outcome: "joined" }),
            Outcome::Feedback(FeedbackOutcome::AlreadyLabelled) => {
                Ok(FeedbackAnswer { id: body.id, outcome: "already_labelled" })
            }
            Outcome::Feedback(FeedbackOutcome::Unknown) => Err(Failure::UnknownEvent(body.id.to_string())),
            Outcome::Rejected(rejection) => Err(rejection.into()),
            _ => Err(Failure::Unexpected),
        }
    };
    respond(&shared, "feedback", started, result.await)
}

#[derive(Serialize)]
struct DomainBody {
    name: String,
    task: Task,
    partitions: u32,
}

impl From<Domain> for DomainBody {
    fn from(domain: Domain) -> Self {
        Self { name: domain.name, task: domain.config.task, partitions: domain.partitions }
    }
}

async fn list_domains(State(shared): Gateway) -> Response {
    let domains: Vec<DomainBody> = shared.domains.all().into_iter().map(DomainBody::from).collect();
    Json(serde_json::json!({ "domains": domains })).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainDetail {
    #[serde(flatten)]
    domain: DomainBody,
    /// Distinct events applied.
    events: u64,
    duplicates: u64,
    labels: u64,
    updates: u64,
    rejected: u64,
    drifts: u64,
    /// Nothing where there are no classes, or no labels yet.
    accuracy: Option<f64>,
    /// Wrapping sum of the digests of the applied ids, as hexadecimal digits: see `event_digest`.
    applied_digest: String,
    partition_statistics: Vec<PartitionStatistics>,
}

async fn describe_domain(State(shared): Gateway, Address(Path(name)): Address<Path<String>>) -> Response {
    let started = Instant::now();
    let result = async { described(&shared, known_domain(&shared, &name).await?).await };
    respond(&shared, "describe", started, result.await)
}

/// Reads every partition at one place of its log each: what was appended before is counted.
pub async fn described(shared: &Shared, domain: Domain) -> Result<DomainDetail, Failure> {
    let reads = (0..domain.partitions).map(|index| {
        let partition = PartitionKey { domain: domain.name.clone(), index };
        let entry = Entry::Query(EngineQuery::Statistics).encode();
        async move {
            match shared.dispatcher.submit(&partition, entry, OnFull::Wait).await? {
                Outcome::Statistics(statistics) => Ok(*statistics),
                _ => Err(Failure::Unexpected),
            }
        }
    });
    let partitions = futures::future::try_join_all(reads).await?;
    Ok(detail(domain, partitions))
}

fn detail(domain: Domain, partitions: Vec<Statistics>) -> DomainDetail {
    let sum = |field: fn(&Statistics) -> u64| partitions.iter().map(field).sum::<u64>();
    let labels = sum(|statistics| statistics.labels);
    let correct = sum(|statistics| statistics.correct);
    let task = domain.config.task;
    let digest = partitions.iter().fold(0u64, |digest, statistics| digest.wrapping_add(statistics.applied_digest));
    DomainDetail {
        domain: domain.into(),
        events: sum(|statistics| statistics.events),
        duplicates: sum(|statistics| statistics.duplicates),
        labels,
        updates: sum(|statistics| statistics.updates),
        rejected: sum(|statistics| statistics.rejected),
        drifts: sum(|statistics| statistics.drifts),
        accuracy: (task.has_classes() && labels > 0).then(|| correct as f64 / labels as f64),
        applied_digest: statistics::digest(digest),
        partition_statistics: partitions.into_iter().map(|counted| PartitionStatistics::new(counted, task)).collect(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    key: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordBody {
    id: String,
    applied_at: String,
    prediction: Option<wire::PredictionBody>,
    confidence: f32,
    path: &'static str,
    labelled: bool,
}

async fn event(
    State(shared): Gateway,
    Address(Path((name, id))): Address<Path<(String, String)>>,
    Address(Query(query)): Address<Query<KeyQuery>>,
) -> Response {
    let started = Instant::now();
    let result = async {
        wire::check_name("the id", &id)?;
        let key = checked_key(query.key.as_deref())?;
        let domain = known_domain(&shared, &name).await?;
        let partition = partition_of(&domain, key.as_deref(), &id);
        let entry = Entry::Query(EngineQuery::Event { id: id.as_str().into() }).encode();
        match shared.dispatcher.submit(&partition, entry, OnFull::Refuse).await? {
            Outcome::Event(Some(record)) => Ok(RecordBody {
                id,
                applied_at: record.applied_at.to_string(),
                prediction: record.prediction.map(wire::PredictionBody::from),
                confidence: record.confidence,
                path: wire::path_name(record.path),
                labelled: record.labelled,
            }),
            Outcome::Event(None) => Err(Failure::UnknownEvent(id)),
            _ => Err(Failure::Unexpected),
        }
    };
    respond(&shared, "event", started, result.await)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::health;

    #[test]
    fn every_address_is_documented_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let documented: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let served = routes().into_iter().map(|(path, _)| path).chain(health::PATHS).chain([
            "/metrics",
            "/health/metrics",
            "/health/detailed",
            "/openapi.json",
        ]);
        assert_eq!(documented, served.collect());
    }
}
