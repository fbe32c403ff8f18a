//! The `AlertPolicy` resource. At present its controller validates a policy and says so; nothing is sent yet.

// Every printer column says its type, and the lint takes that for a repetition.
#![allow(clippy::duplicated_attributes)]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::learning_cluster::SecretKeyRef;

/// The indicators that rules may name.
pub const INDICATORS: [&str; 7] = [
    "update_rate",
    "knn_failure_rate",
    "mean_kl_divergence",
    "queue_size",
    "memory_usage_ratio",
    "inference_latency_p99",
    "accuracy",
];

/// What is watched, and who is told. At present the controller validates it and reports `ConfigValid` and `TargetFound`; it
/// doesn't evaluate rules or send messages yet.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "hebb.dev",
    version = "v1alpha1",
    kind = "AlertPolicy",
    plural = "alertpolicies",
    shortname = "ap",
    category = "all",
    category = "hebb",
    namespaced,
    status = "AlertPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "What is watched on LearningClusters, and who is told. At present it is validated only; nothing is sent yet.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='ConfigValid')].status"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.conditions[?(@.type=='TargetFound')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.targetRef) != has(self.targetSelector)", "spec: exactly one of targetRef and targetSelector is needed"))]
pub struct AlertPolicySpec {
    /// The LearningCluster that is watched, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The LearningClusters that are watched, by label, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_selector: Option<TargetSelector>,
    /// What is watched. At most 64.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<AlertRule>,
    /// Which alerts go where, in this order; the first route that matches takes the alert. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub routes: Vec<Route>,
    /// Who is told. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub receivers: Vec<Receiver>,
}

/// A LearningCluster by name.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// LearningClusters by label.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// Labels that they carry, all of them.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// One thing that is watched.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.expr), has(self.anomaly), has(self.trend)].filter(x, x).size() == 1", "spec.rules: a rule has exactly one of expr, anomaly and trend"))]
pub struct AlertRule {
    /// Name of the alert.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Fires while an aggregate passes a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expr: Option<Expression>,
    /// Fires while an indicator is far from what it used to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// Fires while an indicator is on its way past a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// How long it must hold before it fires. Default: 0s.
    #[serde(default = "no_time", rename = "for")]
    pub for_: Duration,
    /// How bad it is. Default: Warning.
    #[serde(default)]
    pub severity: Severity,
    /// Words for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub annotations: BTreeMap<String, String>,
}

fn no_time() -> Duration {
    Duration::from_secs(0)
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

/// An aggregate against a threshold.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expression {
    /// Name of the indicator, for example queue_size.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// How the window's values become one. Default: Avg.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// How far back it looks. Default: 1m.
    #[serde(default = "a_minute")]
    pub window: Duration,
    /// How it compares.
    pub operator: Operator,
    /// What it compares with, in the indicator's unit.
    pub threshold: f64,
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
    /// Name of the indicator.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// Distance from the mean, in standard deviations. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 0.1, max = 100.0))]
    pub z_score: f64,
}

fn two() -> f64 {
    2.0
}

/// On its way past a threshold.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// Name of the indicator.
    #[schemars(length(min = 1, max = 63))]
    pub indicator: String,
    /// How soon it would pass the threshold.
    pub within: Duration,
    /// How it compares.
    pub operator: Operator,
    /// What it compares with, in the indicator's unit.
    pub threshold: f64,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at in working hours.
    #[default]
    Warning,
    /// To be looked at now.
    Critical,
    /// Users are hurt.
    Emergency,
}

/// Which alerts go to a receiver.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Severities that it takes; all where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub severities: Vec<Severity>,
    /// Name of the receiver.
    #[schemars(length(min = 1, max = 63))]
    pub receiver: String,
}

/// Someone who is told.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.webhook), has(self.slack), has(self.log)].filter(x, x).size() == 1", "spec.receivers: a receiver has exactly one of webhook, slack and log"))]
pub struct Receiver {
    /// Name of the receiver.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SecretAddress>,
    /// A Slack channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SecretAddress>,
    /// The operator's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReceiver>,
}

/// An address that is kept in a Secret.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretAddress {
    /// The Secret, in the same namespace, that holds the URL.
    pub url_secret_ref: SecretKeyRef,
}

/// The operator's log.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReceiver {}

/// What is known of an AlertPolicy.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of the policy: Ready, ConfigValid, TargetFound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl AlertPolicySpec {
    /// What is wrong with the policy beyond its schema, each with the place in the object; empty for a good one.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let receivers: BTreeSet<&str> = self.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        for (place, route) in self.routes.iter().enumerate() {
            if !receivers.contains(route.receiver.as_str()) {
                problems.push(format!("spec.routes[{place}].receiver: there is no receiver {:?}", route.receiver));
            }
        }
        for (place, rule) in self.rules.iter().enumerate() {
            let named = [
                ("expr", rule.expr.as_ref().map(|expr| &expr.indicator)),
                ("anomaly", rule.anomaly.as_ref().map(|anomaly| &anomaly.indicator)),
                ("trend", rule.trend.as_ref().map(|trend| &trend.indicator)),
            ];
            for (member, indicator) in named {
                if let Some(indicator) = indicator
                    && !INDICATORS.contains(&indicator.as_str())
                {
                    problems.push(format!(
                        "spec.rules[{place}].{member}.indicator: {indicator:?} is unknown; known are {}",
                        INDICATORS.join(", ")
                    ));
                }
            }
        }
        problems
    }
}
