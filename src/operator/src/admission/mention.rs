//! What an object names that may not be there, and what it is about to make: pure.

use std::collections::BTreeMap;

use hebb_api::names::{self, Role};
use hebb_api::{AlertPolicy, LearningCluster, PodTemplate, RedisMode, SecretKeyRef};
use kube::ResourceExt;

use super::submission::{Subject, Submission};
use crate::learning_cluster::certificate::{AUTHORITY, CERTIFICATE, KEY};
use crate::learning_cluster::render::{self, Kind};
use crate::learning_cluster::topology::{Defaults, Secrets, Topology};

/// Something whose being there matters, in the object's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Secret(String),
    Claim(String),
    /// The claim that a restored cluster's Redis would find already used.
    UsedClaim(String),
    Cluster(String),
    /// Any LearningCluster with these labels, as `key=value,…`.
    Clusters(String),
    /// cert-manager, asked for the Certificate of this name.
    CertManager(String),
    /// What Hebb is about to make.
    Child(Kind, String),
}

/// A thing that an object names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where, for example `spec.gateway.auth.secretRef`.
    pub place: String,
    pub thing: Thing,
    /// The keys that a Secret must have.
    pub keys: Vec<String>,
}

fn mention(place: impl Into<String>, thing: Thing) -> Mention {
    Mention { place: place.into(), thing, keys: Vec::new() }
}

fn secret(place: impl Into<String>, name: &str, keys: &[&str]) -> Mention {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Mention { keys, ..mention(place, Thing::Secret(name.to_owned())) }
}

impl Submission {
    /// Everything that the object names; nothing of one that is refused anyway.
    pub fn mentions(&self, defaults: &Defaults) -> Vec<Mention> {
        if !self.problems.is_empty() {
            return Vec::new();
        }
        match &self.subject {
            Subject::Cluster(cluster) => {
                let mut mentions = of_cluster(cluster);
                if self.is_new {
                    mentions.extend(of_new_cluster(cluster, defaults));
                }
                mentions
            }
            Subject::Policy(policy) => of_policy(policy),
            Subject::Unreadable(_) => Vec::new(),
        }
    }
}

fn of_cluster(cluster: &LearningCluster) -> Vec<Mention> {
    let spec = &cluster.spec;
    let mut mentions = Vec::new();
    if let Some(auth) = &spec.gateway.auth {
        mentions.push(secret("spec.gateway.auth.secretRef", &auth.secret_ref.name, &[]));
    }
    if let Some(external) = &spec.redis.external {
        let keyed = |field: &str, reference: &SecretKeyRef| {
            secret(format!("spec.redis.external.{field}"), &reference.name, &[&reference.key])
        };
        mentions.extend(external.password_secret_ref.iter().map(|it| keyed("passwordSecretRef", it)));
        mentions.extend(external.sentinel_password_secret_ref.iter().map(|it| keyed("sentinelPasswordSecretRef", it)));
        if let Some(tls) = &external.tls {
            let keys: &[&str] = if tls.client_certificate { &[AUTHORITY, CERTIFICATE, KEY] } else { &[AUTHORITY] };
            mentions.push(secret("spec.redis.external.tls.secretName", &tls.secret_name, keys));
        }
    }
    if let Some(tls) = spec.redis.tls.as_ref().filter(|_| spec.redis.mode != RedisMode::External) {
        if let Some(reference) = &tls.secret_ref {
            mentions.push(secret("spec.redis.tls.secretRef", &reference.name, &[CERTIFICATE, KEY, AUTHORITY]));
        }
        if tls.issuer_ref.is_some() {
            let name = names::redis_tls_name(&cluster.name_any());
            mentions.push(mention("spec.redis.tls.issuerRef", Thing::CertManager(name)));
        }
    }
    for (role, template) in [
        ("gateway", &spec.gateway.pod_template),
        ("coordinator", &spec.coordinator.pod_template),
        ("workers", &spec.workers.pod_template),
    ] {
        mentions.extend(of_template(role, template));
    }
    if let Some(claim) =
        spec.backup.as_ref().and_then(|backup| backup.destination.persistent_volume_claim.claim_name.as_ref())
    {
        let place = "spec.backup.destination.persistentVolumeClaim.claimName";
        mentions.push(mention(place, Thing::Claim(claim.clone())));
    }
    if let Some(restore) = &spec.restore {
        let claim = restore.from.persistent_volume_claim.claim_name.clone();
        mentions.push(mention("spec.restore.from.persistentVolumeClaim.claimName", Thing::Claim(claim)));
    }
    mentions
}

fn of_template<'a>(role: &'a str, template: &'a PodTemplate) -> impl Iterator<Item = Mention> + 'a {
    template
        .image_pull_secrets
        .iter()
        .enumerate()
        .map(move |(index, name)| secret(format!("spec.{role}.podTemplate.imagePullSecrets[{index}]"), name, &[]))
}

fn of_new_cluster(cluster: &LearningCluster, defaults: &Defaults) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let redis = &cluster.spec.redis;
    if cluster.spec.restore.is_some() && redis.storage.size.is_some() {
        let claim = format!("data-{}-0", Role::Redis.object_name(&cluster.name_any()));
        mentions.push(mention("spec.restore", Thing::UsedClaim(claim)));
    }
    mentions.extend(
        children(cluster, defaults)
            .into_iter()
            .map(|(kind, name)| mention(format!("metadata.name: {}", cluster.name_any()), Thing::Child(kind, name))),
    );
    mentions
}

/// The objects that a cluster is made of.
pub fn children(cluster: &LearningCluster, defaults: &Defaults) -> Vec<(Kind, String)> {
    let mut cluster = cluster.clone();
    cluster.metadata.uid.get_or_insert_default();
    let secrets = Secrets { redis_password: Some(String::new()), token: String::new(), certificate: None };
    let workers = cluster.spec.workers.replicas;
    let Ok(topology) = Topology::new(&cluster, defaults, secrets, workers, None) else { return Vec::new() };
    render::render(&topology).present.into_iter().map(|child| (child.kind, child.name)).collect()
}

fn of_policy(policy: &AlertPolicy) -> Vec<Mention> {
    let spec = &policy.spec;
    let mut mentions = Vec::new();
    if let Some(target) = &spec.target_ref {
        mentions.push(mention("spec.targetRef", Thing::Cluster(target.name.clone())));
    }
    if let Some(selector) = &spec.target_selector {
        mentions.push(mention("spec.targetSelector", Thing::Clusters(selector_text(&selector.match_labels))));
    }
    let receivers = spec.receivers.iter().enumerate();
    let receivers = receivers.map(|(index, receiver)| (format!("spec.receivers[{index}]"), receiver.secrets()));
    let actions = spec.actions.iter().enumerate();
    let actions = actions.filter_map(|(index, action)| {
        Some((format!("spec.actions[{index}].webhook"), action.webhook.as_ref()?.secrets()))
    });
    for (place, references) in receivers.chain(actions) {
        mentions
            .extend(references.into_iter().map(|reference| secret(place.clone(), &reference.name, &[&reference.key])));
    }
    mentions
}

fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
