//! What is done about alerts, and what holds it back.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::receiver::WebhookReceiver;
use super::value::Share;
use crate::duration::Duration;

/// Something that is done while an alert fires. Each run is recorded before it begins, so none runs twice.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.component) == (self.type == 'RestartComponent' || self.type == 'Scale')",
    "spec.actions: component belongs to RestartComponent and Scale, and they need it"
))]
#[x_kube(validation = (
    "has(self.replicas) == (self.type == 'Scale')",
    "spec.actions: replicas belongs to Scale, which needs it"
))]
#[x_kube(validation = (
    "has(self.webhook) == (self.type == 'Webhook')",
    "spec.actions: webhook belongs to the type Webhook, which needs it"
))]
pub struct ActionSpec {
    /// Name of the action.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What is done.
    #[serde(rename = "type")]
    pub type_: ActionType,
    /// Whose pods are restarted or scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Component>,
    /// How many pods there are to be, at least: Scale never makes them fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub replicas: Option<i32>,
    /// The HTTP endpoint that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookReceiver>,
    /// How long it rests on a LearningCluster after a run that succeeded, 1m to 168h. Default: 10m.
    #[serde(default = "ten_minutes")]
    pub cooldown: Duration,
    /// How many times it runs on a LearningCluster until that was healthy for `minHealthyPeriod`. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 20))]
    pub max_retries: i32,
    /// How long it waits after a run that failed, 10s to 24h. Default: 2m.
    #[serde(default = "two_minutes")]
    pub retry_period: Duration,
    /// How long no alert with this action may have fired until its runs are forgotten, 1m to 168h. Default: 1h.
    #[serde(default = "an_hour")]
    pub min_healthy_period: Duration,
    /// How many of the policy's LearningClusters it may be at work on at a time, and with RestartComponent also how many of the
    /// component's pods: a number or a percentage, rounded up. Default: 20%.
    #[serde(default = "a_fifth")]
    pub max_affected: Share,
    /// While what goes on with a LearningCluster it doesn't run. Default: [Upgrade, Suspend].
    #[serde(default = "upgrade_and_suspend")]
    #[schemars(length(max = 2))]
    pub skip_during: Vec<Phase>,
    /// Whether somebody has to agree to each run, by the annotation `hebb.dev/approve: NAME`. Default: Auto.
    #[serde(default)]
    pub approval: Approval,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn three() -> i32 {
    3
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn an_hour() -> Duration {
    Duration::from_secs(3_600)
}

fn a_fifth() -> Share {
    Share::Percent(20)
}

pub(super) fn upgrade_and_suspend() -> Vec<Phase> {
    vec![Phase::Upgrade, Phase::Suspend]
}

impl Default for ActionSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            type_: ActionType::default(),
            component: None,
            replicas: None,
            webhook: None,
            cooldown: ten_minutes(),
            max_retries: three(),
            retry_period: two_minutes(),
            min_healthy_period: an_hour(),
            max_affected: a_fifth(),
            skip_during: upgrade_and_suspend(),
            approval: Approval::default(),
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionType {
    /// Restarts pods of a component, the worst first.
    #[default]
    RestartComponent,
    /// Runs more pods of a component.
    Scale,
    /// Has another server of `redis.mode: Sentinel` or `Cluster` become primary: a primary's pod hands its role over and is
    /// restarted.
    FailoverRedis,
    /// Has meta-learning try every candidate for five cycles.
    BoostExploration,
    /// Has meta-learning forget what it found and begin with the configured parameters; what was learned stays.
    ResetMetaLearning,
    /// Suspends the LearningCluster.
    Suspend,
    /// Calls an HTTP endpoint.
    Webhook,
}

impl ActionType {
    /// The word in a spec.
    pub fn as_str(self) -> &'static str {
        match self {
            ActionType::RestartComponent => "RestartComponent",
            ActionType::Scale => "Scale",
            ActionType::FailoverRedis => "FailoverRedis",
            ActionType::BoostExploration => "BoostExploration",
            ActionType::ResetMetaLearning => "ResetMetaLearning",
            ActionType::Suspend => "Suspend",
            ActionType::Webhook => "Webhook",
        }
    }
}

/// A role of a LearningCluster's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Component {
    /// The API.
    Gateway,
    /// Assignment and status.
    Coordinator,
    /// Learning.
    Worker,
    /// The log's store.
    Redis,
}

/// Something that goes on with a LearningCluster on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Pods are being replaced by those of a new revision.
    Upgrade,
    /// It is suspended.
    Suspend,
}

/// Whether somebody has to agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// Nobody.
    #[default]
    Auto,
    /// To each run.
    Manual,
}
