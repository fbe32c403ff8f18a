//! Reads resources from YAML: the same file that `kubectl apply` takes is the configuration of a process.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::crd::spec_schema;
use crate::cron;
use crate::duration::Duration;
use crate::plain::Plain;
use crate::schema;
use crate::{AlertPolicy, Durability, LearningCluster, RateLimitSpec, RedisMode, SYNC_INTERVALS};

/// Bytes of a configuration file.
const FILE_MAX: usize = 1 << 20;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The LearningClusters, in the file's order.
    pub clusters: Vec<LearningCluster>,
    /// The AlertPolicies, in the file's order.
    pub policies: Vec<AlertPolicy>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Too long.
    #[error("the file has {0} bytes, at most {FILE_MAX} are allowed")]
    TooLarge(usize),
    /// Nothing in it.
    #[error("the file holds no LearningCluster and no AlertPolicy")]
    Empty,
    /// Not YAML.
    #[error("document {document}: {message}")]
    Shape {
        /// The document's number, from 1.
        document: usize,
        /// What can't be read, with the line where known.
        message: String,
    },
    /// Neither a resource nor the short form of one.
    #[error(
        "document {document}: has neither apiVersion and kind, as a resource has, nor cluster_name, as the short form of a LearningCluster has"
    )]
    Kindless {
        /// The document's number, from 1.
        document: usize,
    },
    /// Of a kind that isn't known here.
    #[error(
        "document {document}: {api_version} {kind} is not a kind of Hebb; expected hebb.dev/v1alpha1 LearningCluster or AlertPolicy"
    )]
    Kind {
        /// The document's number, from 1.
        document: usize,
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// Values that break the resource's schema or its rules.
    #[error("document {document}: {problem}")]
    Invalid {
        /// The document's number, from 1.
        document: usize,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a value, each with its field; of many the first twenty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

/// Problems of one document that are named.
const PROBLEMS_MAX: usize = 20;

/// A resource as a file holds it; a status that came along from a cluster is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: S,
    #[serde(default, rename = "status")]
    _status: Option<Value>,
}

/// Reads every document of `text`.
///
/// # Errors
/// [`LoadError`] for the first document that isn't a valid resource.
pub fn load(text: &str) -> Result<Resources, LoadError> {
    if text.len() > FILE_MAX {
        return Err(LoadError::TooLarge(text.len()));
    }
    let mut resources = Resources::default();
    for (place, part) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let document = place + 1;
        let shape = |error: serde_yaml::Error| LoadError::Shape { document, message: error.to_string() };
        let invalid = |problem: Problem| LoadError::Invalid { document, problem };
        let value = serde_yaml::Value::deserialize(part).map_err(shape)?;
        if value.is_null() {
            continue;
        }
        let mut value = json(value, "").map_err(invalid)?;
        if Plain::is(&value) {
            value = strict::<Plain>(value).map_err(invalid)?.into_resource();
        }
        let name = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        match (name("apiVersion").as_str(), name("kind").as_str()) {
            ("hebb.dev/v1alpha1", "LearningCluster") => {
                let (metadata, spec) = resource(value, &LearningCluster::crd()).map_err(invalid)?;
                let cluster = LearningCluster { metadata, spec, status: None };
                none(cluster_problems(&cluster)).map_err(invalid)?;
                resources.clusters.push(cluster);
            }
            ("hebb.dev/v1alpha1", "AlertPolicy") => {
                let (metadata, spec) = resource(value, &AlertPolicy::crd()).map_err(invalid)?;
                let policy = AlertPolicy { metadata, spec, status: None };
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                let named = (!is_subdomain(name)).then(|| {
                    "metadata.name: is needed, at most 253 lower-case letters, digits, '-' and '.'".to_owned()
                });
                none(named.into_iter().chain(policy.spec.problems())).map_err(invalid)?;
                resources.policies.push(policy);
            }
            ("", "") => return Err(LoadError::Kindless { document }),
            (api_version, kind) => {
                let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
                return Err(LoadError::Kind { document, api_version, kind });
            }
        }
    }
    if resources == Resources::default() { Err(LoadError::Empty) } else { Ok(resources) }
}

/// Reads what a LearningCluster has under `spec.gateway.rateLimit`, as JSON.
///
/// # Errors
/// The [`Problem`] that the API server would have with it.
pub fn rate_limit(text: &str) -> Result<RateLimitSpec, Problem> {
    let value = serde_json::from_str(text).map_err(|error| Problem(error.to_string()))?;
    let gateway = &spec_schema(&LearningCluster::crd())["properties"]["gateway"];
    checked(&gateway["properties"]["rateLimit"], &value, "rateLimit")?;
    strict(value)
}

fn none(problems: impl IntoIterator<Item = String>) -> Result<(), Problem> {
    let mut problems = problems.into_iter();
    let named: Vec<String> = problems.by_ref().take(PROBLEMS_MAX).collect();
    let more = match problems.count() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    if named.is_empty() { Ok(()) } else { Err(Problem(named.join("; ") + &more)) }
}

fn checked(schema: &Value, value: &Value, place: &str) -> Result<(), Problem> {
    none(schema::problems(schema, value, place))
}

/// Reads a resource whose kind is known.
fn resource<S: DeserializeOwned>(mut value: Value, crd: &CustomResourceDefinition) -> Result<(ObjectMeta, S), Problem> {
    let schema = spec_schema(crd);
    let spec = value.get_mut("spec").ok_or_else(|| Problem("spec: is needed".to_owned()))?;
    schema::drop_nulls(&schema, spec);
    checked(&schema, spec, "spec")?;
    let Envelope { metadata, spec, .. } = strict(value)?;
    Ok((metadata, spec))
}

/// The same in JSON, which is what the API server gets.
fn json(value: serde_yaml::Value, place: &str) -> Result<Value, Problem> {
    let at = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    let problem = |what: String| Problem(if place.is_empty() { what } else { format!("{place}: {what}") });
    Ok(match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(value) => value.into(),
        serde_yaml::Value::String(text) => text.into(),
        serde_yaml::Value::Number(number) => match serde_json::to_value(&number) {
            Ok(number) if number.is_number() => number,
            _ => return Err(problem(format!("{number} is no number"))),
        },
        serde_yaml::Value::Sequence(members) => {
            let members = members.into_iter().enumerate();
            Value::Array(
                members.map(|(index, member)| json(member, &format!("{place}[{index}]"))).collect::<Result<_, _>>()?,
            )
        }
        serde_yaml::Value::Mapping(fields) => {
            let field = |(name, field): (serde_yaml::Value, serde_yaml::Value)| match name {
                serde_yaml::Value::String(name) => json(field, &at(&name)).map(|field| (name, field)),
                _ => Err(problem("every name of a field must be text".to_owned())),
            };
            Value::Object(fields.into_iter().map(field).collect::<Result<_, _>>()?)
        }
        serde_yaml::Value::Tagged(tagged) => return Err(problem(format!("the tag {} is not known", tagged.tag))),
    })
}

/// Reads a value and refuses fields that it doesn't have: a misspelt field must not be ignored.
fn strict<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| {
        unknown.push(format!("{}: no such field", path.to_string().replace(".?", "")));
    });
    match read {
        Err(error) => {
            let path = track.path().to_string();
            Err(Problem(if path == "." { error.to_string() } else { format!("{path}: {error}") }))
        }
        Ok(read) => none(unknown).map(|()| read),
    }
}

/// The rules of the CRD that the types alone don't hold, for a file that no API server has checked.
pub fn cluster_problems(cluster: &LearningCluster) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = &cluster.spec;
    let mut check = |good: bool, problem: &str| {
        if !good {
            problems.push(problem.to_owned());
        }
    };
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    check(!name.is_empty(), "metadata.name: is needed");
    check(
        name.is_empty() || (name.len() <= 40 && is_label(name) && !name.starts_with(|c: char| c.is_ascii_digit())),
        "metadata.name: at most 40 lower-case letters, digits and '-', beginning with a letter",
    );
    let seconds = |duration: Duration| duration.0.as_secs_f64();
    check(
        (0.1..=300.0).contains(&seconds(spec.engine.checkpoint_interval)),
        "spec.engine.checkpointInterval: must be between 100ms and 5m",
    );
    check(
        SYNC_INTERVALS.contains(&spec.engine.sync_interval),
        "spec.engine.syncInterval: must be between 500ms and 5s",
    );
    check(
        (1.0..=604_800.0).contains(&seconds(spec.meta_learning.interval)),
        "spec.metaLearning.interval: must be between 1s and 168h",
    );
    check(
        (1.0..=3600.0).contains(&seconds(spec.workers.drain_timeout)),
        "spec.workers.drainTimeout: must be between 1s and 1h",
    );
    check(
        (10.0..=86_400.0).contains(&seconds(spec.upgrade.progress_deadline)),
        "spec.upgrade.progressDeadline: must be between 10s and 24h",
    );
    check(
        spec.metrics.as_ref().is_none_or(|metrics| (1.0..=3600.0).contains(&seconds(metrics.interval))),
        "spec.metrics.interval: must be between 1s and 1h",
    );
    check((60.0..=86_400.0).contains(&seconds(spec.healing.window)), "spec.healing.window: must be between 1m and 24h");
    if let Some(limit) = &spec.gateway.rate_limit {
        let rates = [("", limit.requests_per_second, limit.burst)].into_iter();
        let tiers = limit.tiers.iter().map(|tier| (tier.name.as_str(), tier.requests_per_second, tier.burst));
        for (tier, rate, burst) in rates.chain(tiers) {
            check(
                [rate, burst.unwrap_or(1)].iter().all(|value| (1..=1_000_000).contains(value)),
                &format!("spec.gateway.rateLimit {tier}: requestsPerSecond and burst must be between 1 and 1000000"),
            );
        }
    }
    if let Some(scaling) = &spec.workers.autoscaling {
        check(
            (1..=scaling.max_replicas).contains(&scaling.min_replicas) && scaling.max_replicas <= 500,
            "spec.workers.autoscaling: minReplicas must be at least 1 and not above maxReplicas, which is at most 500",
        );
        let windows = [("scaleUp", scaling.scale_up.stabilization), ("scaleDown", scaling.scale_down.stabilization)];
        for (field, window) in windows {
            check(
                seconds(window) <= 3600.0,
                &format!("spec.workers.autoscaling.{field}.stabilization: must be at most 1h"),
            );
        }
    }
    let redis = &spec.redis;
    check(
        redis.replicas.is_none_or(|replicas| match redis.mode {
            RedisMode::Sentinel => (3..=9).contains(&replicas) && replicas % 2 == 1,
            RedisMode::Cluster => (6..=18).contains(&replicas) && replicas % 2 == 0,
            RedisMode::Standalone | RedisMode::External => false,
        }),
        "spec.redis.replicas: an odd number from 3 to 9 with mode Sentinel, an even one from 6 to 18 with mode Cluster",
    );
    let is_external = redis.mode == RedisMode::External;
    check(!is_external || redis.external.is_some(), "spec.redis.external: is needed with mode External");
    check(is_external || redis.external.is_none(), "spec.redis.external: is for mode External only");
    check(!is_external || redis.storage.size.is_none(), "spec.redis.storage: an External Redis has its own storage");
    check(
        redis.external.as_ref().is_none_or(|external| external.sentinels.is_empty() || !external.cluster),
        "spec.redis.external: Redis has sentinels or is a cluster, not both",
    );
    check(
        matches!(redis.mode, RedisMode::Sentinel | RedisMode::Cluster) || redis.durability != Durability::Replicated,
        "spec.redis.durability: Replicated is for the modes Sentinel and Cluster",
    );
    if let Some(tls) = &redis.tls {
        check(!is_external, "spec.redis.tls: is for a Redis that Hebb runs; an External one has external.tls");
        check(
            tls.secret_ref.is_none() || tls.issuer_ref.is_none(),
            "spec.redis.tls: takes secretRef or issuerRef, not both",
        );
    }
    if let Some(backup) = &spec.backup {
        if let Some(problem) = backup.schedule.as_deref().and_then(cron::problem) {
            check(false, &format!("spec.backup.schedule: {problem}"));
        }
        check((1..=1_000).contains(&backup.retention), "spec.backup.retention: must be between 1 and 1000");
        let volume = &backup.destination.persistent_volume_claim;
        check(
            volume.claim_name.is_some() != volume.size.is_some(),
            "spec.backup.destination.persistentVolumeClaim: needs claimName, or size",
        );
        check(
            volume.claim_name.is_none() || volume.storage_class_name.is_none(),
            "spec.backup.destination.persistentVolumeClaim.storageClassName: is for a volume that Hebb makes",
        );
    }
    let engine = &spec.engine;
    let shares = [
        ("edgeThreshold", engine.edge_threshold),
        ("clusterThreshold", engine.cluster_threshold),
        ("learningRate", engine.learning_rate),
        ("explorationRate", engine.exploration_rate),
        ("confidenceGate", engine.confidence_gate),
        ("admission.initialThreshold", engine.admission.initial_threshold),
        ("admission.minThreshold", engine.admission.min_threshold),
        ("admission.maxThreshold", engine.admission.max_threshold),
        ("admission.targetAcceptance", engine.admission.target_acceptance),
    ];
    for (field, share) in shares {
        check((0.0..=1.0).contains(&share), &format!("spec.engine.{field}: must be between 0 and 1"));
    }
    let admission = &engine.admission;
    check(
        (admission.min_threshold..=admission.max_threshold).contains(&admission.initial_threshold),
        "spec.engine.admission: initialThreshold must be between minThreshold and maxThreshold",
    );
    let counts = [
        ("engine.coldStartExperiences", engine.cold_start_experiences, 0, 1_000_000),
        ("engine.memory.maxVectors", engine.memory.max_vectors, 16, 1_000_000),
        ("engine.maxQueueSize", engine.max_queue_size, 1, 1_000_000),
        ("engine.maxLocalPatterns", engine.max_local_patterns, 16, 50_000),
        ("engine.horizonEvents", engine.horizon_events, 1, 1_000_000),
        ("engine.rhythm.wake", engine.rhythm.wake, 1, 100),
        ("engine.rhythm.sleep", engine.rhythm.sleep, 1, 100),
    ];
    for (field, count, min, max) in counts {
        check((min..=max).contains(&count), &format!("spec.{field}: must be between {min} and {max}"));
    }
    check(spec.domains.len() <= 64, "spec.domains: at most 64");
    for (place, domain) in spec.domains.iter().enumerate() {
        check(
            is_label(&domain.name),
            &format!("spec.domains[{place}].name: lower-case letters, digits and '-', at most 63"),
        );
        check(
            (1..=64).contains(&domain.partitions),
            &format!("spec.domains[{place}].partitions: must be between 1 and 64"),
        );
        let first = spec.domains.iter().position(|other| other.name == domain.name);
        check(first == Some(place), &format!("spec.domains[{place}].name: {:?} is there twice", domain.name));
    }
    problems
}

/// Whether the API server takes this as an object's name.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63 && name.starts_with(inner) && name.ends_with(inner) && name.chars().all(|c| inner(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: hebb.dev/v1alpha1\nkind: LearningCluster\nmetadata: {name: demo}\n";

    #[test]
    fn a_minimal_cluster_gets_every_default() {
        let resources = load(&format!("{HEAD}spec: {{}}\n")).unwrap();
        let spec = &resources.clusters[0].spec;
        assert_eq!((spec.workers.replicas, spec.coordinator.replicas, spec.gateway.replicas), (2, 3, 2));
        assert!(spec.allow_undeclared_domains);
        assert_eq!(spec.engine.checkpoint_interval.to_string(), "5s");
        assert_eq!(spec.redis.max_memory_percent_of_limit, 70);
    }

    #[test]
    fn several_documents_are_read_in_order() {
        let text = format!(
            "{HEAD}spec: {{}}\n---\napiVersion: hebb.dev/v1alpha1\nkind: AlertPolicy\nmetadata: {{name: a}}\nspec:\n  targetRef: {{name: demo}}\n  rules: [{{name: r, expr: {{indicator: queue_size, operator: GreaterThan, threshold: 900}}}}]\n---\n"
        );
        let resources = load(&text).unwrap();
        assert_eq!((resources.clusters.len(), resources.policies.len()), (1, 1));
    }

    #[test]
    fn everything_that_is_wrong_is_named_up_to_a_bound() {
        let problem = |spec: &str| load(&format!("{HEAD}spec: {spec}\n")).unwrap_err().to_string();
        assert_eq!(
            problem("{engine: {learningRate: 2, confidenceGate: 2}, domains: [{name: A, task: Guess}]}"),
            "document 1: spec.domains[0].name: must match ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$; spec.domains[0].task: must be one of \
             Classification, Regression, Patterns, Governed, TimeSeriesClassification; spec.engine.confidenceGate: must be \
             between 0 and 1; spec.engine.learningRate: must be between 0 and 1"
        );
        let times = problem("{engine: {syncInterval: 9s}, metaLearning: {interval: 0s}}");
        assert!(
            times.contains("spec.engine.syncInterval: ") && times.contains("; spec.metaLearning.interval: "),
            "{times}"
        );
        assert!(problem("{a: 1, b: 2}").ends_with("spec.a: no such field; spec.b: no such field"));
        let many: String = (0..25).map(|number| format!("a{number}: 1, ")).collect();
        assert!(problem(&format!("{{{many}}}")).ends_with("; and 5 more"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (spec, problem) in [
            ("{workerz: {}}", "spec.workerz: no such field"),
            ("{engine: {edgeTreshold: 1}}", "spec.engine.edgeTreshold: no such field"),
            ("{engine: {learningRate: 2}}", "spec.engine.learningRate: must be between 0 and 1"),
            ("{engine: {rhythm: {sleep: 0}}}", "spec.engine.rhythm.sleep: must be between 1 and 100"),
            ("{engine: {admission: {minThreshold: 0.6}}}", "spec.engine.admission: initialThreshold must be between"),
            ("{domains: [{name: A, task: Classification}]}", "spec.domains[0].name"),
            (
                "{domains: [{name: a, task: Classification}, {name: a, task: Regression}]}",
                "spec.domains: member 1, \"a\", is there twice",
            ),
            ("{domains: [{name: a, task: Guess}]}", "spec.domains[0].task: must be one of Classification, "),
            ("{engine: {checkpointInterval: soon}}", "spec.engine.checkpointInterval: must match "),
            ("{engine: {checkpointInterval: 99999999999999999h}}", "spec.engine.checkpointInterval: \"9999"),
            ("{engine: {learningRate: high}}", "spec.engine.learningRate: must be a number, not text"),
            ("{engine: {learningRate: .nan}}", "spec.engine.learningRate: .nan is no number"),
            ("{workers: {replicas: -1}}", "spec.workers.replicas: must be "),
            ("{workers: {1: 2}}", "spec.workers: every name of a field must be text"),
            ("{redis: {mode: External}}", "spec.redis.external: is needed"),
            ("{engine: {checkpointInterval: 0s}}", "spec.engine.checkpointInterval: must be between 100ms and 5m"),
            ("{engine: {syncInterval: 499ms}}", "spec.engine.syncInterval: must be between 500ms and 5s"),
            ("{engine: {syncInterval: 6s}}", "spec.engine.syncInterval: must be between 500ms and 5s"),
            ("{workers: {autoscaling: {minReplicas: 5, maxReplicas: 4}}}", "spec.workers.autoscaling: minReplicas"),
            (
                "{workers: {autoscaling: {scaleDown: {stabilization: 2h}}}}",
                "scaleDown.stabilization: must be at most 1h",
            ),
            ("{upgrade: {progressDeadline: 1s}}", "spec.upgrade.progressDeadline: must be between"),
            ("{healing: {window: 1s}}", "spec.healing.window: must be between"),
            (
                "{backup: {schedule: '0 25 * * *', destination: {persistentVolumeClaim: {size: 1Gi}}}}",
                "spec.backup.schedule: \"25\" is no hour",
            ),
            ("{backup: {destination: {persistentVolumeClaim: {}}}}", "needs claimName, or size"),
            (
                "{redis: {tls: {secretRef: {name: a}, issuerRef: {name: b}}}}",
                "spec.redis.tls: takes secretRef or issuerRef",
            ),
            ("{workers: {drainTimeout: 2h}}", "spec.workers.drainTimeout: must be between 1s and 1h"),
        ] {
            let error = load(&format!("{HEAD}spec: {spec}\n")).unwrap_err().to_string();
            assert!(error.contains(problem), "{spec}: {error}");
        }
        for (text, problem) in [
            ("apiVersion: v1\nkind: Pod\n", "document 1: v1 Pod is not a kind of Hebb"),
            ("spec: {}\n", "document 1: has neither apiVersion and kind, "),
            ("- a\n", "document 1: has neither apiVersion and kind, "),
            ("scaling: {}\n", "document 1: missing field `cluster_name`"),
            ("cluster_name: 5\n", "document 1: cluster_name: invalid type: integer `5`"),
            ("", "the file holds no LearningCluster and no AlertPolicy"),
            ("---\n# nothing\n", "the file holds no LearningCluster and no AlertPolicy"),
            (&HEAD.replace("name: demo", "name: 5"), "document 1: spec: is needed"),
            (&format!("{}spec: {{}}\n", HEAD.replace("name: demo", "name: 5")), "document 1: metadata.name: "),
            (&format!("{}spec: {{}}\n", HEAD.replace("name: demo", "")), "document 1: metadata.name: is needed"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_field_that_says_nothing_has_its_default() {
        let resources = load(&format!("{HEAD}spec: {{workers: {{replicas: }}, backup: }}\n")).unwrap();
        let spec = &resources.clusters[0].spec;
        assert_eq!((spec.workers.replicas, &spec.backup), (2, &None));
    }

    #[test]
    fn a_rate_limit_is_checked_as_that_of_a_cluster() {
        assert_eq!(rate_limit(r#"{"requestsPerSecond": 9}"#).unwrap().requests_per_second, 9);
        for (text, problem) in [
            (r#"{"requestsPerSecond": 0}"#, "rateLimit.requestsPerSecond: must be between 1 and 1000000"),
            (r#"{"requestPerSecond": 9}"#, "requestPerSecond: no such field"),
            (r#"{"tiers": [{"name": "a"}]}"#, "rateLimit.tiers[0]: requestsPerSecond is needed"),
            ("9", "rateLimit: must be an object, not 9"),
        ] {
            assert_eq!(rate_limit(text).unwrap_err().to_string(), problem, "{text}");
        }
    }
}
