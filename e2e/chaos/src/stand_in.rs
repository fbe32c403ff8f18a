//! What a cluster has and a bare API server hasn't, in as few words as the operator can notice: workload controllers that
//! make pods, a kubelet that calls them ready, a garbage collector, and coordinators that answer.
//!
//! It is a stand-in: no process runs, pods are called ready as soon as they exist, and a pod that is deleted is gone at
//! once. A workload rolls pod by pod and stops at a pod that doesn't become ready: one whose image is called broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use hebb_api::names::TEMPLATE_ANNOTATION;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use crate::Error;

/// The word in an image's name that keeps its pods from becoming ready.
pub const BROKEN: &str = "broken";
/// Everything is looked at this often, whatever was heard.
const TICK: Duration = Duration::from_secs(2);
/// Several events in a row are one.
const PAUSE: Duration = Duration::from_millis(30);
/// The annotation that says which pod goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A kind by group, version, name and plural.
pub type Kind = (&'static str, &'static str, &'static str, &'static str);
/// The cluster.
pub const CLUSTER: Kind = ("hebb.dev", "v1alpha1", "LearningCluster", "learningclusters");
/// The policies.
pub const POLICY: Kind = ("hebb.dev", "v1alpha1", "AlertPolicy", "alertpolicies");
/// Pods.
pub const POD: Kind = ("", "v1", "Pod", "pods");
/// Services.
pub const SERVICE: Kind = ("", "v1", "Service", "services");
/// Deployments.
pub const DEPLOYMENT: Kind = ("apps", "v1", "Deployment", "deployments");
/// StatefulSets.
pub const STATEFUL_SET: Kind = ("apps", "v1", "StatefulSet", "statefulsets");
/// Everything that may belong to a cluster.
pub const KINDS: [Kind; 16] = [
    CLUSTER,
    POLICY,
    POD,
    SERVICE,
    DEPLOYMENT,
    STATEFUL_SET,
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("batch", "v1", "Job", "jobs"),
    ("batch", "v1", "CronJob", "cronjobs"),
];

/// The API of a kind in a namespace.
pub fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    let (group, version, name, plural) = kind;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// All objects of a kind in a namespace.
pub async fn list(client: &Client, namespace: &str, kind: Kind) -> Result<Vec<Value>, Error> {
    let found = api(client, namespace, kind).list(&ListParams::default()).await?;
    let named = |object| {
        let mut object = serde_json::to_value(object)?;
        // The entries of a list don't say what they are.
        object["kind"] = json!(kind.2);
        Ok(object)
    };
    found.items.into_iter().map(named).collect()
}

/// The uids of an object's owners.
pub fn owners(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().filter_map(|owner| owner["uid"].as_str())
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a pod is called ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Plays the cluster in one namespace.
pub struct StandIn {
    client: Client,
    namespace: String,
    coordinators: Coordinators,
}

impl StandIn {
    /// For a namespace; what its coordinators say is put into `coordinators`.
    pub fn new(client: Client, namespace: &str, coordinators: Coordinators) -> Self {
        Self { client, namespace: namespace.to_owned(), coordinators }
    }

    /// Plays until the task is ended.
    pub async fn run(self) {
        let watched = [CLUSTER, POD, DEPLOYMENT, STATEFUL_SET].map(|kind| {
            watcher(api(&self.client, &self.namespace, kind), watcher::Config::default()).default_backoff().boxed()
        });
        let mut events = futures::stream::select_all(watched);
        loop {
            // Whatever fails is tried again with the next event; objects come and go meanwhile.
            if let Err(error) = self.pass().await
                && !is_race(&error)
            {
                eprintln!("stand-in in {}: {error}", self.namespace);
            }
            let _ = tokio::time::timeout(TICK, events.next()).await;
            tokio::time::sleep(PAUSE).await;
            while futures::FutureExt::now_or_never(events.next()).is_some() {}
        }
    }

    async fn pass(&self) -> Result<(), Error> {
        // Owners are read after what they own: one that isn't there then was never there, or is gone.
        let pods = self.list(POD).await?;
        let clusters = self.list(CLUSTER).await?;
        let mut owned = Vec::new();
        if clusters.is_empty() {
            for kind in KINDS.into_iter().filter(|kind| ![POD, CLUSTER].contains(kind)) {
                owned.push((kind, self.list(kind).await?));
            }
        }
        let mut workloads = self.list(DEPLOYMENT).await?;
        workloads.extend(self.list(STATEFUL_SET).await?);
        let clusters = self.list(CLUSTER).await?;
        let alive: BTreeSet<&str> =
            clusters.iter().chain(&workloads).map(|object| text(object, "/metadata/uid")).collect();
        self.collect(&pods, &alive, POD).await?;
        for (kind, objects) in &owned {
            self.collect(objects, &alive, *kind).await?;
        }
        for workload in &workloads {
            let uid = text(workload, "/metadata/uid");
            if owners(workload).any(|owner| !alive.contains(owner)) {
                continue;
            }
            let mine: Vec<Value> = pods.iter().filter(|pod| owners(pod).any(|owner| owner == uid)).cloned().collect();
            self.work(workload, mine).await?;
        }
        let named = |role: &str| {
            let of_role = pods.iter().filter(|pod| {
                is_ready(pod) && pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str() == Some(role)
            });
            of_role.map(|pod| text(pod, "/metadata/name").to_owned()).collect::<Vec<_>>()
        };
        self.coordinators.set(&self.namespace, named("coordinator").into_iter().next(), named("worker"));
        Ok(())
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Value>, Error> {
        list(&self.client, &self.namespace, kind).await
    }

    /// Deletes what has owners of which none lives.
    async fn collect(&self, objects: &[Value], alive: &BTreeSet<&str>, kind: Kind) -> Result<(), Error> {
        for object in objects {
            if owners(object).next().is_some() && owners(object).all(|owner| !alive.contains(owner)) {
                self.delete(kind, text(object, "/metadata/name")).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, kind: Kind, name: &str) -> Result<(), Error> {
        match api(&self.client, &self.namespace, kind).delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            done => done.map(|_| ()).map_err(Error::from),
        }
    }

    /// Brings a workload's pods to what it asks for, and says so in its status.
    async fn work(&self, workload: &Value, mut pods: Vec<Value>) -> Result<(), Error> {
        let deploys = workload["kind"] == "Deployment";
        let wanted = usize::try_from(workload["spec"]["replicas"].as_u64().unwrap_or(1))?;
        let template = &workload["spec"]["template"];
        let digest = &template["metadata"]["annotations"][TEMPLATE_ANNOTATION];
        let runs = |pod: &Value| pod["metadata"]["annotations"][TEMPLATE_ANNOTATION] == *digest;
        let name = text(workload, "/metadata/name");
        pods.sort_by_key(|pod| {
            let cost = pod["metadata"]["annotations"][DELETION_COST].as_str().and_then(|cost| cost.parse().ok());
            (std::cmp::Reverse(cost.unwrap_or(0_i64)), ordinal(pod))
        });
        while pods.len() > wanted {
            if let Some(last) = pods.pop() {
                self.delete(POD, text(&last, "/metadata/name")).await?;
            }
        }
        for place in 0..wanted {
            if pods.len() < wanted && !pods.iter().any(|pod| ordinal(pod) == place) {
                pods.push(self.make(workload, &format!("{name}-{place}")).await?);
            }
        }
        pods.sort_by_key(ordinal);
        for pod in pods.iter_mut().rev() {
            if runs(pod) && !is_ready(pod) {
                break;
            }
            // A StatefulSet waits for a broken pod of an old revision, until somebody deletes it.
            if !runs(pod) && (deploys || is_ready(pod)) {
                let name = text(pod, "/metadata/name").to_owned();
                self.delete(POD, &name).await?;
                *pod = self.make(workload, &name).await?;
                if !is_ready(pod) {
                    break;
                }
            }
        }
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let mut status = json!({
            "observedGeneration": workload["metadata"]["generation"], "replicas": pods.len(), "readyReplicas": ready,
            "availableReplicas": ready, "updatedReplicas": pods.iter().filter(|pod| runs(pod)).count(),
        });
        // Zero is left out by the API server.
        let same = |field: &str| status[field].as_u64().unwrap_or(0) == workload["status"][field].as_u64().unwrap_or(0);
        let fields = ["observedGeneration", "replicas", "readyReplicas", "availableReplicas", "updatedReplicas"];
        if !fields.into_iter().all(same) {
            status = json!({"status": status});
            let kind = if deploys { DEPLOYMENT } else { STATEFUL_SET };
            api(&self.client, &self.namespace, kind).patch_status(name, &parameters(), &Patch::Merge(&status)).await?;
        }
        Ok(())
    }

    async fn make(&self, workload: &Value, name: &str) -> Result<Value, Error> {
        let template = &workload["spec"]["template"];
        let pod: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": workload["kind"], "name": workload["metadata"]["name"],
                    "uid": workload["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": template["spec"],
        }))?;
        let pods = api(&self.client, &self.namespace, POD);
        pods.create(&PostParams::default(), &pod).await?;
        let container = &template["spec"]["containers"][0];
        let broken = container["image"].as_str().is_some_and(|image| image.contains(BROKEN));
        let state = if broken {
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
        } else {
            json!({"running": {}})
        };
        Ok(self.say(name, &container["name"], !broken, state, 0).await?)
    }

    /// Makes a pod look as if it crashed again and again.
    pub async fn sicken(&self, pod: &str) -> Result<(), Error> {
        let state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
        self.say(pod, &json!("worker"), false, state, 5).await?;
        Ok(())
    }

    async fn say(
        &self,
        pod: &str,
        container: &Value,
        ready: bool,
        state: Value,
        restarts: i32,
    ) -> Result<Value, kube::Error> {
        let word = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": if ready { "Running" } else { "Pending" },
            "conditions": [{"type": "Ready", "status": word, "lastTransitionTime": Timestamp::now().to_string()}],
            "containerStatuses": [{
                "name": container, "image": "image", "imageID": "", "ready": ready, "restartCount": restarts,
                "state": state,
            }],
        }});
        let pods = api(&self.client, &self.namespace, POD);
        let said = pods.patch_status(pod, &parameters(), &Patch::Merge(&status)).await?;
        serde_json::to_value(said).map_err(kube::Error::SerdeError)
    }
}

/// Whether something came or went while it was looked at: everything that the API server refuses, but what it can't read.
fn is_race(error: &Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if !status.is_invalid())
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some("stand-in".to_owned()), ..PatchParams::default() }
}

fn ordinal(pod: &Value) -> usize {
    text(pod, "/metadata/name").rsplit('-').next().and_then(|place| place.parse().ok()).unwrap_or(usize::MAX)
}

/// The leader and the workers of a namespace.
type Said = (Option<String>, Vec<String>);

/// Answers for the coordinators of every namespace. Operators reach it as their HTTP proxy, so that names needn't resolve.
#[derive(Clone, Default)]
pub struct Coordinators(Arc<Mutex<BTreeMap<String, Said>>>);

impl Coordinators {
    /// Serves on a free port; the URL of it.
    pub async fn serve(&self) -> Result<String, Error> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("http://{address}"))
    }

    fn set(&self, namespace: &str, leader: Option<String>, workers: Vec<String>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(namespace.to_owned(), (leader, workers));
    }

    /// Forgets a namespace.
    pub fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }
}

async fn answer(State(coordinators): State<Coordinators>, request: Request) -> Response {
    let host = request.uri().host().unwrap_or_default();
    let namespace = host.split('.').nth(1).unwrap_or_default();
    let said = coordinators.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
    match said {
        Some((Some(leader), workers)) => {
            let workers: Vec<Value> = workers.into_iter().map(|id| json!({"id": id})).collect();
            axum::Json(json!({"leader": leader, "unowned": 0, "lag": 0, "workers": workers, "domains": []}))
                .into_response()
        }
        _ => StatusCode::BAD_GATEWAY.into_response(),
    }
}
