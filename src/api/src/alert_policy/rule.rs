//! What is watched.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// One thing that is watched.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.expr), has(self.all), has(self.anomaly), has(self.trend), has(self.absence)].filter(x, x).size() == 1",
    "spec.rules: a rule has exactly one of expr, all, anomaly, trend and absence"
))]
pub struct AlertRule {
    /// Name of the alert, its label `alertname`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Fires while an aggregate passes a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expr: Option<Expression>,
    /// Fires while every one of these passes its threshold: 2 to 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8))]
    pub all: Option<Vec<Expression>>,
    /// Fires while an indicator is far from what it used to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// Fires while an indicator is on its way past a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// Fires while an indicator has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
    /// How long it must hold before it fires, at most 24h. Default: 0s.
    #[serde(default, rename = "for")]
    pub for_: Duration,
    /// How long it goes on firing after it held last, at most 24h; keeps an alert from flapping. Default: 0s.
    #[serde(default)]
    pub keep_firing_for: Duration,
    /// What is made of missing data. Default: KeepLast.
    #[serde(default)]
    pub on_no_data: OnNoData,
    /// How bad it is, the alert's label `severity`. Default: Warning.
    #[serde(default)]
    pub severity: Severity,
    /// Labels of the alert besides alertname, cluster, namespace, policy, severity and priority. At most 8, of 63 bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Words for people.
    #[serde(default)]
    pub annotations: Annotations,
    /// Names of the actions that are tried while it fires: the first, and the next one when those before it have run
    /// `maxRetries` times to no avail. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(min = 1, max = 63)))]
    pub actions: Vec<String>,
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 8, "additionalProperties": {"type": "string", "maxLength": 63}})
}

/// An aggregate against a threshold.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expression {
    /// Name of the indicator, with its unit: update_rate (updates per minute), knn_failure_rate (0 to 1), mean_kl_divergence
    /// (nats), queue_size (entries), queue_usage_ratio (0 to 1, of engine.maxQueueSize), memory_usage_ratio (0 to 1),
    /// memory_bytes (bytes), inference_latency_p99 (seconds), latency_p95 (seconds), accuracy (0 to 1, of the worst domain with
    /// at least 100 labels), rejection_rate (0 to 1), acceptance_shortfall (0 to 1, of engine.admission.targetAcceptance), up,
    /// leader_up and redis_up (0 or 1), workers_ready_ratio (0 to 1), restarts (restarts), crash_loops (pods),
    /// continuous_active (0 or 1), learning_velocity (0 to 1), mean_improvement (score per cycle), meta_score (0 to 1),
    /// stuck_phase_seconds (seconds), meta_memory_bytes (bytes), meta_metric_min and meta_metric_max (score).
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// How the window's values become one; Rate is the increase per second, P50 to P99 are percentiles. Default: Avg.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// How far back it looks, at most 24h and 2,880 intervals. Default: 1m.
    #[serde(default = "a_minute")]
    pub window: Duration,
    /// How it compares.
    pub operator: Operator,
    /// What it compares with, in the indicator's unit; per second with Rate, a number of values with Count.
    pub threshold: f64,
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

/// How a window's values become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// Mean.
    #[default]
    Avg,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Sum.
    Sum,
    /// Number of values.
    Count,
    /// Increase per second; a fall is taken for a counter that began again.
    Rate,
    /// 50th percentile.
    P50,
    /// 90th percentile.
    P90,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
}

/// How two numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// Above the threshold.
    GreaterThan,
    /// Below the threshold.
    LessThan,
}

/// Far from what it used to be.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anomaly {
    /// Name of the indicator; `expr.indicator` lists them.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// The past that the newest value is compared with, at most 24h and 2,880 intervals. Default: 1h.
    #[serde(default = "an_hour")]
    pub window: Duration,
    /// Distance from the past's mean, in standard deviations, above or below. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 0.1, max = 100.0))]
    pub z_score: f64,
}

fn two() -> f64 {
    2.0
}

fn an_hour() -> Duration {
    Duration::from_secs(3_600)
}

/// On its way past a threshold, by a straight line through the window.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// Name of the indicator; `expr.indicator` lists them.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// The past that the line is drawn through, at most 24h and 2,880 intervals. Default: 1h.
    #[serde(default = "an_hour")]
    pub window: Duration,
    /// How far ahead it looks, at most 168h. Default: 4h.
    #[serde(default = "four_hours")]
    pub within: Duration,
    /// How it compares.
    pub operator: Operator,
    /// What it compares with, in the indicator's unit.
    pub threshold: f64,
}

fn four_hours() -> Duration {
    Duration::from_secs(4 * 3_600)
}

/// Without a value.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Absence {
    /// Name of the indicator; `expr.indicator` lists them.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// How long it must have been without, at most 24h. Default: 5m.
    #[serde(default = "five_minutes")]
    pub window: Duration,
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// What is made of missing data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    /// As if the rule held.
    Alert,
    /// As if it didn't.
    Ok,
    /// The alert stays as it is.
    #[default]
    KeepLast,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Good to know: P3.
    Info,
    /// To be looked at in working hours: P2.
    #[default]
    Warning,
    /// To be looked at now: P1.
    Critical,
    /// Users are hurt: P0.
    Emergency,
}

impl Severity {
    /// The word in a spec and in the label `severity`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "Info",
            Severity::Warning => "Warning",
            Severity::Critical => "Critical",
            Severity::Emergency => "Emergency",
        }
    }

    /// The priority that on-call tools know it by, the label `priority`.
    pub fn priority(self) -> &'static str {
        match self {
            Severity::Info => "P3",
            Severity::Warning => "P2",
            Severity::Critical => "P1",
            Severity::Emergency => "P0",
        }
    }
}

/// Words for people. They are templates (Jinja): `rule`, `target`, `namespace`, `policy`, `severity`, `priority`, `value`,
/// `threshold`, `window` and `labels` are known, for example `{{ target }}: {{ value|round(1) }} entries`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    /// What is the matter, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub summary: Option<String>,
    /// What it means, in a paragraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub description: Option<String>,
    /// Address of the page that says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub runbook_url: Option<String>,
}
