//! Asks the coordinator.

use std::collections::BTreeMap;
use std::time::Duration;

use hebb_engine::Task;
use hebb_node::coordinator::{DomainStatus, Overview, foremost};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::forward::Target;
use crate::ask::{Api, AskError, Peer};

/// A coordinator answers within this time or not at all.
const DEADLINE: Duration = Duration::from_secs(5);
/// Domains whose history is asked for, besides the one that is opened.
const HISTORIES_MAX: usize = 24;

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The cluster, once it was seen.
    pub overview: Option<Overview>,
    /// How well each domain did over the last hour, oldest first.
    pub histories: BTreeMap<String, Vec<Point>>,
    /// Why the last look failed.
    pub trouble: Option<String>,
}

/// A bucket of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub at: f64,
    /// The value of the domain's main metric.
    pub value: f64,
    /// Whether a drift was detected.
    pub drift: bool,
}

/// A cluster in a few numbers, for scripts.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    at: u32,
    leader: String,
    term: u64,
    workers: usize,
    restarts: u32,
    partitions: usize,
    unowned: u64,
    lag: u64,
    events: u64,
    events_per_second: Option<f64>,
    answer_p99_seconds: Option<f64>,
    domains: Vec<DomainSummary>,
}

#[derive(Debug, PartialEq, Serialize)]
struct DomainSummary {
    name: String,
    task: Task,
    events: u64,
    events_per_second: Option<f64>,
    labels: u64,
    accuracy: Option<f64>,
    recent_accuracy: Option<f64>,
    log_loss: Option<f64>,
    mean_absolute_error: Option<f64>,
    patterns: Option<u64>,
    drifts: u64,
    lag: u64,
}

#[derive(Deserialize)]
struct History {
    points: Vec<(u32, f64, f32, f32, u16)>,
}

/// A client of one coordinator.
pub struct Source {
    api: Api,
    last: std::sync::Mutex<Snapshot>,
}

impl Source {
    /// A client that asks this target.
    ///
    /// # Errors
    /// An HTTP client that can't be made.
    pub fn new(target: &Target) -> Result<Self, AskError> {
        let api = Api::new(Peer::Coordinator, target.url(), target.token(), DEADLINE)?;
        Ok(Self { api, last: std::sync::Mutex::default() })
    }

    /// The cluster in a few numbers.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn summary(&self) -> Result<Summary, AskError> {
        Ok(summarise(&self.api.get(&["api", "v1", "overview"], &[]).await?))
    }

    /// Looks anew; what can't be seen stays as it was seen last.
    pub async fn look(&self, opened: Option<&str>) -> Snapshot {
        let mut look = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match self.see(opened).await {
            Ok((overview, histories)) => {
                look = Snapshot { overview: Some(overview), histories, trouble: None };
            }
            Err(error) => look.trouble = Some(crate::output::with_causes(&error)),
        }
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = look.clone();
        look
    }

    async fn see(&self, opened: Option<&str>) -> Result<(Overview, BTreeMap<String, Vec<Point>>), AskError> {
        let overview: Overview = self.api.get(&["api", "v1", "overview"], &[]).await?;
        let mut wanted = foremost(&overview.status.domains, HISTORIES_MAX);
        if !wanted.iter().any(|domain| opened == Some(domain.name.as_str())) {
            wanted.extend(overview.status.domains.iter().find(|domain| opened == Some(domain.name.as_str())));
        }
        let mut histories = BTreeMap::new();
        for domain in wanted {
            let values = self.history(&domain.name, main_metric(domain)).await?;
            let drifts = if domain.drifts > 0 { self.history(&domain.name, "drifts").await? } else { Vec::new() };
            let drifted: Vec<u32> = drifts.iter().filter(|(_, count)| *count > 0.0).map(|(at, _)| *at).collect();
            let points = values.into_iter().map(|(at, value)| Point {
                at: f64::from(at),
                value,
                drift: drifted.binary_search(&at).is_ok(),
            });
            histories.insert(domain.name.clone(), points.collect());
        }
        Ok((overview, histories))
    }

    async fn history(&self, domain: &str, metric: &str) -> Result<Vec<(u32, f64)>, AskError> {
        let query = [("domain", domain), ("metric", metric), ("hours", "1")];
        match self.api.get::<History>(&["api", "v1", "history"], &query).await {
            Ok(history) => Ok(history.points.into_iter().map(|(at, value, ..)| (at, value)).collect()),
            // Nothing was measured yet.
            Err(AskError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// What tells best how a domain does.
pub fn main_metric(domain: &DomainStatus) -> &'static str {
    match domain.task {
        Task::Classification | Task::TimeSeriesClassification => "recent_accuracy",
        Task::Regression => "mean_absolute_error",
        Task::Patterns => "patterns",
        Task::Governed => "events_per_second",
    }
}

fn summarise(overview: &Overview) -> Summary {
    let status = &overview.status;
    let domains = status.domains.iter().map(|domain| {
        let detail = overview.details.get(&domain.name).cloned().unwrap_or_default();
        DomainSummary {
            name: domain.name.clone(),
            task: domain.task,
            events: domain.events,
            events_per_second: detail.events_per_second,
            labels: domain.labels,
            accuracy: domain.accuracy,
            recent_accuracy: domain.recent_accuracy,
            log_loss: domain.log_loss,
            mean_absolute_error: domain.mean_absolute_error,
            patterns: domain.patterns,
            drifts: domain.drifts,
            lag: domain.lag,
        }
    });
    Summary {
        at: overview.at,
        leader: status.leader.clone(),
        term: status.term,
        workers: status.workers.len(),
        restarts: overview.nodes.iter().map(|node| node.restarts).sum(),
        partitions: status.domains.iter().map(|domain| domain.partitions.len()).sum(),
        unowned: status.unowned,
        lag: status.lag,
        events: status.domains.iter().map(|domain| domain.events).sum(),
        events_per_second: overview.events_per_second,
        answer_p99_seconds: status.answer_p99_seconds,
        domains: domains.collect(),
    }
}
