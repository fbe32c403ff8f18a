//! The operator: LearningClusters become workloads and stay what their specs say; AlertPolicies are evaluated, told and acted on.
//!
//! One operator at a time acts, by a Lease; the others wait. Every controller reads what is, decides purely what should
//! be, writes the difference, and says in the status what came of it.

mod admission;
mod alert_policy;
mod conditions;
mod context;
mod http;
mod leadership;
mod learning_cluster;
mod metrics;
mod unreadable;
mod watches;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use hebb_alert::notify::{Edges, EdgesError, Egress, Resolver};
use hebb_api::{AlertPolicy, LearningCluster, names};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::client::ClientBuilder;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info};

use self::admission::Desk;
pub use self::admission::Webhook;
use self::alert_policy::Pasts;
use self::context::{Context, Failures, Paces, Written};
use self::http::WatchAge;
use self::leadership::Candidate;
use self::learning_cluster::elections::Elections;
use self::learning_cluster::known::Known;
use self::learning_cluster::render::Kind;
use self::learning_cluster::requests::Requests;
use self::learning_cluster::scrape::Coordinators;
pub use self::learning_cluster::topology::Defaults;
use self::metrics::Metrics;
use self::watches::Watches;

/// Objects of a kind that are worked on at once: one slow cluster doesn't hold up the others, and the API server isn't
/// flooded after a restart.
const CONCURRENCY: u16 = 8;
/// Clusters that wait to be looked at because their coordinator said something new.
const CHANGED_MAX: usize = 1_024;

/// What the operator is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the defaults of LearningClusters come from.
    pub defaults: Defaults,
    /// The namespace that is watched; all where none is named.
    pub namespace: Option<String>,
    /// Unique name of this process.
    pub identity: String,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// What the receivers of alerts may reach.
    pub egress: Egress,
    /// Certificates (PEM) that receivers are trusted by, besides those of the system.
    pub receiver_roots: Vec<u8>,
    /// How the admission webhook is served; without it there is none.
    pub webhook: Option<Webhook>,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No configuration of a cluster.
    #[error("no Kubernetes cluster is configured: run in a pod, or set KUBECONFIG")]
    Config(#[source] kube::config::InferConfigError),
    /// A configuration that no client can be made from.
    #[error("the Kubernetes client can't be set up")]
    Client(#[source] kube::Error),
    /// The port is taken.
    #[error("can't listen on {address}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The definitions are missing.
    #[error(
        "the LearningCluster and AlertPolicy definitions can't be read; are they installed, and may this account list them?"
    )]
    Definitions(#[source] kube::Error),
    /// A metric can't be registered.
    #[error("the metrics can't be set up")]
    Metrics(#[from] prometheus::Error),
    /// What receivers may reach can't be set up.
    #[error("the receivers of alerts can't be set up")]
    Edges(#[from] EdgesError),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be set up")]
    Http(#[from] reqwest::Error),
    /// Another operator may act now, so this process must not.
    #[error("the lease was lost")]
    LeaseLost,
    /// A task ended that must not.
    #[error("the {0} ended unexpectedly")]
    Task(&'static str),
}

/// Runs the operator against the cluster that the environment names, until `stop` becomes true.
///
/// # Errors
/// [`OperatorError`]; the process should end with it.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<(), OperatorError> {
    let config = kube::Config::infer().await.map_err(OperatorError::Config)?;
    run_with(config, settings, stop).await
}

/// Runs the operator against the API server of `config` until `stop` becomes true.
///
/// # Errors
/// [`OperatorError`]; the process should end with it.
pub async fn run_with(
    config: kube::Config,
    settings: Settings,
    stop: watch::Receiver<bool>,
) -> Result<(), OperatorError> {
    let watches = Watches::default();
    let builder = ClientBuilder::try_from(config).map_err(OperatorError::Client)?;
    let client = builder.with_layer(&watches).build();
    let metrics = Metrics::new()?;
    let age = WatchAge::default();
    let listener = listen(settings.listen).await?;
    let mut tasks: JoinSet<Result<(), OperatorError>> = JoinSet::new();
    let router = http::router(metrics.clone(), age.clone(), watches);
    let asked = stopped(stop.clone());
    tasks.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(asked).await;
        served.map_err(|_| OperatorError::Task("HTTP server"))
    });
    if let Some(webhook) = settings.webhook.clone() {
        let listener = listen(webhook.listen).await?;
        let desk = Desk {
            client: client.clone(),
            metrics: metrics.clone(),
            defaults: settings.defaults.clone(),
            egress: settings.egress.clone(),
            namespace: settings.namespace.clone(),
        };
        let asked = stop.clone();
        // Whoever leads: a review needs nobody's leave, and the others would otherwise be idle.
        tasks.spawn(async move {
            admission::serve(listener, webhook, desk, asked).await;
            Ok(())
        });
    }
    let lease_api: Api<Lease> = Api::namespaced(client.clone(), &settings.lease_namespace);
    tasks.spawn(prove_watching(lease_api.clone(), settings.lease_name.clone(), age, metrics.clone(), stop.clone()));

    let (leads, mut leading) = watch::channel(false);
    let candidate =
        Candidate { api: lease_api, name: settings.lease_name.clone(), identity: settings.identity.clone() };
    // The lease is held until the controllers have ended: whoever has it next must be the only one who writes.
    let (release, released) = watch::channel(false);
    tasks.spawn(async move {
        candidate.run(&leads, released.clone()).await;
        if *released.borrow() { Ok(()) } else { Err(OperatorError::LeaseLost) }
    });
    info!(
        identity = settings.identity,
        namespace = settings.namespace.as_deref().unwrap_or("(all)"),
        "waiting for the lease"
    );
    let mut early_stop = stop.clone();
    tokio::select! {
        _ = leading.wait_for(|leads| *leads) => {}
        _ = early_stop.wait_for(|asked| *asked) => {}
        ended = tasks.join_next() => return flatten(ended),
    }
    if !*stop.borrow() {
        metrics.leads(true);
        let mut work = JoinSet::new();
        control(&settings, client, metrics, stop.clone(), &mut work).await?;
        // The first to end says how it ends: the others only do so after a stop.
        loop {
            let ended = tokio::select! {
                ended = work.join_next() => ended,
                ended = tasks.join_next() => ended,
            };
            let result = flatten(ended);
            if result.is_err() || !*stop.borrow() {
                return result.and(Err(OperatorError::Task("operator")));
            }
            if work.is_empty() {
                break;
            }
        }
    }
    release.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        flatten(Some(ended))?;
    }
    Ok(())
}

/// Opens a port.
async fn listen(address: SocketAddr) -> Result<TcpListener, OperatorError> {
    TcpListener::bind(address).await.map_err(|source| OperatorError::Listen { address, source })
}

fn flatten(ended: Option<Result<Result<(), OperatorError>, tokio::task::JoinError>>) -> Result<(), OperatorError> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(OperatorError::Task("operator's task")),
        None => Ok(()),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that whoever could ask is gone, which asks too.
    let _ = stop.wait_for(|asked| *asked).await;
}

/// Starts the controllers.
async fn control(
    settings: &Settings,
    client: Client,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
    tasks: &mut JoinSet<Result<(), OperatorError>>,
) -> Result<(), OperatorError> {
    let clusters: Api<LearningCluster> = scoped(&client, settings);
    let policies: Api<AlertPolicy> = scoped(&client, settings);
    let one = kube::api::ListParams::default().limit(1);
    clusters.list_metadata(&one).await.map_err(OperatorError::Definitions)?;
    policies.list_metadata(&one).await.map_err(OperatorError::Definitions)?;

    let (changed, changes) = mpsc::channel(CHANGED_MAX);
    let (policies_changed, policy_changes) = mpsc::channel(CHANGED_MAX);
    let edges = Edges::new(settings.egress.clone(), Resolver::System, &settings.receiver_roots, None)?;
    let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: Some(settings.identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        defaults: settings.defaults.clone(),
        coordinators: Coordinators::default(),
        elections: Elections::default(),
        failures: Failures::default(),
        paces: Paces::default(),
        written: Written::default(),
        known: Known::default(),
        edges,
        pasts: Pasts::default(),
        requests: Requests::default(),
        clusters_changed: changed.clone(),
        policies_changed,
    });
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let coordinators = context.coordinators.clone();
    let elections = context.elections.clone();
    let asked = stopped(stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = coordinators.ask(http, changed.clone()) => Err(OperatorError::Task("coordinator client")),
            () = elections.ask(changed.clone()) => Err(OperatorError::Task("Sentinel client")),
            () = asked => Ok(()),
        }
    });
    tasks.spawn(run_clusters(settings.clone(), context.clone(), changes, stop.clone()));
    tasks.spawn(run_policies(settings.clone(), context, policy_changes, stop));
    Ok(())
}

fn scoped<K>(client: &Client, settings: &Settings) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match &settings.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn run_clusters(
    settings: Settings,
    context: Arc<Context>,
    changes: mpsc::Receiver<ObjectRef<LearningCluster>>,
    stop: watch::Receiver<bool>,
) -> Result<(), OperatorError> {
    let client = context.client.clone();
    // One object that can't be read must not end the watch of all.
    let clusters: Api<DeserializeGuard<LearningCluster>> = scoped(&client, &settings);
    // The status that a pass writes must not start the next one.
    let significant = |cluster: &DeserializeGuard<LearningCluster>| {
        predicates::generation(cluster).map(|hash| hash ^ annotations(cluster))
    };
    let (store, writer) = kube::runtime::reflector::store();
    let stream = watcher(clusters, watcher::Config::default())
        .default_backoff()
        .inspect(let_go(context.clone()))
        .modify(forget_managers)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(significant, PredicateConfig::default());
    Controller::for_stream(persistent("learningclusters", stream), store)
        .owns_stream(children::<Deployment>(&settings, &context, Kind::Deployment))
        .owns_stream(children::<ReplicaSet>(&settings, &context, Kind::ReplicaSet))
        .owns_stream(children::<StatefulSet>(&settings, &context, Kind::StatefulSet))
        .owns_stream(children::<Service>(&settings, &context, Kind::Service))
        .owns_stream(children::<ConfigMap>(&settings, &context, Kind::ConfigMap))
        .owns_stream(children::<ServiceAccount>(&settings, &context, Kind::ServiceAccount))
        .owns_stream(children::<PodDisruptionBudget>(&settings, &context, Kind::PodDisruptionBudget))
        .owns_stream(children::<HorizontalPodAutoscaler>(&settings, &context, Kind::HorizontalPodAutoscaler))
        .owns_stream(children::<NetworkPolicy>(&settings, &context, Kind::NetworkPolicy))
        .owns_stream(children::<CronJob>(&settings, &context, Kind::CronJob))
        // That of a certificate belongs to cert-manager.
        .watches_stream(children::<Secret>(&settings, &context, Kind::Secret), of_label)
        .watches_stream(persistent("jobs", ours::<Job>(&settings, &client).touched_objects()), of_label)
        .watches_stream(persistent("pods", ours::<Pod>(&settings, &client).touched_objects()), of_label)
        .reconcile_on(calls(changes))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopped(stop.clone()))
        .run(learning_cluster::reconcile, learning_cluster::on_error, context)
        .for_each(|ended| async move {
            if let Err(error) = ended {
                debug!(%error, "LearningCluster controller");
            }
        })
        .await;
    if *stop.borrow() { Ok(()) } else { Err(OperatorError::Task("LearningCluster controller")) }
}

/// Lets go of clusters that are gone, as the watch tells of it or leaves them out when it begins anew.
fn let_go(
    context: Arc<Context>,
) -> impl FnMut(&Result<watcher::Event<DeserializeGuard<LearningCluster>>, watcher::Error>) {
    let mut listed = BTreeSet::new();
    move |event| match event {
        Ok(watcher::Event::Init) => listed.clear(),
        Ok(watcher::Event::InitApply(cluster)) => listed.extend(cluster.uid()),
        Ok(watcher::Event::InitDone) => context.retain(|uid| listed.contains(uid)),
        Ok(watcher::Event::Delete(cluster)) => context.retain(|uid| Some(uid) != cluster.uid().as_deref()),
        Ok(watcher::Event::Apply(_)) | Err(_) => {}
    }
}

/// Who owns which field of a stored object is asked by nobody, and is the largest part of it.
fn forget_managers(object: &mut impl kube::Resource) {
    object.meta_mut().managed_fields = None;
}

/// The children of a kind, each time that one changes; what is known of them is kept up on the way.
fn children<K>(
    settings: &Settings,
    context: &Arc<Context>,
    kind: Kind,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + use<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let context = context.clone();
    let events = ours::<K>(settings, &context.client).inspect(move |event| {
        if let Ok(event) = event {
            context.known.hear(kind, event);
        }
    });
    persistent(kind.names().3, events.touched_objects())
}

/// What happens to the objects of a kind that Hebb makes, by their metadata.
fn ours<K>(
    settings: &Settings,
    client: &Client,
) -> impl Stream<Item = Result<watcher::Event<PartialObjectMeta<K>>, watcher::Error>> + Send + use<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let labelled = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={}", names::MANAGER));
    watcher(scoped::<PartialObjectMeta<K>>(client, settings), labelled).default_backoff()
}

/// A watch that is taken up again after each failure, and keeps it to itself: a controller that hears of one holds back all
/// its watches, longer with each, and would be deaf for minutes after an API server has lost them all at once.
fn persistent<T>(
    what: &'static str,
    watch: impl Stream<Item = Result<T, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<T, watcher::Error>> + Send
where
    T: Send + 'static,
{
    watch.filter(move |item| {
        if let Err(error) = item {
            debug!(what, %error, "a watch broke off; it is taken up again");
        }
        std::future::ready(item.is_ok())
    })
}

/// The cluster that an object is part of by its label.
fn of_label(object: impl ResourceExt) -> Option<ObjectRef<DeserializeGuard<LearningCluster>>> {
    let cluster = object.labels().get(names::CLUSTER_LABEL)?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

/// The objects that something calls for a pass over.
fn calls<K>(changes: mpsc::Receiver<ObjectRef<K>>) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send
where
    K: kube::Resource<DynamicType = ()> + Send + 'static,
{
    futures::stream::unfold(changes, |mut changes| async move {
        changes.recv().await.map(|key| {
            let key = ObjectRef::new(&key.name).within(key.namespace.as_deref().unwrap_or_default());
            (key, changes)
        })
    })
}

fn annotations(cluster: &DeserializeGuard<LearningCluster>) -> u64 {
    predicates::annotations(cluster).unwrap_or(0).rotate_left(17)
}

async fn run_policies(
    settings: Settings,
    context: Arc<Context>,
    changes: mpsc::Receiver<ObjectRef<AlertPolicy>>,
    stop: watch::Receiver<bool>,
) -> Result<(), OperatorError> {
    let client = context.client.clone();
    let policies: Api<DeserializeGuard<AlertPolicy>> = scoped(&client, &settings);
    let (store, writer) = kube::runtime::reflector::store();
    let stream = watcher(policies, watcher::Config::default())
        .default_backoff()
        .modify(forget_managers)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            |policy: &DeserializeGuard<AlertPolicy>| {
                predicates::generation(policy)
                    .map(|hash| hash ^ predicates::annotations(policy).unwrap_or(0).rotate_left(17))
            },
            PredicateConfig::default(),
        );
    let known = store.clone();
    // A policy's target may come and go: every policy of the namespace is looked at again.
    let of_cluster = move |cluster: PartialObjectMeta<LearningCluster>| {
        let namespace = cluster.namespace();
        known
            .state()
            .into_iter()
            .filter(move |policy| policy.namespace() == namespace)
            .map(|policy| ObjectRef::from_obj(&*policy))
            .collect::<Vec<_>>()
    };
    let targets = watcher(scoped::<PartialObjectMeta<LearningCluster>>(&client, &settings), watcher::Config::default());
    Controller::for_stream(persistent("alertpolicies", stream), store)
        .watches_stream(persistent("learningclusters", targets.default_backoff().touched_objects()), of_cluster)
        .reconcile_on(calls(changes))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopped(stop.clone()))
        .run(alert_policy::reconcile, alert_policy::on_error, context)
        .for_each(|ended| async move {
            if let Err(error) = ended {
                debug!(%error, "AlertPolicy controller");
            }
        })
        .await;
    if *stop.borrow() { Ok(()) } else { Err(OperatorError::Task("AlertPolicy controller")) }
}

/// Watches the Lease, which is renewed all the time, so that a watch that has died is noticed.
async fn prove_watching(
    leases: Api<Lease>,
    name: String,
    age: WatchAge,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
) -> Result<(), OperatorError> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(leases, config).default_backoff().boxed();
    let mut asked = stop;
    loop {
        tokio::select! {
            _ = asked.wait_for(|asked| *asked) => return Ok(()),
            event = events.next() => match event {
                Some(Ok(_)) => {
                    if let Some(silence) = age.heard() {
                        metrics.watch_spoke(silence);
                    }
                }
                Some(Err(error)) => debug!(%error, "the watch of the lease broke off; it is taken up again"),
                None => return Err(OperatorError::Task("watch of the lease")),
            }
        }
    }
}
