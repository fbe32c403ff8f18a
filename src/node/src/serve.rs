//! An HTTP server that ends with the process's stop signal.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tracing::debug;

use crate::leftover::read_away;
use crate::stop::Stop;

/// Open connections get this long to finish after a stop; the longest wait for an answer is as long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a role ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The address is taken or not allowed.
    #[error("can't listen on {address}; is another process using it?")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The server failed while it ran.
    #[error("the HTTP server failed")]
    Serve(#[source] std::io::Error),
    /// The store can't be used.
    #[error("the store can't be used")]
    Store(#[from] hebb_log::LogError),
    /// A metric can't be registered.
    #[error("the metrics can't be set up")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be set up")]
    Client(#[from] reqwest::Error),
}

/// Opens the port, so that a taken one is an error at the start and not later.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })
}

/// Serves until the stop, then lets open requests finish within [`DRAIN_TIMEOUT`].
pub async fn serve(listener: TcpListener, router: Router, stop: Stop) -> Result<(), NodeError> {
    let mut asked = stop.clone();
    let mut late = stop;
    // An answer in several writes, as a stream's is, would otherwise wait for the client's word on the first.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            debug!(%error, "small writes to a connection may be held back");
        }
    });
    let router = router.layer(middleware::from_fn(read_away));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { asked.asked().await });
    let overdue = async {
        late.asked().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        ended = served.into_future() => ended.map_err(NodeError::Serve),
        () = overdue => Ok(()),
    }
}
