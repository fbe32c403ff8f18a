//! What is known of a policy and its alerts. Only transitions change it: values of indicators belong in metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::Severity;

/// What is known of an AlertPolicy.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of the policy: Ready, Stalled, ConfigValid, TargetFound, ReceiversHealthy, RemediationExhausted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Number of alerts that fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub firing: Option<i32>,
    /// The worst alerts, firing ones first. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub alerts: Vec<AlertStatus>,
    /// How deliveries to the receivers went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub receivers: Vec<ReceiverStatus>,
    /// How runs of the actions went, the latest of each on any LearningCluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub actions: Vec<ActionStatus>,
}

/// An alert.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// Name of the rule.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// Name of the LearningCluster.
    #[schemars(length(max = 253))]
    pub target: String,
    /// How far it is.
    pub state: AlertState,
    /// Since when it has been in this state.
    pub since: Time,
    /// What it is known by: a digest of policy, rule, target and labels.
    #[schemars(length(max = 16))]
    pub fingerprint: String,
    /// How bad it is.
    pub severity: Severity,
    /// Why nobody is told at present: Silence, Inhibition, Upgrade or Suspend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub muted_by: Option<String>,
}

/// How far an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AlertState {
    /// Its rule holds, but not for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It has ended lately.
    Resolved,
}

/// How deliveries to a receiver went.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverStatus {
    /// Name of the receiver.
    #[schemars(length(max = 63))]
    pub name: String,
    /// When it took a message last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// When it didn't take a message last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_time: Option<Time>,
    /// Why it didn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_failure_reason: Option<String>,
    /// Number of deliveries that failed since the last one that succeeded.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub consecutive_failures: i32,
}

/// How runs of an action went.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// Name of the action.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The LearningCluster of its latest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub target: Option<String>,
    /// When it ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_time: Option<Time>,
    /// Number of runs since that LearningCluster was healthy.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// How the latest run went: Running, Succeeded, Failed and why, Unknown, or DryRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_outcome: Option<String>,
    /// When it may run again at the earliest; missing when it has run too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_allowed_time: Option<Time>,
}
