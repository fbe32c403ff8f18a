//! All roles in one process over one store: the same code as in a cluster, without a server.

use std::net::SocketAddr;

use tracing::info;

use crate::roles::{Identity, serve_coordinator, serve_gateway, serve_workers};
use crate::serve::{NodeError, listen};
use crate::settings::ClusterSettings;
use crate::stop::{Stop, stop_channel};
use crate::store::Store;

/// Where an embedded process listens.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedAddresses {
    /// The API.
    pub gateway: SocketAddr,
    /// The status API.
    pub coordinator: SocketAddr,
    /// The API of meta-learning.
    pub meta: SocketAddr,
    /// The worker's health and metrics.
    pub worker: SocketAddr,
}

/// Who an embedded process is.
#[derive(Clone, Debug)]
pub struct EmbeddedIdentity {
    /// Unique among the processes that share the store.
    pub id: String,
    /// Where those reach its status API, `host:port`.
    pub advertise: String,
}

/// Runs everything until the stop; the coordinator's APIs ask for the `token`, where there is one. The gateway finishes its
/// requests before the workers leave, so that each is answered.
///
/// # Errors
/// [`NodeError`] of the role that failed first; the others are stopped with it.
pub async fn run_embedded(
    store: Store,
    settings: &ClusterSettings,
    who: EmbeddedIdentity,
    addresses: EmbeddedAddresses,
    token: Option<String>,
    stop: Stop,
) -> Result<(), NodeError> {
    let (engine_stopper, engine_stop) = stop_channel();
    let (front_stopper, front_stop) = stop_channel();
    // All of them first, so that nothing begins where one is taken.
    let gateway = listen(addresses.gateway).await?;
    let coordinator = (listen(addresses.coordinator).await?, listen(addresses.meta).await?);
    let worker = listen(addresses.worker).await?;
    info!(cluster = settings.name, api = %addresses.gateway, status = %addresses.coordinator, "serving");
    let identity = |listen: SocketAddr| Identity { id: who.id.clone(), listen, advertise: who.advertise.clone() };
    // Copies of partitions would be of no use: their owners are here.
    let gateway = serve_gateway(gateway, store.clone(), settings, identity(addresses.gateway), None, front_stop);
    let coordinator = serve_coordinator(
        coordinator,
        store.clone(),
        settings,
        identity(addresses.coordinator),
        addresses.meta,
        token,
        engine_stop.clone(),
    );
    let worker_identity = identity(addresses.worker);
    let workers = serve_workers(worker, store, settings, worker_identity, settings.workers.clone(), engine_stop);
    let front = async {
        let ended = gateway.await;
        engine_stopper.stop();
        ended
    };
    let engine = async {
        let ended = tokio::try_join!(coordinator, workers).map(|_| ());
        front_stopper.stop();
        ended
    };
    let mut asked = stop;
    let watch = async {
        asked.asked().await;
        info!("stopping");
        front_stopper.stop();
    };
    tokio::select! {
        ended = async { tokio::join!(front, engine) } => ended.0.and(ended.1),
        () = async { watch.await; std::future::pending().await } => Ok(()),
    }
}
