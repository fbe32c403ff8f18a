//! One function a role: opens the port, runs the role's loop and its server until the stop.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::warn;

use crate::browser::local;
use crate::coordinator::{Coordinator, CoordinatorOptions};
use crate::gateway::{Gateway, GatewayOptions, KeyRing, unknown_address, wrong_method};
use crate::patience::Shortage;
use crate::serve::{NodeError, listen, serve};
use crate::settings::ClusterSettings;
use crate::stop::{Stop, stop_channel};
use crate::store::Store;
use crate::worker::{Crew, WorkerCount, WorkerOptions};

/// Who a process is and where it is reached.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Unique among the processes of its role, for example the pod's name.
    pub id: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the others reach it, `host:port`.
    pub advertise: String,
}

/// Runs a gateway.
///
/// # Errors
/// [`NodeError`] when the port is taken, the API keys can't be read, or the server fails.
pub async fn run_gateway(
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    stop: Stop,
) -> Result<(), NodeError> {
    let listener = listen(identity.listen).await?;
    serve_gateway(listener, store, settings, identity, Some(settings.sync_interval), stop).await
}

/// A gateway on a port that is open. Without a `sync_interval` it keeps no copies of partitions.
pub(crate) async fn serve_gateway(
    listener: TcpListener,
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    sync_interval: Option<Duration>,
    stop: Stop,
) -> Result<(), NodeError> {
    let keys = settings.access.api_keys.clone().map(|path| {
        let shown = path.display().to_string();
        KeyRing::open(path).map_err(|source| NodeError::Keys { path: shown, source })
    });
    let gateway = Gateway::new(
        store,
        GatewayOptions {
            id: format!("{}-{:08x}", identity.id, rand::random::<u32>()),
            max_queue_size: settings.max_queue_size,
            allow_undeclared_domains: settings.allow_undeclared_domains,
            hyperparameters: settings.hyperparameters.clone(),
            keys: keys.transpose()?,
            limits: settings.access.limits(),
            sync_interval,
        },
    )?;
    // Replies are handed out until the last open request has ended, so that a stop leaves none without its answer.
    let (stopper, served) = stop_channel();
    let serving = async {
        let router = local(gateway.router(), identity.listen, settings.access.api_keys.is_some());
        let ended = serve(listener, router, gateway.shortage(), stop).await;
        stopper.stop();
        ended
    };
    let (ended, ()) = tokio::join!(serving, gateway.run(served));
    ended
}

/// Runs a coordinator, with the API of meta-learning on a port of its own.
///
/// # Errors
/// [`NodeError`] when the port is taken or the server fails.
pub async fn run_coordinator(
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    meta: SocketAddr,
    token: Option<String>,
    stop: Stop,
) -> Result<(), NodeError> {
    let listeners = (listen(identity.listen).await?, listen(meta).await?);
    serve_coordinator(listeners, store, settings, identity, meta, token, stop).await
}

/// A coordinator on ports that are open: its own, and that of meta-learning.
pub(crate) async fn serve_coordinator(
    (listener, meta_listener): (TcpListener, TcpListener),
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    meta: SocketAddr,
    token: Option<String>,
    stop: Stop,
) -> Result<(), NodeError> {
    let options = CoordinatorOptions {
        id: identity.id,
        address: identity.advertise,
        domains: settings.domains.clone(),
        token,
        meta: settings.meta_learning.clone(),
        max_queue_size: settings.max_queue_size,
        target_acceptance: settings.governance.admission.target_acceptance,
    };
    let asks = options.token.is_some();
    if settings.access.api_keys.is_some() && !asks && identity.listen.ip().is_loopback() {
        warn!(
            coordinator = %identity.listen, %meta,
            "keys are for the API alone: whoever is on this machine may look at the dashboard and steer meta-learning, \
             without a key; --internal-token asks for a token"
        );
    }
    let coordinator = Coordinator::new(store, options)?;
    let (ended, meta_ended, ()) = tokio::join!(
        serve(listener, local(coordinator.router(), identity.listen, asks), Shortage::default(), stop.clone()),
        serve(meta_listener, local(coordinator.meta_router(), meta, asks), Shortage::default(), stop.clone()),
        coordinator.run(stop),
    );
    ended.and(meta_ended)
}

/// Runs the workers of a process. Their health is served until everything is handed over.
///
/// # Errors
/// [`NodeError`] when the port is taken or the server fails.
pub async fn run_workers(
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    count: impl Into<WorkerCount>,
    stop: Stop,
) -> Result<(), NodeError> {
    let listener = listen(identity.listen).await?;
    serve_workers(listener, store, settings, identity, count, stop).await
}

/// The workers of a process on a port that is open.
pub(crate) async fn serve_workers(
    listener: TcpListener,
    store: Store,
    settings: &ClusterSettings,
    identity: Identity,
    count: impl Into<WorkerCount>,
    stop: Stop,
) -> Result<(), NodeError> {
    let crew = Crew::new(store, worker_options(settings, identity.id))?;
    let router = crew.router().fallback(unknown_address).method_not_allowed_fallback(wrong_method);
    let router = local(router, identity.listen, false);
    let (ended, ()) =
        tokio::join!(serve(listener, router, Shortage::default(), stop.clone()), crew.run(count.into(), stop));
    ended
}

/// Runs workers without a port.
///
/// # Errors
/// [`NodeError`] when they can't be made.
pub(crate) async fn run_workers_within(
    store: Store,
    settings: &ClusterSettings,
    id: String,
    count: u16,
    stop: Stop,
) -> Result<(), NodeError> {
    Crew::new(store, worker_options(settings, id))?.run(count.into(), stop).await;
    Ok(())
}

fn worker_options(settings: &ClusterSettings, id: String) -> WorkerOptions {
    WorkerOptions {
        id,
        checkpoint_interval: settings.checkpoint_interval,
        governance: settings.governance,
        max_queue_size: settings.max_queue_size,
        skip_unreadable: settings.skip_unreadable,
    }
}
