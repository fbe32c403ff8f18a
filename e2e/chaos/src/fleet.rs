//! What many clusters need to become ready on an API server with kube-controller-manager and no node: something that calls
//! their pods ready, as kubelets would, and coordinators that answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use hebb_api::names::CLUSTER_LABEL;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::Error;

/// The node that all pods are bound to: without one, their addresses would be refused in the Services' endpoints.
const NODE: &str = "fleet";
/// Pods that are called ready at once.
const CONCURRENCY: usize = 32;

/// The ready pods by namespace and cluster, with their roles.
type Ready = BTreeMap<(String, String), BTreeSet<(String, String)>>;

/// Kubelets and coordinators of all clusters.
#[derive(Clone, Default)]
pub struct Fleet {
    ready: Arc<Mutex<Ready>>,
    addresses: Arc<AtomicU32>,
}

impl Fleet {
    /// Makes the node.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn join(&self, client: &Client) -> Result<(), Error> {
        let node: Node = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))?;
        Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
        Ok(())
    }

    /// Binds every pod soon after it was made, and calls it ready, until the task is ended.
    pub async fn run(self, client: Client) {
        let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
        let applied = pods.applied_objects().filter_map(|pod| std::future::ready(pod.ok()));
        let (fleet, client) = (&self, &client);
        applied
            .for_each_concurrent(CONCURRENCY, |pod| async move {
                // A pod that has gone meanwhile needs nothing.
                if let Err(error) = fleet.begin(client, &pod).await
                    && !matches!(&error, kube::Error::Api(status) if status.is_not_found())
                {
                    eprintln!("pod {}: {error}", pod.name_any());
                }
            })
            .await;
    }

    async fn begin(&self, client: &Client, pod: &Pod) -> Result<(), kube::Error> {
        let started = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        if started || pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
            let name = pod.name_any();
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            });
            let _: Value = pods.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
            // Its event brings the pod here again.
            return Ok(());
        }
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let number = self.addresses.fetch_add(1, Ordering::Relaxed);
        let ip = std::net::Ipv4Addr::from(0x0a00_0001 + number).to_string();
        let statuses: Vec<Value> = containers
            .iter()
            .map(|container| {
                json!({
                    "name": container.name, "image": container.image, "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}},
                })
            })
            .collect();
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string()}],
            "containerStatuses": statuses,
        }});
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
        let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
        let (cluster, role) = (label(CLUSTER_LABEL), label("app.kubernetes.io/component"));
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.entry((namespace, cluster)).or_default().insert((role, pod.name_any()));
        Ok(())
    }

    /// Answers for the coordinators on a free port; the URL of it. The operator reaches it as its HTTP proxy.
    ///
    /// # Errors
    /// No port.
    pub async fn serve(&self) -> Result<String, Error> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("http://{address}"))
    }

    fn status(&self, namespace: &str, cluster: &str) -> Option<Value> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = ready.get(&(namespace.to_owned(), cluster.to_owned()))?;
        let leader = pods.iter().find(|(role, _)| role == "coordinator").map(|(_, name)| name)?;
        let workers = pods.iter().filter(|(role, _)| role == "worker");
        let workers: Vec<Value> = workers.map(|(_, id)| json!({"id": id})).collect();
        Some(json!({"leader": leader, "unowned": 0, "lag": 0, "workers": workers, "domains": []}))
    }
}

async fn answer(State(fleet): State<Fleet>, request: Request) -> Response {
    let mut words = request.uri().host().unwrap_or_default().split('.');
    let cluster = words.next().and_then(|service| service.strip_suffix("-coordinator")).unwrap_or_default();
    match fleet.status(words.next().unwrap_or_default(), cluster) {
        Some(status) => axum::Json(status).into_response(),
        None => StatusCode::BAD_GATEWAY.into_response(),
    }
}
