//! `hebb history`: what a running process or cluster has measured, for as long as a week.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::ask::{Api, AskError, Peer};
use crate::cli::Outcome;
use crate::node::runtime;
use crate::output::{http_url, print, print_line, table};

#[derive(Args)]
pub struct Options {
    /// What was measured, for example events_per_second; without it, the series that there are
    metric: Option<String>,
    /// Of a domain instead of the cluster
    #[arg(long, conflicts_with = "node")]
    domain: Option<String>,
    /// Of a node instead of the cluster
    #[arg(long)]
    node: Option<String>,
    /// How far back, in hours; at most 168, and 24 for --anomalies and --trends
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// Seconds of a point; at least the 10 or 300 by which it was measured
    #[arg(long)]
    step: Option<u32>,
    /// What stands out by a z-score of 2 or more, of all series that match
    #[arg(long, conflicts_with_all = ["trends", "step"])]
    anomalies: bool,
    /// Where the series that match go
    #[arg(long, conflicts_with = "step")]
    trends: bool,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Address of a coordinator
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "HEBB_COORDINATOR", value_parser = http_url)]
    url: String,
    /// Token of the internal endpoints, where the cluster has one
    #[arg(long, env = "HEBB_INTERNAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// A coordinator that reads a week out of its store needs a second or two.
const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Series {
    resolution_seconds: u32,
    points: Vec<(u32, f64, f64, f64, u64)>,
    summary: Value,
    trend: Value,
}

pub fn run(options: Options) -> Outcome {
    let body = runtime()?.block_on(ask(&options))?;
    if matches!(options.output, Output::Json) {
        return print_line(serde_json::to_string_pretty(&body)?);
    }
    let text = if options.anomalies {
        rows(&body["anomalies"], &["at", "scope", "metric", "value", "z"])
    } else if options.trends {
        rows(&body["trends"], &["scope", "metric", "direction", "last", "per_hour", "in_an_hour", "r2"])
    } else if options.metric.is_none() {
        rows(&body["series"], &["scope", "metric"])
    } else {
        points(&serde_json::from_value(body)?)
    };
    print(text)
}

async fn ask(options: &Options) -> Result<Value, AskError> {
    let path: &[&str] = match (options.anomalies, options.trends) {
        (true, _) => &["api", "v1", "history", "anomalies"],
        (_, true) => &["api", "v1", "history", "trends"],
        _ => &["api", "v1", "history"],
    };
    let (hours, step) = (Some(options.hours.to_string()), options.step.map(|step| step.to_string()));
    let named = [
        ("hours", &hours),
        ("metric", &options.metric),
        ("domain", &options.domain),
        ("node", &options.node),
        ("step", &step),
    ];
    let query: Vec<(&str, &str)> =
        named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    Api::new(Peer::Coordinator, &options.url, options.token.as_deref(), DEADLINE)?.get(path, &query).await
}

fn points(series: &Series) -> String {
    let mut lines = vec![["TIME", "VALUE", "MIN", "MAX", "SAMPLES"].map(str::to_owned).to_vec()];
    for (at, value, min, max, count) in &series.points {
        lines.push(vec![time(f64::from(*at)), number(*value), number(*min), number(*max), count.to_string()]);
    }
    let mut text = table(&lines);
    let told = |of: &Value, name: &str| of[name].as_f64().map_or_else(|| "-".to_owned(), number);
    let summary: Vec<String> = ["min", "avg", "max", "stddev", "p50", "p95", "p99"]
        .iter()
        .map(|name| format!("{name} {}", told(&series.summary, name)))
        .collect();
    text.push_str(&format!(
        "\n{} points of {} s: {}\n",
        series.points.len(),
        series.resolution_seconds,
        summary.join(", ")
    ));
    if let Some(direction) = series.trend["direction"].as_str() {
        let (per_hour, later) = (told(&series.trend, "per_hour"), told(&series.trend, "in_an_hour"));
        text.push_str(&format!("{direction}: {per_hour} an hour, {later} in an hour\n"));
    }
    text
}

/// A list of objects as a table; a time as such, and a scope in one word.
fn rows(list: &Value, columns: &[&str]) -> String {
    let mut lines = vec![columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>()];
    for one in list.as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|column| cell(column, &one[*column])).collect());
    }
    table(&lines)
}

fn cell(column: &str, value: &Value) -> String {
    match value {
        Value::Number(at) if column == "at" => time(at.as_f64().unwrap_or(0.0)),
        Value::Number(one) => number(one.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Object(scope) => scope
            .iter()
            .map(|(kind, name)| format!("{kind} {}", name.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

fn time(at: f64) -> String {
    Timestamp::from_second(at as i64).map(|at| at.to_string()).unwrap_or_default()
}

/// Four figures are what a person reads.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_found_is_a_table() {
        let list = json!([
            { "at": 0, "scope": "cluster", "metric": "lag", "value": 1234.5, "z": -2.345 },
            { "at": 10, "scope": { "domain": "a" }, "metric": "accuracy", "value": 0.12345, "z": 3 },
        ]);
        let text = rows(&list, &["at", "scope", "metric", "value", "z"]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split("   ").map(str::trim).collect()).collect();
        assert_eq!(
            lines[1].iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>(),
            ["1970-01-01T00:00:00Z", "cluster", "lag", "1234", "-2.35"]
        );
        assert!(lines[2].contains(&"domain a") && lines[2].contains(&"0.1235"), "{text}");
    }

    #[test]
    fn a_series_ends_with_what_it_tells() {
        let series = Series {
            resolution_seconds: 10,
            points: vec![(0, 2.0, 1.0, 3.0, 5)],
            summary: json!({ "min": 1.0, "avg": 2.0, "max": 3.0, "stddev": 0.0, "p50": 2.0, "p95": 2.0, "p99": 2.0 }),
            trend: json!({ "direction": "rising", "per_hour": 0.5, "in_an_hour": 2.5 }),
        };
        let text = points(&series);
        assert!(text.ends_with("rising: 0.5000 an hour, 2.50 in an hour\n"), "{text}");
        assert!(text.contains("1 points of 10 s: min 1, avg 2, max 3"), "{text}");
    }
}
