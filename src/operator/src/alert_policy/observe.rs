//! The values of the indicators, from what the LearningClusters' statuses, coordinators and pods say. What can't be told is
//! missing, which is not zero.

use std::collections::{BTreeMap, BTreeSet};

use hebb_alert::Target;
use hebb_api::names::{self, Role};
use hebb_api::{AlertPolicy, Component, LearningCluster, Phase, acceptance_shortfall, indicator_named};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;

use super::Error;
use crate::conditions::is_true;
use crate::context::Context;
use crate::learning_cluster::pods::PodView;
use crate::learning_cluster::scrape::Scraped;

/// Annotation on a LearningCluster: the actions, by name and separated by commas, that somebody has agreed to.
pub const APPROVE_ANNOTATION: &str = "hebb.dev/approve";

/// A LearningCluster that a policy is about.
#[derive(Clone)]
pub struct Watched {
    pub cluster: LearningCluster,
    pods: Vec<PodView>,
    scraped: Option<Scraped>,
    update_rate: Option<f64>,
}

/// The LearningClusters that a policy is about. One that can't be read harms no other.
pub async fn targets(policy: &AlertPolicy, context: &Context) -> Result<Vec<Watched>, Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let api: Api<DeserializeGuard<LearningCluster>> = Api::namespaced(context.client.clone(), &namespace);
    let observing = |what| move |source| Error::Observe { what, source };
    let found = match (&policy.spec.target_ref, &policy.spec.target_selector) {
        (Some(target), _) => api.get_opt(&target.name).await.map_err(observing("the target"))?.into_iter().collect(),
        (None, Some(selector)) => {
            let labels: Vec<String> =
                selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let selected = ListParams::default().labels(&labels.join(","));
            api.list(&selected).await.map_err(observing("the targets"))?.items
        }
        (None, None) => Vec::new(),
    };
    let clusters: Vec<LearningCluster> = found.into_iter().filter_map(|guard| guard.0.ok()).collect();
    let mut pods = pods(context, &namespace, &clusters).await.map_err(observing("the targets' pods"))?;
    let watched = clusters.into_iter().map(|cluster| {
        let key = ObjectRef::from_obj(&cluster);
        Watched {
            pods: pods.remove(&cluster.name_any()).unwrap_or_default(),
            scraped: context.coordinators.answer(&key),
            update_rate: context.coordinators.update_rate(&key),
            cluster,
        }
    });
    Ok(watched.collect())
}

/// The pods of the clusters, by the cluster's name. One request has them all: a pass has no time for one after the other.
async fn pods(
    context: &Context,
    namespace: &str,
    clusters: &[LearningCluster],
) -> Result<BTreeMap<String, Vec<PodView>>, kube::Error> {
    let selector = match clusters {
        [] => return Ok(BTreeMap::new()),
        [cluster] => format!("{}={}", names::CLUSTER_LABEL, cluster.name_any()),
        _ => names::CLUSTER_LABEL.to_owned(),
    };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ListParams::default().labels(&selector)).await?.items;
    let now = Timestamp::now();
    let mut pods: BTreeMap<String, Vec<PodView>> = BTreeMap::new();
    for pod in &found {
        let cluster = pod.labels().get(names::CLUSTER_LABEL).cloned().unwrap_or_default();
        pods.entry(cluster).or_default().push(PodView::new(pod, now));
    }
    Ok(pods)
}

/// What the rules see of them.
pub fn seen(targets: &[Watched]) -> BTreeMap<String, Target> {
    targets.iter().map(|watched| (watched.cluster.name_any(), see(watched))).collect()
}

fn see(watched: &Watched) -> Target {
    let cluster = &watched.cluster;
    let status = cluster.status.clone().unwrap_or_default();
    let mut phases = BTreeSet::new();
    if is_true(&status.conditions, "UpgradeInProgress") {
        phases.insert(Phase::Upgrade);
    }
    if cluster.spec.suspend {
        phases.insert(Phase::Suspend);
    }
    let approved = cluster.annotations().get(APPROVE_ANNOTATION).map(String::as_str).unwrap_or_default();
    let count = |role| u32::try_from(watched.pods.iter().filter(|pod| pod.role == Some(role)).count()).unwrap_or(0);
    Target {
        samples: samples(watched),
        phases,
        replicas: BTreeMap::from([
            (Component::Gateway, count(Role::Gateway)),
            (Component::Coordinator, count(Role::Coordinator)),
            (Component::Worker, count(Role::Worker)),
            (Component::Redis, count(Role::Redis)),
        ]),
        approved: approved.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
    }
}

fn samples(watched: &Watched) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    // Of a cluster that is switched off nothing can be told.
    if watched.cluster.spec.suspend {
        return samples;
    }
    let status = watched.cluster.status.clone().unwrap_or_default();
    // One that is still being made is not down.
    let made = is_true(&status.conditions, "Initialized");
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            samples.insert(name.to_owned(), value);
        }
    };
    for (name, type_) in [("up", "GatewayAvailable"), ("leader_up", "LeaderElected"), ("redis_up", "RedisAvailable")] {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_ && made);
        add(name, condition.filter(|condition| condition.status != "Unknown").map(|c| f64::from(c.status == "True")));
    }
    let workers = status.workers.filter(|workers| made && workers.desired > 0);
    add("workers_ready_ratio", workers.map(|w| f64::from(w.ready) / f64::from(w.desired)));
    let scraped = watched.scraped.as_ref();
    let waiting = scraped.and_then(Scraped::longest_queue).map(|lag| lag as f64);
    let engine = &watched.cluster.spec.engine;
    add("queue_size", waiting);
    add("queue_usage_ratio", waiting.map(|waiting| waiting / f64::from(engine.max_queue_size)));
    add("accuracy", scraped.and_then(Scraped::accuracy));
    add("update_rate", watched.update_rate);
    add("knn_failure_rate", scraped.and_then(Scraped::knn_failure_rate));
    add("mean_kl_divergence", scraped.and_then(Scraped::kl_divergence));
    let rejections = scraped.and_then(Scraped::rejection_rate);
    add("rejection_rate", rejections);
    let target = engine.admission.target_acceptance;
    add("acceptance_shortfall", rejections.map(|rate| acceptance_shortfall(rate, target)));
    add("inference_latency_p99", scraped.and_then(|said| said.answer_p99_seconds));
    add("latency_p95", scraped.and_then(|said| said.apply_p95_seconds));
    add("memory_bytes", scraped.and_then(|said| said.memory_bytes).map(|bytes| bytes as f64));
    add("memory_usage_ratio", scraped.and_then(|said| said.memory_ratio));
    // Only what rules can name: an answer is bounded by what is known, not by who gave it.
    for (name, value) in scraped.iter().flat_map(|said| &said.meta).filter(|(name, _)| indicator_named(name).is_some())
    {
        add(name, Some(*value));
    }
    if !watched.pods.is_empty() {
        add("restarts", Some(f64::from(watched.pods.iter().map(|pod| pod.restarts).sum::<i32>())));
        let looping = watched.pods.iter().filter(|pod| pod.waiting.as_deref() == Some("CrashLoopBackOff"));
        add("crash_loops", Some(looping.count() as f64));
    }
    samples
}
