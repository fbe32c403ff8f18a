//! What stands out and what goes somewhere, over all series at once.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};

use super::api::{Coordinator, FORWARD_TIMEOUT, bad, leading, scope_of};
use super::history::{Bucket, HOURS_MAX, History, Metric, Scope};
use super::{analysis, kept};
use crate::coordinator::Shared;

/// Anomalies of one answer: those that stand out most.
const ANOMALIES_MAX: usize = 100;

/// Which series are looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingsQuery {
    domain: Option<String>,
    node: Option<String>,
    metric: Option<String>,
    hours: Option<f64>,
}

#[derive(Serialize)]
struct Found<T> {
    scope: Scope,
    metric: Metric,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct TrendOf {
    /// The newest value.
    last: f64,
    #[serde(flatten)]
    trend: analysis::Trend,
}

/// `GET /api/v1/history/anomalies`.
pub async fn anomalies(
    State(shared): Coordinator,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<FindingsQuery>, QueryRejection>,
) -> Response {
    let (hours, mut found) = match look(&shared, &uri, &headers, query, analysis::anomalies).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    found.sort_by(|a, b| b.what.z.abs().total_cmp(&a.what.z.abs()));
    found.truncate(ANOMALIES_MAX);
    Json(serde_json::json!({ "hours": hours, "threshold": analysis::ANOMALY_Z, "anomalies": found })).into_response()
}

/// `GET /api/v1/history/trends`.
pub async fn trends(
    State(shared): Coordinator,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<FindingsQuery>, QueryRejection>,
) -> Response {
    let trend_of = |metric, buckets: &[Bucket]| {
        let trend = analysis::trend(metric, buckets);
        trend.zip(buckets.last()).map(|(trend, last)| TrendOf { last: last.value(metric), trend })
    };
    match look(&shared, &uri, &headers, query, trend_of).await {
        Ok((hours, found)) => Json(serde_json::json!({ "hours": hours, "trends": found })).into_response(),
        Err(response) => response,
    }
}

async fn look<T, F: IntoIterator<Item = T>>(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    query: Result<Query<FindingsQuery>, QueryRejection>,
    finds: impl Fn(Metric, &[Bucket]) -> F,
) -> Result<(f64, Vec<Found<T>>), Response> {
    leading(shared, uri, headers, FORWARD_TIMEOUT).await?;
    let Query(query) = query.map_err(|why| bad(format!("the query is not what this endpoint takes: {why}")))?;
    let hours = query.hours.unwrap_or(1.0);
    if !(hours > 0.0 && hours <= HOURS_MAX) {
        return Err(bad(format!("hours has to be more than 0 and at most {HOURS_MAX}")));
    }
    let metric = match &query.metric {
        Some(name) => Some(Metric::of(name).ok_or_else(|| bad(format!("there is no metric {name:?}")))?),
        None => None,
    };
    let scope = scope_of(query.domain, query.node).map_err(bad)?;
    let state = shared.board.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let wanted =
        |of: &(Scope, Metric)| (scope == Scope::Cluster || of.0 == scope) && metric.is_none_or(|metric| of.1 == metric);
    Ok((hours, find(&state.history, kept::now(), hours, wanted, finds)))
}

fn find<T, F: IntoIterator<Item = T>>(
    history: &History,
    now: u32,
    hours: f64,
    wanted: impl Fn(&(Scope, Metric)) -> bool,
    finds: impl Fn(Metric, &[Bucket]) -> F,
) -> Vec<Found<T>> {
    let mut found = Vec::new();
    for (scope, metric) in history.names().filter(|name| wanted(name)) {
        let Some(extract) = history.extract(now, scope.clone(), *metric, hours) else { continue };
        let of = |what| Found { scope: scope.clone(), metric: *metric, what };
        found.extend(finds(*metric, &extract.buckets).into_iter().map(of));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_are_looked_at_and_only_the_wanted_ones_are_told_of() {
        let mut history = History::default();
        for step in 0..60u32 {
            let spike = if step == 30 { 900.0 } else { 1.0 };
            history.put(step * 10, Scope::Cluster, Metric::Lag, Some(spike));
            history.put(step * 10, Scope::Domain("a".to_owned()), Metric::Patterns, Some(f64::from(step)));
        }
        let all = |_: &(Scope, Metric)| true;
        let anomalies = find(&history, 600, 1.0, all, analysis::anomalies);
        let told: Vec<_> = anomalies.iter().map(|found| (&found.scope, found.metric, found.what.at)).collect();
        assert_eq!(told, [(&Scope::Cluster, Metric::Lag, 300)]);
        let trends = find(&history, 600, 1.0, |(_, metric)| *metric == Metric::Patterns, analysis::trend);
        assert_eq!((trends.len(), trends[0].what.direction), (1, analysis::Direction::Rising));
        assert!((trends[0].what.per_hour - 360.0).abs() < 1e-6);
    }
}
