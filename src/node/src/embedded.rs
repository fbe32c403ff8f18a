//! All roles in one process over one store: the same code as in a cluster, without a server.

use std::net::SocketAddr;

use tracing::info;

use crate::roles::{Identity, run_coordinator, run_gateway_beside_owners, run_workers};
use crate::serve::NodeError;
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

/// Runs everything until the stop; the coordinator's APIs ask for the `token`, where there is one. The gateway finishes its requests before
/// the workers leave, so that each is answered.
///
/// # Errors
/// [`NodeError`] of the role that failed first; the others are stopped with it.
pub async fn run_embedded(
    store: Store,
    settings: &ClusterSettings,
    addresses: EmbeddedAddresses,
    token: Option<String>,
    stop: Stop,
) -> Result<(), NodeError> {
    let (engine_stopper, engine_stop) = stop_channel();
    let (front_stopper, front_stop) = stop_channel();
    let identity = |listen: SocketAddr| Identity { id: "local".to_owned(), listen, advertise: listen.to_string() };
    let gateway = run_gateway_beside_owners(store.clone(), settings, identity(addresses.gateway), front_stop);
    let coordinator = run_coordinator(
        store.clone(),
        settings,
        identity(addresses.coordinator),
        addresses.meta,
        token,
        engine_stop.clone(),
    );
    let workers = run_workers(store, settings, identity(addresses.worker), settings.workers.clone(), engine_stop);
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
