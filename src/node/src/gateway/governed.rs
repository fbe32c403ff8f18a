//! Governed memory: `POST /event` offers a vector with what it is worth, `GET /state` tells what became of all of them.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use hebb_engine::{
    Admission, Entry, Event, Features, GovernorState, Input, Label, Outcome, Phase, Query as Ask, Rhythm, SmolStr,
    Task, Thresholds,
};
use hebb_log::{Domain, PartitionKey};
use prometheus::{Gauge, IntCounter, Registry};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::dispatch::OnFull;
use super::domains::partition_of;
use super::http::{fresh_id, known_domain, respond};
use super::priority::{Priority, Urgency};
use super::reply::{Address, Failure};
use super::wire::{self, WireError};

/// The domain where none is named.
const DOMAIN: &str = "governed";
/// Numbers of a vector; the engine's bound.
const WIDTH_MAX: usize = 4_096;

/// What this gateway has seen of it.
pub struct GovernedMetrics {
    total: IntCounter,
    accepted: IntCounter,
    rejected: IntCounter,
    threshold: Gauge,
}

impl GovernedMetrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let total = IntCounter::new("total_events_processed", "Vectors that were judged")?;
        let accepted = IntCounter::new("accepted_events_count", "Vectors that were accepted")?;
        let rejected = IntCounter::new("rejected_events_count", "Vectors that were rejected")?;
        let threshold = Gauge::new("moral_filter_threshold", "The threshold of the latest verdict, 0 to 1")?;
        for counter in [&total, &accepted, &rejected] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(threshold.clone()))?;
        Ok(Self { total, accepted, rejected, threshold })
    }

    fn judged(&self, admission: &Admission) {
        let Some(verdict) = &admission.verdict else { return };
        self.total.inc();
        if verdict.accepted {
            self.accepted.inc()
        } else {
            self.rejected.inc()
        }
        self.threshold.set(verdict.threshold);
    }
}

/// The body of `POST /event`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, domain, vector and moral_value")]
struct VectorBody {
    /// Names the event, which makes a retry safe; given by the gateway when absent.
    id: Option<SmolStr>,
    /// The domain; `governed` when absent.
    domain: Option<String>,
    vector: Vec<f64>,
    /// What it is worth, 0 to 1.
    moral_value: f64,
}

impl VectorBody {
    fn checked(self) -> Result<(String, Event), WireError> {
        if let Some(id) = &self.id {
            wire::check_name("the id", id)?;
        }
        let found = self.vector.len();
        if found == 0 {
            return Err(WireError::Unfit("vector is empty".to_owned()));
        }
        if found > WIDTH_MAX {
            return Err(WireError::TooLarge { what: "vector", unit: "numbers", found, max: WIDTH_MAX });
        }
        for (place, number) in self.vector.iter().enumerate() {
            wire::in_range(*number, || format!("number {place} of the vector"))?;
        }
        if !(0.0..=1.0).contains(&self.moral_value) {
            return Err(WireError::Unfit(format!("moral_value is {}, and has to be from 0 to 1", self.moral_value)));
        }
        let input = Input::Features(Features::Dense(self.vector));
        let id = self.id.unwrap_or_else(fresh_id);
        let event = Event { id, input, label: Some(Label::Number(self.moral_value)) };
        Ok((self.domain.unwrap_or_else(|| DOMAIN.to_owned()), event))
    }
}

/// The answer to `POST /event`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictBody {
    id: SmolStr,
    accepted: bool,
    duplicate: bool,
    /// Nothing of a duplicate, as the threshold.
    phase: Option<Phase>,
    threshold: Option<f64>,
    latency_ms: f64,
}

pub async fn event(State(shared): State<Arc<Shared>>, urgency: Urgency, body: Body) -> Response {
    let started = Instant::now();
    let manner = OnFull::Refuse.at(urgency.or(Priority::Normal));
    let result = async {
        let body = shared.bodies.read(body).await?;
        let (name, event) = wire::parse::<VectorBody>(&body)?.checked()?;
        let domain = governed(shared.domains.find_or_declare(&name, || Task::Governed).await?)?;
        let partition = partition_of(&domain, None, &event.id);
        match shared.dispatcher.submit(&partition, Entry::Event(event).encode(), manner).await? {
            Outcome::Admission(admission) => {
                shared.metrics.governed.judged(&admission);
                Ok(VerdictBody {
                    phase: admission.verdict.map(|verdict| verdict.phase),
                    threshold: admission.verdict.map(|verdict| verdict.threshold),
                    id: admission.id,
                    accepted: admission.accepted,
                    duplicate: admission.duplicate,
                    latency_ms: started.elapsed().as_secs_f64() * 1e3,
                })
            }
            Outcome::Rejected(rejection) => Err(rejection.into()),
            _ => Err(Failure::Unexpected),
        }
    };
    respond(&shared, "event", started, result.await)
}

fn governed(domain: Domain) -> Result<Domain, WireError> {
    if domain.config.task == Task::Governed {
        return Ok(domain);
    }
    Err(WireError::Unfit(format!(
        "the domain {} is a {:?} domain and no governed memory",
        domain.name, domain.config.task
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateQuery {
    domain: Option<String>,
}

/// The answer to `GET /state`: sums over the partitions, and each of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateBody {
    domain: String,
    /// The phase of the first partition, and the mean threshold.
    pub phase: Phase,
    pub threshold: f64,
    pub accepted: u64,
    pub rejected: u64,
    pub vectors: u64,
    pub capacity: u64,
    pub bytes: u64,
    /// Of the first partition: all are told the same.
    rhythm: Rhythm,
    admission: Thresholds,
    partitions: Vec<GovernorState>,
}

pub async fn state(State(shared): State<Arc<Shared>>, Address(Query(query)): Address<Query<StateQuery>>) -> Response {
    let started = Instant::now();
    let domain = query.domain.as_deref().unwrap_or(DOMAIN);
    let result = async { ask(&shared, known_domain(&shared, domain).await?).await };
    respond(&shared, "state", started, result.await)
}

/// The state of the memory that is asked for where none is named.
pub async fn look(shared: &Shared) -> Result<StateBody, Failure> {
    ask(shared, known_domain(shared, DOMAIN).await?).await
}

async fn ask(shared: &Shared, domain: Domain) -> Result<StateBody, Failure> {
    let domain = governed(domain)?;
    let asked = (0..domain.partitions).map(|index| {
        let partition = PartitionKey { domain: domain.name.clone(), index };
        async move {
            match shared.dispatcher.submit(&partition, Entry::Query(Ask::Governor).encode(), OnFull::Wait).await? {
                Outcome::Governor(state) => Ok(*state),
                _ => Err(Failure::Unexpected),
            }
        }
    });
    let partitions = futures::future::try_join_all(asked).await?;
    let sum = |field: fn(&GovernorState) -> u64| partitions.iter().map(field).sum::<u64>();
    Ok(StateBody {
        phase: partitions.first().map_or(Phase::Wake, |state| state.phase),
        threshold: partitions.iter().map(|state| state.threshold).sum::<f64>() / partitions.len().max(1) as f64,
        accepted: sum(|state| state.accepted),
        rejected: sum(|state| state.rejected),
        vectors: sum(|state| state.vectors),
        capacity: sum(|state| state.capacity),
        bytes: sum(|state| state.bytes),
        rhythm: partitions.first().map(|state| state.rhythm).unwrap_or_default(),
        admission: partitions.first().map(|state| state.admission).unwrap_or_default(),
        domain: domain.name,
        partitions,
    })
}
