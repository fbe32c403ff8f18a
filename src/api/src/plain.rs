//! The short form of a configuration: a cluster's name, its scaling and its engine, without the frame of a resource.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The field that `cold_start_threshold` stands for.
const COLD_START: &str = "coldStartExperiences";

/// A file in the short form.
#[derive(Deserialize)]
pub(crate) struct Plain {
    cluster_name: String,
    #[serde(default)]
    scaling: Option<Scaling>,
    /// The fields of `spec.engine`, in snake case; `cold_start_threshold` is `cold_start_experiences`.
    #[serde(default)]
    engine: Map<String, Value>,
}

#[derive(Deserialize)]
struct Scaling {
    #[serde(default)]
    strategy: Strategy,
    #[serde(default)]
    min_workers: Option<i32>,
    #[serde(default)]
    max_workers: Option<i32>,
    #[serde(default)]
    queue_depth_per_worker: Option<i32>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    #[default]
    QueueBased,
    Hpa,
    None,
}

impl Plain {
    /// Whether a document is in the short form: it has one of its fields, and no frame.
    pub(crate) fn is(value: &Value) -> bool {
        let has = |name: &str| value.get(name).is_some();
        ["cluster_name", "scaling", "engine"].into_iter().any(has) && !has("apiVersion") && !has("kind")
    }

    /// The same as a LearningCluster.
    pub(crate) fn into_resource(self) -> Value {
        let mut engine = renamed(self.engine);
        // Its usual name. Where both are given neither gives way, and the resource knows only one of them.
        if !engine.contains_key(COLD_START)
            && let Some(value) = engine.remove("coldStartThreshold")
        {
            engine.insert(COLD_START.to_owned(), value);
        }
        let mut spec = json!({"engine": engine});
        if let Some(scaling) = self.scaling {
            let strategy = match scaling.strategy {
                Strategy::QueueBased => "Queue",
                Strategy::Hpa => "Hpa",
                Strategy::None => "None",
            };
            let mut autoscaling = json!({"strategy": strategy});
            let bounds = [
                ("minReplicas", scaling.min_workers),
                ("maxReplicas", scaling.max_workers),
                ("queueDepthPerWorker", scaling.queue_depth_per_worker),
            ];
            for (name, bound) in bounds {
                if let Some(bound) = bound {
                    autoscaling[name] = bound.into();
                }
            }
            spec["workers"] = json!({"autoscaling": autoscaling});
        }
        json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
            "metadata": {"name": self.cluster_name}, "spec": spec,
        })
    }
}

/// The same fields with the names that they have in a resource, at every depth.
fn renamed(fields: Map<String, Value>) -> Map<String, Value> {
    let field = |(name, value): (String, Value)| match value {
        Value::Object(fields) => (camel(&name), renamed(fields).into()),
        other => (camel(&name), other),
    };
    fields.into_iter().map(field).collect()
}

fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

#[cfg(test)]
mod tests {
    use crate::ScalingStrategy;
    use crate::load::load;

    #[test]
    fn the_short_form_is_a_cluster_with_the_same_defaults() {
        let text = "
cluster_name: lab
scaling: {strategy: queue_based, min_workers: 3, max_workers: 9, queue_depth_per_worker: 50}
engine: {edge_threshold: 0.2, cluster_threshold: 0.6, learning_rate: 0.05, exploration_rate: 0.3, sync_interval: 2s, memory: {max_vectors: 64}}
";
        let read = load(text).unwrap().clusters.remove(0);
        assert_eq!(read.metadata.name.as_deref(), Some("lab"));
        let scaling = read.spec.workers.autoscaling.unwrap();
        assert_eq!(
            (scaling.strategy, scaling.min_replicas, scaling.max_replicas, scaling.queue_depth_per_worker),
            (ScalingStrategy::Queue, 3, 9, 50)
        );
        let engine = read.spec.engine;
        assert_eq!((engine.edge_threshold, engine.exploration_rate, engine.memory.max_vectors), (0.2, 0.3, 64));
        assert_eq!(engine.sync_interval.to_string(), "2s");

        let renamed = load("cluster_name: lab\nengine: {cold_start_threshold: 40}").unwrap().clusters.remove(0);
        assert_eq!(renamed.spec.engine.cold_start_experiences, 40);

        let least = load("cluster_name: lab").unwrap().clusters.remove(0);
        let engine = least.spec.engine;
        let defaults = (engine.edge_threshold, engine.cluster_threshold, engine.learning_rate, engine.exploration_rate);
        assert_eq!(defaults, (0.1, 0.7, 0.1, 0.2));
        let scaling = load("cluster_name: lab\nscaling: {}").unwrap().clusters.remove(0).spec.workers.autoscaling;
        let scaling = scaling.unwrap();
        assert_eq!((scaling.min_replicas, scaling.max_replicas, scaling.queue_depth_per_worker), (2, 50, 100));
    }

    #[test]
    fn a_misspelt_field_of_the_short_form_is_refused_by_name() {
        for (text, named) in [
            ("cluster_name: lab\nscalling: {}", "scalling"),
            ("cluster_name: lab\nscaling: {min_worker: 1}", "min_worker"),
            ("cluster_name: lab\nengine: {edge_treshold: 0.1}", "edgeTreshold"),
            ("cluster_name: lab\nscaling: {strategy: magic}", "magic"),
            ("cluster_name: lab\nengine: {edge_threshold: 7}", "edgeThreshold"),
            ("cluster_name: lab\nscaling: {queue_depth_per_worker: 0}", "queueDepthPerWorker: must be "),
            (
                "cluster_name: lab\nengine: {cold_start_threshold: 4, cold_start_experiences: 5}",
                "coldStartThreshold: no such field",
            ),
            ("cluster_name: UPPER", "metadata.name"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
