//! The `AlertPolicy` resource: what is watched, who is told, and what is done about it.

// Every printer column says its type, and the lint takes that for a repetition.
#![allow(clippy::duplicated_attributes)]

mod action;
mod indicator;
mod problems;
mod receiver;
mod route;
mod rule;
mod status;
mod value;

use std::collections::BTreeMap;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use action::{ActionSpec, ActionType, Approval, Component, Phase};
pub use indicator::{ACCURACY_LABELS_MIN, INDICATORS, Indicator, acceptance_shortfall, indicator_named};
pub use problems::{RESERVED_LABELS, SAMPLES_MAX};
pub use receiver::{
    DiscordReceiver, EmailReceiver, EmailSecurity, EventReceiver, FileReceiver, LogReceiver, PagerDutyReceiver,
    Receiver, SlackReceiver, WebhookReceiver,
};
pub use route::{InhibitRule, MatchType, Matcher, Route, Silence, TimeInterval, TimeRange, Weekday};
pub use rule::{
    Absence, Aggregation, AlertRule, Annotations, Anomaly, Expression, OnNoData, Operator, Severity, Trend,
};
pub use status::{ActionStatus, AlertPolicyStatus, AlertState, AlertStatus, ReceiverStatus};
pub use value::{Share, TimeOfDay, ValueError};

use crate::duration::Duration;

/// What is watched, who is told, and what is done about it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    doc = "What is watched on LearningClusters, who is told, and what is done about it.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Firing", type_ = "integer", json_path = ".status.firing"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Receivers",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='ReceiversHealthy')].status"
    ),
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
    /// Whether alerts are told and acted on. Default: Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// How often the rules are evaluated, 5s to 1h. Default: 15s.
    #[serde(default = "fifteen_seconds")]
    pub interval: Duration,
    /// What is watched. At most 64.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<AlertRule>,
    /// Which alerts go where. They are tried in this order; the first that matches takes the alert, and those after it are
    /// tried only if it says `continue`. An alert that no route takes is shown in the status and told to nobody. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub routes: Vec<Route>,
    /// Who is told. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub receivers: Vec<Receiver>,
    /// Which alerts make others not worth telling. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub inhibit_rules: Vec<InhibitRule>,
    /// Hours of the week that routes refer to. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub time_intervals: Vec<TimeInterval>,
    /// Alerts that are told to nobody for a while. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub silences: Vec<Silence>,
    /// What can be done about alerts. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub actions: Vec<ActionSpec>,
    /// While what goes on with a LearningCluster its alerts are told to nobody. Default: [Upgrade, Suspend].
    #[serde(default = "action::upgrade_and_suspend")]
    #[schemars(length(max = 2))]
    pub mute_during: Vec<Phase>,
    /// How long a receiver isn't told the same again: a message of the same severity and title, without an alert that it didn't
    /// know and without an end in between, at most 24h. A route's `repeatInterval` goes before it where it is shorter.
    /// Default: 1h.
    #[serde(default = "an_hour")]
    pub dedup_interval: Duration,
}

fn fifteen_seconds() -> Duration {
    Duration::from_secs(15)
}

fn an_hour() -> Duration {
    Duration::from_secs(3_600)
}

impl Default for AlertPolicySpec {
    fn default() -> Self {
        Self {
            target_ref: None,
            target_selector: None,
            mode: Mode::default(),
            interval: fifteen_seconds(),
            rules: Vec::new(),
            routes: Vec::new(),
            receivers: Vec::new(),
            inhibit_rules: Vec::new(),
            time_intervals: Vec::new(),
            silences: Vec::new(),
            actions: Vec::new(),
            mute_during: action::upgrade_and_suspend(),
            dedup_interval: an_hour(),
        }
    }
}

/// Whether alerts are told and acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// They are told and acted on.
    #[default]
    Enforce,
    /// They are told, and nothing is done.
    NotifyOnly,
    /// Rules are evaluated, and what would be told and done is written to the log and in Events.
    DryRun,
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
