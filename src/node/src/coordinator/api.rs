//! The coordinator's API: `GET /api/v1/status` and `/metrics`. A follower forwards the status to the leader.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hebb_api::acceptance_shortfall;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntGauge, Opts, Registry};

use super::{ClusterStatus, CoordinatorOptions, DomainStatus, Shared, foremost, leader, meta};
use crate::gateway::{ErrorBody, bearer_matches, expose, families};

/// How long the leader's answer is waited for.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Domains that metrics tell of by name, twelve series each: undeclared ones appear at a client's wish.
const DOMAINS_TOLD: usize = 200;

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
    expose(measured(&shared))
}

/// What `/metrics` shows.
pub fn measured(shared: &Shared) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let (leads, status) = {
        let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
        (view.leads, view.status.clone())
    };
    families(&gather(leads, status.as_ref(), shared.board.events_per_second(), &shared.options)?)
}

fn gather(
    leads: bool,
    status: Option<&ClusterStatus>,
    throughput: Option<f64>,
    options: &CoordinatorOptions,
) -> Result<Registry, prometheus::Error> {
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
        let patterns = status.domains.iter().filter_map(|domain| domain.patterns).sum::<u64>() as i64;
        gauge("patterns_discovered", "Patterns in the libraries, of all domains of signals", patterns)?;
        let applied = Gauge::new("throughput_per_sec", "Events applied a second, between the last two looks")?;
        applied.set(throughput.unwrap_or(0.0));
        registry.register(Box::new(applied))?;
        tell_of_domains(&registry, &status.domains, options.max_queue_size, options.target_acceptance)?;
        let meta = GaugeVec::new(Opts::new("hebb_meta_learning", "Indicators of meta-learning"), &["indicator"])?;
        for (name, value) in &status.meta {
            meta.with_label_values(&[name]).set(*value);
        }
        registry.register(Box::new(meta))?;
    }
    Ok(registry)
}

/// Of more than [`DOMAINS_TOLD`] domains the foremost are told of, and how many the others are.
fn tell_of_domains(
    registry: &Registry,
    domains: &[DomainStatus],
    max_queue_size: u64,
    target_acceptance: f64,
) -> Result<(), prometheus::Error> {
    let told = foremost(domains, DOMAINS_TOLD);
    let unnamed = IntGauge::new("hebb_unnamed_domains", "Domains beyond those that have series of their own")?;
    unnamed.set((domains.len() - told.len()) as i64);
    registry.register(Box::new(unnamed))?;
    let gauge = |name: &str, help: &str, value: &dyn Fn(&DomainStatus) -> Option<f64>| {
        let gauge = GaugeVec::new(Opts::new(name, help), &["domain"])?;
        for domain in &told {
            if let Some(value) = value(domain) {
                gauge.with_label_values(&[&domain.name]).set(value);
            }
        }
        registry.register(Box::new(gauge))
    };
    gauge("hebb_domain_events", "Distinct events applied", &|domain| Some(domain.events as f64))?;
    gauge("hebb_domain_labels", "Labels seen", &|domain| Some(domain.labels as f64))?;
    gauge("hebb_domain_drifts", "Drifts detected", &|domain| Some(domain.drifts as f64))?;
    let help = "Share of the look-ups of neighbours that found none";
    gauge("hebb_domain_knn_failure_rate", help, &|domain| domain.knn_failure_rate)?;
    let help = "Divergence of the recent answers from the usual ones, in nats";
    gauge("hebb_domain_kl_divergence", help, &|domain| domain.kl_divergence)?;
    gauge("hebb_domain_lag", "Entries appended and not yet applied", &|domain| Some(domain.lag as f64))?;
    let help = "Entries that wait in the fullest partition, of engine.maxQueueSize";
    gauge("hebb_domain_queue_usage_ratio", help, &|domain| {
        domain.partitions.iter().map(|partition| partition.lag as f64 / max_queue_size as f64).max_by(f64::total_cmp)
    })?;
    let help = "How far acceptance is below engine.admission.targetAcceptance, as a share of it";
    gauge("hebb_domain_acceptance_shortfall", help, &|domain| {
        domain.rejection_rate.map(|rate| acceptance_shortfall(rate, target_acceptance))
    })?;
    let help = "Mean log-loss of all labels, in nats, of classification";
    gauge("hebb_domain_log_loss", help, &|domain| domain.log_loss)?;
    let help = "Mean absolute error of all labels, of regression";
    gauge("hebb_domain_mean_absolute_error", help, &|domain| domain.mean_absolute_error)?;
    let help = "Patterns in the libraries, of signals";
    gauge("hebb_domain_patterns", help, &|domain| domain.patterns.map(|patterns| patterns as f64))?;
    let help = "Share of right answers among the last thousand or so, of classification";
    gauge("hebb_domain_recent_accuracy", help, &|domain| domain.recent_accuracy)
}

#[cfg(test)]
mod tests {
    use hebb_engine::Task;

    use super::*;
    use crate::coordinator::PartitionView;

    #[test]
    fn metrics_name_as_many_domains_as_a_scrape_bears() {
        let domain = |number: usize| DomainStatus {
            name: format!("d{number}"),
            task: Task::Classification,
            declared: number == 7,
            events: if number == 8 { 9 } else { 3 } - u64::from(number == 7),
            labels: 2,
            learned: 2,
            accuracy: Some(0.5),
            recent_accuracy: (number == 7).then_some(0.5),
            log_loss: None,
            mean_absolute_error: (number == 8).then_some(0.5),
            patterns: None,
            knn_failure_rate: None,
            kl_divergence: None,
            rejection_rate: (number == 7).then_some(0.8),
            drifts: 0,
            lag: 460,
            partitions: [10, 450]
                .map(|lag| PartitionView { index: 0, owner: None, epoch: 1, lag, state_bytes: 0, learned: None })
                .to_vec(),
        };
        let registry = Registry::new();
        // The declared one has the fewest events and, of so many, neither the first name nor the first place.
        tell_of_domains(&registry, &(0..DOMAINS_TOLD + 9).rev().map(domain).collect::<Vec<_>>(), 500, 0.4).unwrap();
        let values = |name: &str| -> Vec<f64> {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            family.map_or(Vec::new(), |family| {
                family.get_metric().iter().map(|one| one.get_gauge().get_value()).collect()
            })
        };
        assert_eq!(values("hebb_domain_events").len(), DOMAINS_TOLD);
        assert_eq!(values("hebb_domain_recent_accuracy"), [0.5], "the declared one; what isn't known isn't told");
        assert_eq!(values("hebb_domain_mean_absolute_error"), [0.5], "the one with most events");
        assert_eq!(values("hebb_unnamed_domains"), [9.0]);
        assert_eq!(values("hebb_domain_queue_usage_ratio")[0], 0.9, "the fullest partition, and not the sum of both");
        assert!(matches!(values("hebb_domain_acceptance_shortfall")[..], [value] if (value - 0.5).abs() < 1e-9));
    }
}
