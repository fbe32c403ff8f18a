//! Coordinators and workers, and how many there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PodTemplate;
use crate::duration::Duration;

/// Assignment, status and leadership.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CoordinatorSpec {
    /// Number of pods; one leads. Default: 3.
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for CoordinatorSpec {
    fn default() -> Self {
        Self { replicas: 3, pod_template: PodTemplate::default() }
    }
}

/// The pods that own partitions and learn.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.drainTimeout) >= duration('1s') && duration(self.drainTimeout) <= duration('1h')",
    "message": "spec.workers.drainTimeout: must be between 1s and 1h",
}]))]
pub struct WorkersSpec {
    /// Number of pods; `kubectl scale` sets it. With an autoscaling strategy it is only what a new cluster begins with.
    /// Default: 2.
    #[schemars(range(min = 0, max = 500))]
    pub replicas: i32,
    /// Who decides the number of pods, and how. Without it `replicas` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// How long a worker that leaves may take to checkpoint what it owns, 1s to 1h. Default: 60s.
    pub drain_timeout: Duration,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            autoscaling: None,
            drain_timeout: Duration::from_secs(60),
            pod_template: PodTemplate::default(),
        }
    }
}

/// Who decides the number of workers, and how.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "spec.workers.autoscaling: minReplicas must not be above maxReplicas",
}]))]
pub struct AutoscalingSpec {
    /// `Queue`: entries that wait to be applied, divided by `queueDepthPerWorker`. `Hpa`: a HorizontalPodAutoscaler that Hebb
    /// makes, on processor time. `None`: `spec.workers.replicas`. Default: Queue.
    pub strategy: ScalingStrategy,
    /// Fewest workers. Default: 2.
    #[schemars(range(min = 1, max = 500))]
    pub min_replicas: i32,
    /// Most workers. Default: 50.
    #[schemars(range(min = 1, max = 500))]
    pub max_replicas: i32,
    /// Waiting entries that one worker is there for. Default: 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_depth_per_worker: i32,
    /// Processor time, in percent of the request, that an `Hpa` aims at. Default: 70.
    #[schemars(range(min = 1, max = 1_000))]
    pub target_cpu_utilization_percentage: i32,
    /// How the number grows.
    pub scale_up: ScaleUpSpec,
    /// How the number shrinks.
    pub scale_down: ScaleDownSpec,
    /// What is done while the number of waiting entries isn't known.
    pub fallback: FallbackSpec,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self {
            strategy: ScalingStrategy::Queue,
            min_replicas: 2,
            max_replicas: 50,
            queue_depth_per_worker: 100,
            target_cpu_utilization_percentage: 70,
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
            fallback: FallbackSpec::default(),
        }
    }
}

/// Who decides the number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingStrategy {
    /// The operator, by the queue.
    #[default]
    Queue,
    /// A HorizontalPodAutoscaler.
    Hpa,
    /// `spec.workers.replicas`.
    None,
}

/// How the number of workers grows.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.stabilization) <= duration('1h')",
    "message": "spec.workers.autoscaling.scaleUp.stabilization: must be at most 1h",
}]))]
pub struct ScaleUpSpec {
    /// For how long more workers must have been wanted, up to 1h. Default: 0s.
    pub stabilization: Duration,
    /// Workers that are added at a time at most. Default: 10.
    #[schemars(range(min = 1, max = 500))]
    pub max_step: i32,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        Self { stabilization: Duration::from_secs(0), max_step: 10 }
    }
}

/// How the number of workers shrinks.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.stabilization) <= duration('1h')",
    "message": "spec.workers.autoscaling.scaleDown.stabilization: must be at most 1h",
}]))]
pub struct ScaleDownSpec {
    /// For how long fewer workers must have been enough, up to 1h. Default: 5m.
    pub stabilization: Duration,
    /// Workers that are drained at a time at most. The next ones follow when these are gone. Default: 1.
    #[schemars(range(min = 1, max = 500))]
    pub max_step: i32,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self { stabilization: Duration::from_secs(300), max_step: 1 }
    }
}

/// What is done while the number of waiting entries isn't known. No answer is not an empty queue.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSpec {
    /// Spans of ten seconds without an answer of the coordinators before the fallback. Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// Workers that there are then at least; a greater number stays as it is. Default: 3.
    #[schemars(range(min = 1, max = 500))]
    pub replicas: i32,
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self { failure_threshold: 3, replicas: 3 }
    }
}
