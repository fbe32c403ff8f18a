//! Decides how a changed image or configuration reaches the pods: pure.
//!
//! A revision is everything that pods are made from. The one with which the cluster was ready last is kept beside it, so
//! that an upgrade which makes no progress can be taken back to it.

use std::collections::BTreeMap;
use std::time::Duration;

use hebb_api::names::Role;
use hebb_api::{
    AuthSpec, CoordinatorSpec, DomainSpec, Durability, EngineSpec, GatewaySpec, LearningClusterSpec, PodTemplate,
    RateLimitSpec, RedisSpec, UpgradeSpec, UpgradeStatus, UpgradeStrategy,
};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Because, Live, Step};
use super::render::{Kind, WORKLOADS, template_digest};
use super::topology::digest;

/// The order in which roles are upgraded: who reads entries and states before who writes them.
const ORDER: [Role; 4] = [Role::Redis, Role::Worker, Role::Coordinator, Role::Gateway];

/// What pods are made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    image: String,
    allow_undeclared_domains: bool,
    domains: Vec<DomainSpec>,
    engine: EngineSpec,
    gateway: PodTemplate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway_auth: Option<AuthSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway_rate_limit: Option<RateLimitSpec>,
    coordinator: PodTemplate,
    workers: PodTemplate,
    redis_image: String,
    redis_resources: Option<ResourceRequirements>,
    redis_max_memory_percent: i32,
    redis_durability: Durability,
}

impl Revision {
    /// What the spec asks for with these images.
    pub fn of(spec: &LearningClusterSpec, image: &str, redis_image: &str) -> Self {
        Self {
            image: image.to_owned(),
            allow_undeclared_domains: spec.allow_undeclared_domains,
            domains: spec.domains.clone(),
            engine: spec.engine.clone(),
            gateway: spec.gateway.pod_template.clone(),
            gateway_auth: spec.gateway.auth.clone(),
            gateway_rate_limit: spec.gateway.rate_limit.clone(),
            coordinator: spec.coordinator.pod_template.clone(),
            workers: spec.workers.pod_template.clone(),
            redis_image: redis_image.to_owned(),
            redis_resources: spec.redis.resources.clone(),
            redis_max_memory_percent: spec.redis.max_memory_percent_of_limit,
            redis_durability: spec.redis.durability,
        }
    }

    /// Image of the nodes.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Image of Redis.
    pub fn redis_image(&self) -> &str {
        &self.redis_image
    }

    /// Sixteen hexadecimal digits that tell revisions apart.
    pub fn id(&self) -> String {
        digest(&[&self.encode()])
    }

    /// As text, for the object that keeps it.
    pub fn encode(&self) -> String {
        let mut revision = serde_json::to_value(self).unwrap_or_default();
        // With the default a revision is the same as before there was this field.
        if self.engine.sync_interval == EngineSpec::default().sync_interval
            && let Some(engine) = revision["engine"].as_object_mut()
        {
            engine.remove("syncInterval");
        }
        revision.to_string()
    }

    /// The spec with this revision in it.
    pub fn put_into(&self, spec: &LearningClusterSpec) -> LearningClusterSpec {
        let mut spec = spec.clone();
        spec.image = Some(self.image.clone());
        spec.allow_undeclared_domains = self.allow_undeclared_domains;
        spec.domains = self.domains.clone();
        spec.engine = self.engine.clone();
        spec.gateway = GatewaySpec {
            pod_template: self.gateway.clone(),
            auth: self.gateway_auth.clone(),
            rate_limit: self.gateway_rate_limit.clone(),
            ..spec.gateway
        };
        spec.coordinator = CoordinatorSpec { pod_template: self.coordinator.clone(), ..spec.coordinator };
        spec.workers.pod_template = self.workers.clone();
        spec.redis = RedisSpec {
            image: Some(self.redis_image.clone()),
            resources: self.redis_resources.clone(),
            max_memory_percent_of_limit: self.redis_max_memory_percent,
            durability: self.redis_durability,
            ..spec.redis
        };
        spec
    }
}

/// What is known of the revisions.
pub struct Known<'a> {
    /// The revision that the spec asks for.
    pub wanted: &'a str,
    /// The revision with which the cluster was ready last; none before the first time, or where its record is lost.
    pub current: Option<&'a str>,
    /// What the status says of an upgrade.
    pub status: Option<&'a UpgradeStatus>,
    /// Ready pods that run the wanted revision.
    pub updated_pods: i32,
    pub suspended: bool,
}

/// Where an upgrade stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The cluster was ready with what the spec asks for, or there is nothing to go back to yet.
    Steady,
    /// The pods are being brought to the wanted revision.
    Progressing(UpgradeStatus),
    /// It has missed its deadline, and nobody asked for a rollback.
    Late(UpgradeStatus),
    /// It has missed its deadline: the pods go back to, or stay with, the current revision.
    RolledBack(UpgradeStatus),
}

impl Verdict {
    /// Whether the pods are brought to what the spec asks for.
    pub fn is_on_wanted(&self) -> bool {
        !matches!(self, Verdict::RolledBack(_))
    }

    /// What the status says of it.
    pub fn status(&self) -> Option<&UpgradeStatus> {
        match self {
            Verdict::Steady => None,
            Verdict::Progressing(status) | Verdict::Late(status) | Verdict::RolledBack(status) => Some(status),
        }
    }
}

/// Decides where the upgrade stands at a time.
pub fn decide(spec: &UpgradeSpec, known: &Known<'_>, now: Timestamp) -> Verdict {
    let Some(current) = known.current else { return Verdict::Steady };
    if current == known.wanted {
        return Verdict::Steady;
    }
    let begun = UpgradeStatus {
        revision: known.wanted.to_owned(),
        updated_pods: known.updated_pods,
        progressed_at: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        failed: false,
    };
    let status = match known.status {
        Some(status) if status.revision == known.wanted => status.clone(),
        _ => return Verdict::Progressing(begun),
    };
    if status.failed {
        return Verdict::RolledBack(status);
    }
    // A suspended cluster makes no progress, and that is nobody's fault.
    if known.suspended || known.updated_pods > status.updated_pods {
        return Verdict::Progressing(if known.suspended { status } else { begun });
    }
    if spec.strategy == UpgradeStrategy::OnDelete {
        return Verdict::Progressing(status);
    }
    let waited = Duration::try_from(now.duration_since(status.progressed_at.0)).unwrap_or(Duration::ZERO);
    match (waited >= spec.progress_deadline.0, spec.auto_rollback) {
        (false, _) => Verdict::Progressing(status),
        (true, false) => Verdict::Late(status),
        (true, true) => Verdict::RolledBack(UpgradeStatus { failed: true, ..status }),
    }
}

/// Leaves out the steps whose role must wait for another one to come up with its new template. What is missing or was
/// edited by hand is never held back.
pub fn hold_back(
    steps: Vec<Step>,
    live: &Live,
    templates: &BTreeMap<Role, String>,
    object: impl Fn(Role) -> String,
) -> Vec<Step> {
    let mut rolling = false;
    let mut held = Vec::new();
    for role in ORDER {
        let name = object(role);
        let Some((kind, found)) = workload(live, &name) else { continue };
        let renewed = templates.get(&role).is_some_and(|wanted| template_digest(found) != Some(wanted.as_str()));
        if rolling && renewed {
            held.push((kind, name));
        }
        rolling |= renewed || !has_rolled(found);
    }
    steps
        .into_iter()
        .filter(|step| match step {
            Step::Apply { child, because: Because::Changed } => !held.contains(&(child.kind, child.name.clone())),
            _ => true,
        })
        .collect()
}

/// The workload of this name.
pub fn workload<'a>(live: &'a Live, name: &str) -> Option<(Kind, &'a Value)> {
    WORKLOADS.into_iter().find_map(|kind| live.get(&(kind, name.to_owned())).map(|found| (kind, found)))
}

/// Whether every pod of a workload runs its newest template and is ready.
fn has_rolled(workload: &Value) -> bool {
    let status = &workload["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let wanted = number(&workload["spec"]["replicas"]);
    status["observedGeneration"].as_i64() >= workload["metadata"]["generation"].as_i64()
        && number(&status["updatedReplicas"]) >= wanted
        && number(&status["readyReplicas"]) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn step(status: Option<&UpgradeStatus>, updated_pods: i32, second: i64) -> Verdict {
        let known = Known { wanted: "b", current: Some("a"), status, updated_pods, suspended: false };
        decide(&UpgradeSpec::default(), &known, at(second))
    }

    #[test]
    fn progress_keeps_an_upgrade_alive_and_standstill_takes_it_back_for_good() {
        let Verdict::Progressing(first) = step(None, 0, 0) else { panic!("not begun") };
        let Verdict::Progressing(second) = step(Some(&first), 1, 500) else { panic!("one more pod is progress") };
        assert_eq!((second.progressed_at.0, second.updated_pods), (at(500), 1));
        assert_eq!(step(Some(&second), 1, 1_099), Verdict::Progressing(second.clone()));
        let Verdict::RolledBack(failed) = step(Some(&second), 1, 1_100) else { panic!("the deadline has passed") };
        assert!(failed.failed);
        // Also when, later, a pod of the bad revision happens to be ready.
        assert_eq!(step(Some(&failed), 5, 1_200), Verdict::RolledBack(failed.clone()));
        // The next revision is tried.
        let other = Known { wanted: "c", current: Some("a"), status: Some(&failed), updated_pods: 0, suspended: false };
        assert!(matches!(decide(&UpgradeSpec::default(), &other, at(1_300)), Verdict::Progressing(_)));
    }

    #[test]
    fn without_automatic_rollback_it_is_late_and_before_the_first_time_there_is_nothing_to_go_back_to() {
        let spec = UpgradeSpec { auto_rollback: false, ..UpgradeSpec::default() };
        let Verdict::Progressing(begun) = step(None, 0, 0) else { panic!("not begun") };
        let known = Known { wanted: "b", current: Some("a"), status: Some(&begun), updated_pods: 0, suspended: false };
        assert!(matches!(decide(&spec, &known, at(600)), Verdict::Late(_)));
        assert_eq!(decide(&spec, &Known { current: None, ..known }, at(600)), Verdict::Steady);
        assert_eq!(decide(&spec, &Known { wanted: "a", ..known }, at(600)), Verdict::Steady);
        assert!(matches!(decide(&spec, &Known { suspended: true, ..known }, at(600)), Verdict::Progressing(_)));
    }

    #[test]
    fn an_upgrade_by_deletion_has_all_the_time_of_the_world() {
        let spec = UpgradeSpec { strategy: UpgradeStrategy::OnDelete, ..UpgradeSpec::default() };
        let Verdict::Progressing(begun) = step(None, 0, 0) else { panic!("not begun") };
        let known = Known { wanted: "b", current: Some("a"), status: Some(&begun), updated_pods: 0, suspended: false };
        assert_eq!(decide(&spec, &known, at(1_000_000)), Verdict::Progressing(begun.clone()));
    }

    #[test]
    fn a_revision_put_into_a_changed_spec_is_that_revision_again() {
        let spec = LearningClusterSpec::default();
        let revision = Revision::of(&spec, "hebb:1", "redis:7");
        let mut changed = spec.clone();
        changed.image = Some("hebb:2".to_owned());
        changed.workers.replicas = 9;
        changed.engine.learning_rate = 0.5;
        let back = revision.put_into(&changed);
        assert_eq!(back.workers.replicas, 9);
        assert_eq!(Revision::of(&back, "hebb:1", "redis:7").id(), revision.id());
        let read: Revision = serde_json::from_str(&revision.encode()).unwrap();
        assert_eq!(read, revision);
        assert!(!revision.encode().contains("syncInterval"), "a default that is newer than the revision");
        let mut other = spec.clone();
        other.engine.sync_interval = hebb_api::Duration::from_secs(2);
        let other = Revision::of(&other, "hebb:1", "redis:7");
        assert_ne!(other.id(), revision.id());
        assert_eq!(serde_json::from_str::<Revision>(&other.encode()).unwrap(), other);
    }
}
