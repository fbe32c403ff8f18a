//! A namespace, operators in it, and how to look at both.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hebb_api::{AlertPolicy, LearningCluster};
use hebb_operator::{Defaults, OperatorError, Settings, Webhook};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LEASE: &str = "operator";

/// Asks until there is an answer; fails, naming `what`, when time is up.
pub async fn within<T>(what: &str, limit: Duration, ask: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            eprintln!("{what}: {:.1} s", started.elapsed().as_secs_f64());
            return answer;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A port of the loopback address that nobody uses.
pub async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A LearningCluster with this spec.
pub fn cluster(name: &str, spec: Value) -> LearningCluster {
    serde_json::from_value(json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// An AlertPolicy with this spec.
pub fn policy(name: &str, spec: Value) -> AlertPolicy {
    serde_json::from_value(json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": "AlertPolicy", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// A condition as `status reason message`; empty where it doesn't stand.
pub fn condition(status: &Value, type_: &str) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == type_);
    found.map_or(String::new(), |condition| {
        let word = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("status"), word("reason"), word("message"))
    })
}

/// A namespace of its own.
pub struct Scenario {
    client: Client,
    namespace: String,
}

impl Scenario {
    pub async fn new(client: Client, name: &str) -> Self {
        let metadata = ObjectMeta { generate_name: Some(format!("{name}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { client, namespace: made.name_any() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Starts an operator for this namespace.
    pub async fn operator(&self, identity: &str, image: &str) -> Operator {
        self.operator_with(identity, image, None).await
    }

    /// As [`Scenario::operator`], with an admission webhook.
    pub async fn operator_with(&self, identity: &str, image: &str, webhook: Option<Webhook>) -> Operator {
        let address = free_address().await;
        let settings = Settings {
            defaults: Defaults {
                image: image.to_owned(),
                redis_image: "redis:7".to_owned(),
                cluster_domain: "cluster.invalid".to_owned(),
                operator_namespace: "hebb-system".to_owned(),
            },
            namespace: Some(self.namespace.clone()),
            identity: identity.to_owned(),
            lease_namespace: self.namespace.clone(),
            lease_name: LEASE.to_owned(),
            listen: address,
            egress: hebb_alert::notify::Egress::default(),
            receiver_roots: Vec::new(),
            webhook,
        };
        let (stop, asked) = watch::channel(false);
        let task = tokio::spawn(hebb_operator::run_with(crate::plane::config().await, settings, asked));
        Operator { address, stop, task }
    }

    pub async fn create<K>(&self, object: &K)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        self.api::<K>().create(&PostParams::default(), object).await.unwrap();
    }

    fn raw(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<LearningCluster>(&()))
    }

    /// Creates a LearningCluster whose spec the types don't have; the definition may take a moment to allow it.
    pub async fn create_raw(&self, name: &str, spec: Value) {
        let object = DynamicObject::new(name, &ApiResource::erase::<LearningCluster>(&())).data(json!({"spec": spec}));
        within("the relaxed definition is in force", Duration::from_secs(30), async || {
            self.raw().create(&PostParams::default(), &object).await.inspect_err(|error| eprintln!("{error}")).ok()
        })
        .await;
    }

    /// What the API server says to a LearningCluster that it refuses.
    pub async fn create_refused(&self, name: &str, spec: Value) -> String {
        self.api::<LearningCluster>()
            .create(&PostParams::default(), &cluster(name, spec))
            .await
            .unwrap_err()
            .to_string()
    }

    pub async fn stalled_raw(&self, name: &str, named: &str, limit: Duration) {
        within("the unreadable object says why", limit, async || {
            let object = self.raw().get(name).await.unwrap();
            let stalled = condition(&object.data["status"], "Stalled");
            (stalled.starts_with("True") && stalled.contains(named)).then_some(())
        })
        .await;
    }

    /// Changes fields as a person would with `kubectl apply --server-side --force-conflicts`.
    pub async fn patch<K>(&self, name: &str, mut fields: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        fields["apiVersion"] = json!(K::api_version(&()));
        fields["kind"] = json!(K::kind(&()));
        let parameters = PatchParams::apply("a-person").force();
        self.api::<K>().patch(name, &parameters, &Patch::Apply(&fields)).await.unwrap();
    }

    pub async fn change(&self, name: &str, fields: Value) {
        self.api::<LearningCluster>().patch(name, &PatchParams::default(), &Patch::Merge(&fields)).await.unwrap();
    }

    pub async fn change_policy(&self, name: &str, fields: Value) {
        self.api::<AlertPolicy>().patch(name, &PatchParams::default(), &Patch::Merge(&fields)).await.unwrap();
    }

    /// Waits until the status of `demo` says what is wanted.
    pub async fn status(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        within(what, limit, async || {
            let cluster = self.api::<LearningCluster>().get("demo").await.unwrap();
            let status = serde_json::to_value(cluster.status).unwrap();
            wanted(&status).then_some(status)
        })
        .await
    }

    /// Everything of the kinds that the operator makes.
    async fn objects(&self) -> Vec<Value> {
        let mut objects = self.list::<ServiceAccount>().await;
        objects.extend(self.list::<Secret>().await);
        objects.extend(self.list::<ConfigMap>().await);
        objects.extend(self.list::<Service>().await);
        objects.extend(self.list::<StatefulSet>().await);
        objects.extend(self.list::<Deployment>().await);
        objects.extend(self.list::<ReplicaSet>().await);
        objects.extend(self.list::<PodDisruptionBudget>().await);
        objects.extend(self.list::<HorizontalPodAutoscaler>().await);
        objects.extend(self.list::<NetworkPolicy>().await);
        objects
    }

    async fn list<K>(&self) -> Vec<Value>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let selected = ListParams::default().labels("app.kubernetes.io/managed-by=hebb-operator");
        let list = self.api::<K>().list(&selected).await.unwrap();
        list.items.into_iter().map(|item| serde_json::to_value(item).unwrap()).collect()
    }

    /// Waits until the operator has made so many objects.
    pub async fn children(&self, count: usize) -> Vec<Value> {
        within(&format!("{count} children"), Duration::from_secs(30), async || {
            let objects = self.objects().await;
            (objects.len() == count).then_some(objects)
        })
        .await
    }

    /// The resource versions of all children and of every LearningCluster, by uid.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let mut objects = self.objects().await;
        for cluster in self.api::<LearningCluster>().list(&ListParams::default()).await.unwrap() {
            objects.push(serde_json::to_value(cluster).unwrap());
        }
        let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        objects.iter().map(|object| (text(object, "uid"), text(object, "resourceVersion"))).collect()
    }

    pub async fn steal_lease(&self, identity: &str) {
        let spec = json!({"spec": {"holderIdentity": identity}});
        self.api::<Lease>().patch(LEASE, &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
    }
}

/// A running operator.
pub struct Operator {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), OperatorError>>,
}

impl Operator {
    /// Stops it in order.
    pub async fn stop(self) -> Result<(), OperatorError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        self.task.abort();
    }

    pub async fn ended(self) -> Result<(), OperatorError> {
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap()
    }

    async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("http://{}/metrics", self.address)).await;
        match answer {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The sum of a metric's lines that begin so.
    pub async fn sum(&self, metric: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Writes to the API server, without lease renewals.
    pub async fn writes(&self) -> f64 {
        self.sum("hebb_api_writes_total").await
    }

    pub async fn is_leading(&self) -> bool {
        self.sum("hebb_operator_leads").await > 0.0
    }

    pub async fn leads(&self, limit: Duration) {
        within("leads", limit, async || self.is_leading().await.then_some(())).await;
    }

    /// Waits until so many passes have ended.
    pub async fn passes(&self, count: usize) {
        within("passes", Duration::from_secs(30), async || {
            (self.sum("hebb_reconcile_total").await >= count as f64).then_some(())
        })
        .await;
    }
}
