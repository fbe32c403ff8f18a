//! A LearningCluster, parsed once: names, defaults and secrets in place. Past here nobody sees the raw spec.

use std::collections::BTreeMap;

use hebb_api::names::{self, Role};
use hebb_api::{
    AutoscalingSpec, DeletionPolicy, Durability, Duration, EngineSpec, ExternalRedis, LearningCluster,
    LearningClusterSpec, LearningClusterStatus, MetaLearningSpec, MetricsSpec, PodTemplate, RedisMode, RestoreSpec,
    ScalingStrategy, TracesSpec, UpgradeStrategy,
};
use k8s_openapi::api::core::v1::ResourceRequirements;
use sha2::{Digest, Sha256};

use super::backups;
use super::certificate::{Certificate, Fault, Pems};
use super::upgrade::Revision;

/// Pods of a Redis with Sentinels: one may be lost.
const SENTINEL_REPLICAS: i32 = 3;
/// Servers of a Redis Cluster: the fewest with a majority of shards left when one loses its primary, and a replica each.
const CLUSTER_REPLICAS: i32 = 6;

/// Where the defaults of the operator come in.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of gateway, coordinators and workers.
    pub image: String,
    /// Image of Redis.
    pub redis_image: String,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
    /// Namespace of the operator, whose pods ask the coordinators.
    pub operator_namespace: String,
}

/// What the secrets of a cluster hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Password of the Redis that Hebb runs; none for somebody else's.
    pub redis_password: Option<String>,
    /// Token of the internal endpoints.
    pub token: String,
    /// The certificate of the Redis that Hebb runs; nothing where connections are in the clear.
    pub certificate: Option<Certificate>,
}

impl Secrets {
    /// The certificate, where it is of use.
    pub fn pems(&self) -> Option<&Pems> {
        self.certificate.as_ref()?.pems.as_ref().ok()
    }

    /// What changes when servers must begin anew with another certificate.
    pub fn shown(&self) -> Vec<&str> {
        self.pems().into_iter().flat_map(|pems| [pems.certificate.as_str(), pems.authority.as_str()]).collect()
    }

    /// Why it is of no use.
    pub fn fault(&self) -> Option<&Fault> {
        self.certificate.as_ref()?.pems.as_ref().err()
    }
}

/// One role's pods.
#[derive(Clone, Debug)]
pub struct Pods {
    pub replicas: i32,
    pub template: PodTemplate,
}

/// Redis as the pods reach it.
#[derive(Clone, Debug)]
pub enum Redis {
    Standalone(Server),
    Sentinel { server: Server, replicas: i32 },
    Cluster { server: Server, replicas: i32 },
    External(ExternalRedis),
}

/// The servers of a Redis that Hebb runs.
#[derive(Clone, Debug)]
pub struct Server {
    pub image: String,
    pub durability: Durability,
    pub size: Option<String>,
    pub storage_class: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub max_memory_percent: i32,
    pub resources: Option<ResourceRequirements>,
}

impl Redis {
    /// The servers, where Hebb runs them.
    pub fn own(&self) -> Option<&Server> {
        match self {
            Redis::Standalone(server) | Redis::Sentinel { server, .. } | Redis::Cluster { server, .. } => Some(server),
            Redis::External(_) => None,
        }
    }

    /// How many servers there are that find each other.
    pub fn members(&self) -> Option<i32> {
        match self {
            Redis::Sentinel { replicas, .. } | Redis::Cluster { replicas, .. } => Some(*replicas),
            Redis::Standalone(_) | Redis::External(_) => None,
        }
    }

    /// How many of them take writes when all is well.
    pub fn shards(&self) -> i32 {
        match self {
            Redis::Cluster { replicas, .. } => replicas / 2,
            Redis::Standalone(_) | Redis::Sentinel { .. } | Redis::External(_) => 1,
        }
    }
}

/// Backups of a cluster.
#[derive(Clone, Debug)]
pub struct Backup {
    pub schedule: Option<String>,
    pub retention: i32,
    pub claim: Claim,
    /// The new value of the annotation that asks for one.
    pub request: Option<String>,
}

/// The claim that keeps the backups.
#[derive(Clone, Debug)]
pub enum Claim {
    Existing(String),
    Made { size: String, storage_class: Option<String>, deletion_policy: DeletionPolicy },
}

/// A LearningCluster with every decision made that its spec makes.
#[derive(Clone)]
pub struct Topology {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub image: String,
    pub suspended: bool,
    pub backup: Option<Backup>,
    pub restore: Option<RestoreSpec>,
    /// The backup that the cluster begins with isn't restored yet: only Redis may run.
    pub awaits_restore: bool,
    pub gateway: Pods,
    pub service_type: &'static str,
    /// The Secret with the keys of the API.
    pub api_keys: Option<String>,
    /// How much the gateways' clients may ask for, as the gateways read it.
    pub rate_limit: Option<String>,
    /// How old the answer of a gateway's copy may be, where it isn't the default.
    pub sync_interval: Option<Duration>,
    pub coordinator: Pods,
    pub worker: Pods,
    pub workers_unavailable: i32,
    /// Whether a pod goes to a new revision when somebody deletes it, and only then.
    pub on_delete: bool,
    /// The HorizontalPodAutoscaler that decides the number of workers.
    pub hpa: Option<AutoscalingSpec>,
    pub drain_seconds: i64,
    pub redis: Redis,
    pub disruption_budgets: bool,
    /// Who may read metrics; no NetworkPolicies where there is nothing here.
    pub network: Option<BTreeMap<String, String>>,
    pub metrics: Option<MetricsSpec>,
    pub traces: Option<TracesSpec>,
    pub cluster_domain: String,
    pub operator_namespace: String,
    pub secrets: Secrets,
    /// The file that the pods read.
    pub config: String,
    /// Changes with what only a restart of the nodes takes up.
    pub digest: String,
    /// Changes with what only a restart of Redis takes up.
    pub redis_digest: String,
}

/// Why an object can't be worked with, although the API server took it.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// An object from the API server always has these.
    #[error("metadata.{0} is missing")]
    Metadata(&'static str),
    /// Rules that an older definition may not have had.
    #[error("{0}")]
    Invalid(String),
    /// The file for the pods can't be written.
    #[error("the configuration can't be written as YAML")]
    Config(#[from] serde_yaml::Error),
}

impl Topology {
    /// Where the pods of a role push their metrics.
    pub fn metrics_of(&self, role: Role) -> Option<&MetricsSpec> {
        self.metrics.as_ref().filter(|_| role != Role::Redis)
    }

    /// Where the pods of a role send their traces.
    pub fn traces_of(&self, role: Role) -> Option<&TracesSpec> {
        self.traces.as_ref().filter(|_| matches!(role, Role::Gateway | Role::Worker))
    }

    /// Parses a cluster that should have so many workers, and was ready last with a revision.
    ///
    /// # Errors
    /// [`TopologyError`] where its spec can't be worked with.
    pub fn new(
        cluster: &LearningCluster,
        defaults: &Defaults,
        secrets: Secrets,
        workers: i32,
        ready: Option<&Revision>,
    ) -> Result<Self, TopologyError> {
        let metadata = &cluster.metadata;
        let name = metadata.name.clone().ok_or(TopologyError::Metadata("name"))?;
        let namespace = metadata.namespace.clone().ok_or(TopologyError::Metadata("namespace"))?;
        let uid = metadata.uid.clone().ok_or(TopologyError::Metadata("uid"))?;
        if let Some(problem) = hebb_api::load::cluster_problems(cluster).into_iter().next() {
            return Err(TopologyError::Invalid(problem));
        }
        let spec = &cluster.spec;
        let config = pod_config(&name, &namespace, spec)?;
        let password = secrets.redis_password.as_deref().unwrap_or_default();
        let redis_digest = digest(&[vec![password], secrets.shown()].concat());
        let trusted = secrets.pems().map(|pems| pems.authority.as_str());
        let texts = [config.as_str(), password, secrets.token.as_str()];
        let digest = digest(&texts.into_iter().chain(trusted).collect::<Vec<_>>());
        let server = || Server {
            image: redis_image(cluster, defaults, ready),
            durability: spec.redis.durability,
            size: spec.redis.storage.size.clone(),
            storage_class: spec.redis.storage.storage_class_name.clone(),
            deletion_policy: spec.redis.storage.deletion_policy,
            max_memory_percent: spec.redis.max_memory_percent_of_limit,
            resources: spec.redis.resources.clone(),
        };
        let redis = match (spec.redis.mode, &spec.redis.external) {
            (RedisMode::External, Some(external)) => Redis::External(external.clone()),
            (RedisMode::External, None) => {
                return Err(TopologyError::Invalid("spec.redis.external: is needed with mode External".to_owned()));
            }
            (RedisMode::Standalone, _) => Redis::Standalone(server()),
            (RedisMode::Sentinel, _) => {
                Redis::Sentinel { server: server(), replicas: spec.redis.replicas.unwrap_or(SENTINEL_REPLICAS) }
            }
            (RedisMode::Cluster, _) => {
                Redis::Cluster { server: server(), replicas: spec.redis.replicas.unwrap_or(CLUSTER_REPLICAS) }
            }
        };
        let pods = |replicas, template: &PodTemplate| Pods { replicas, template: template.clone() };
        Ok(Self {
            image: image(cluster, defaults, ready),
            suspended: spec.suspend,
            backup: backup(cluster)?,
            restore: spec.restore.clone(),
            awaits_restore: spec.restore.is_some()
                && cluster.status.as_ref().is_none_or(|status| status.restored.is_none()),
            gateway: pods(spec.gateway.replicas, &spec.gateway.pod_template),
            service_type: spec.gateway.service.type_.as_str(),
            api_keys: spec.gateway.auth.as_ref().map(|auth| auth.secret_ref.name.clone()),
            rate_limit: spec.gateway.rate_limit.as_ref().map(|limit| serde_json::json!(limit).to_string()),
            sync_interval: (spec.engine.sync_interval != EngineSpec::default().sync_interval)
                .then_some(spec.engine.sync_interval),
            coordinator: pods(spec.coordinator.replicas, &spec.coordinator.pod_template),
            worker: pods(workers, &spec.workers.pod_template),
            workers_unavailable: spec.upgrade.max_unavailable,
            on_delete: spec.upgrade.strategy == UpgradeStrategy::OnDelete,
            hpa: spec.workers.autoscaling.clone().filter(|scaling| scaling.strategy == ScalingStrategy::Hpa),
            drain_seconds: i64::try_from(spec.workers.drain_timeout.0.as_secs()).unwrap_or(i64::MAX),
            redis,
            disruption_budgets: spec.pod_disruption_budget.enabled,
            network: spec.network_policy.enabled.then(|| spec.network_policy.metrics_from_namespaces.clone()),
            metrics: spec.metrics.clone(),
            traces: spec.traces.clone(),
            cluster_domain: defaults.cluster_domain.clone(),
            operator_namespace: defaults.operator_namespace.clone(),
            name,
            namespace,
            uid,
            secrets,
            config,
            digest,
            redis_digest,
        })
    }

    /// Whether the nodes may run.
    pub fn runs(&self) -> bool {
        !self.suspended && !self.awaits_restore
    }

    /// Whether there are pods that back up or restore.
    pub fn backs_up(&self) -> bool {
        self.backup.is_some() || self.awaits_restore
    }

    /// Pods that a role should have now.
    pub fn desired(&self, role: Role) -> i32 {
        if self.suspended || (self.awaits_restore && role != Role::Redis) {
            return 0;
        }
        match role {
            Role::Gateway => self.gateway.replicas,
            Role::Coordinator => self.coordinator.replicas,
            Role::Worker => self.worker.replicas,
            Role::Redis => match &self.redis {
                Redis::Standalone(_) => 1,
                Redis::Sentinel { replicas, .. } | Redis::Cluster { replicas, .. } => *replicas,
                Redis::External(_) => 0,
            },
        }
    }

    /// Name of a role's objects.
    pub fn object(&self, role: Role) -> String {
        role.object_name(&self.name)
    }

    /// The pods of a Redis whose members find each other, by their numbers, with the full names of their hosts.
    pub fn redis_hosts(&self) -> Vec<String> {
        let members = self.redis.members().unwrap_or(0);
        (0..members).map(|member| format!("{}.{}", self.redis_pod(member), self.host(Role::Redis))).collect()
    }

    /// The name of a pod of Redis.
    pub fn redis_pod(&self, member: i32) -> String {
        format!("{}-{member}", self.object(Role::Redis))
    }

    /// Full name of a role's Service.
    pub fn host(&self, role: Role) -> String {
        format!("{}.{}.svc.{}", self.object(role), self.namespace, self.cluster_domain)
    }
}

fn backup(cluster: &LearningCluster) -> Result<Option<Backup>, TopologyError> {
    let Some(spec) = &cluster.spec.backup else { return Ok(None) };
    let volume = &spec.destination.persistent_volume_claim;
    let claim = match (&volume.claim_name, &volume.size) {
        (Some(name), _) => Claim::Existing(name.clone()),
        (None, Some(size)) => Claim::Made {
            size: size.clone(),
            storage_class: volume.storage_class_name.clone(),
            deletion_policy: volume.deletion_policy,
        },
        (None, None) => {
            return Err(TopologyError::Invalid(
                "spec.backup.destination.persistentVolumeClaim: needs claimName, or size".to_owned(),
            ));
        }
    };
    let schedule = spec.schedule.clone();
    Ok(Some(Backup { schedule, retention: spec.retention, claim, request: backups::request(cluster) }))
}

/// The image of a cluster's nodes. Where the spec names none, it is the one with which the cluster was ready last, so that an
/// upgrade of the operator restarts nothing; before that the one that was chosen for this very spec.
pub fn image(cluster: &LearningCluster, defaults: &Defaults, ready: Option<&Revision>) -> String {
    let ready = ready.map(|revision| revision.image().to_owned());
    let chosen = chosen_for_this_spec(cluster).and_then(|status| status.image.clone());
    cluster.spec.image.clone().or(ready).or(chosen).unwrap_or_else(|| defaults.image.clone())
}

/// The image of a cluster's Redis, by the same rule.
pub fn redis_image(cluster: &LearningCluster, defaults: &Defaults, ready: Option<&Revision>) -> String {
    let ready = ready.map(|revision| revision.redis_image().to_owned());
    let chosen = chosen_for_this_spec(cluster).and_then(|status| status.redis.as_ref()?.image.clone());
    cluster.spec.redis.image.clone().or(ready).or(chosen).unwrap_or_else(|| defaults.redis_image.clone())
}

/// The status, unless the spec has changed since: it may have named another image then.
fn chosen_for_this_spec(cluster: &LearningCluster) -> Option<&LearningClusterStatus> {
    cluster.status.as_ref().filter(|status| status.observed_generation == cluster.metadata.generation)
}

/// The part of the spec that all pods read; what only the operator reads stays out, so that scaling restarts nothing, and
/// so does what only gateways need, so that other limits restart nobody else.
fn pod_config(name: &str, namespace: &str, spec: &LearningClusterSpec) -> Result<String, serde_yaml::Error> {
    let mut config = serde_json::json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP),
        "kind": "LearningCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "allowUndeclaredDomains": spec.allow_undeclared_domains,
            "domains": spec.domains,
            "engine": spec.engine,
        },
    });
    // Of the engine this alone is for gateways only, which are told by their environment.
    if let Some(engine) = config["spec"]["engine"].as_object_mut() {
        engine.remove("syncInterval");
    }
    // Only where it says something: what a newer operator knows in addition restarts no pod.
    if spec.meta_learning != MetaLearningSpec::default() {
        config["spec"]["metaLearning"] = serde_json::json!(spec.meta_learning);
    }
    serde_yaml::to_string(&config)
}

/// Sixteen hexadecimal digits that change with any of the texts.
pub fn digest(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update(text.len().to_be_bytes());
        hasher.update(text);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What the tests of decisions and of what is rendered begin with.
#[cfg(test)]
pub mod example {
    use serde_json::{Value, json};

    use super::*;

    pub fn cluster(spec: Value) -> LearningCluster {
        serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
            "metadata": {"name": "demo", "namespace": "ns", "uid": "u1"}, "spec": spec,
        }))
        .unwrap()
    }

    pub fn defaults() -> Defaults {
        Defaults {
            image: "hebb:1".to_owned(),
            redis_image: "redis:7".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            operator_namespace: "hebb-system".to_owned(),
        }
    }

    pub fn topology(spec: Value) -> Topology {
        let cluster = cluster(spec);
        let secrets = Secrets { redis_password: Some("p".to_owned()), token: "t".to_owned(), certificate: None };
        Topology::new(&cluster, &defaults(), secrets, cluster.spec.workers.replicas, None).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_removed_image_gives_way_to_the_one_that_worked_and_a_new_operator_changes_none() {
        let defaults = |image: &str| Defaults {
            image: image.to_owned(),
            redis_image: "redis:7".to_owned(),
            cluster_domain: "c".to_owned(),
            operator_namespace: "o".to_owned(),
        };
        let cluster = |image: Option<&str>, generation: i64, observed: i64, chosen: &str| -> LearningCluster {
            serde_json::from_value(json!({
                "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
                "metadata": {"name": "demo", "generation": generation},
                "spec": image.map_or(json!({}), |image| json!({"image": image})),
                "status": {"observedGeneration": observed, "image": chosen},
            }))
            .unwrap()
        };
        let worked = Revision::of(&LearningClusterSpec::default(), "hebb:1", "redis:7");
        let silent = cluster(None, 2, 1, "bad:1");
        assert_eq!(image(&silent, &defaults("hebb:2"), Some(&worked)), "hebb:1");
        assert_eq!(image(&silent, &defaults("hebb:2"), None), "hebb:2", "what never worked isn't kept");
        assert_eq!(image(&cluster(None, 1, 1, "hebb:1"), &defaults("hebb:2"), None), "hebb:1");
        assert_eq!(image(&cluster(Some("own:1"), 2, 1, "hebb:1"), &defaults("hebb:2"), Some(&worked)), "own:1");
    }
}
