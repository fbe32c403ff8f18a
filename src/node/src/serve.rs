//! An HTTP server that ends with the process's stop signal.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http;
use axum::middleware;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::Service;
use tracing::{debug, warn};

use crate::leftover::read_away;
use crate::patience::{Patient, Shortage};
use crate::stop::Stop;

/// Open connections get this long to finish after a stop; the longest wait for an answer is as long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one server; more wait in the system's queue. Far more than the requests that a gateway has under way at
/// once, so that probes get through.
const CONNECTIONS_MAX: usize = 8_192;
/// How long the head of a request may take, and how long a connection may be idle: longer than the minute that the usual
/// load balancers keep theirs, so that it isn't this side that closes while a request is on its way.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Bytes of a connection that are read ahead, and that wait to be written beside one chunk of an answer: far more than a
/// head has, and with as many connections as requests are under way at once still little.
const BUFFER_MAX: usize = 32 << 10;
/// Wait after a connection that couldn't be taken.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    /// The API keys can't be read.
    #[error("can't read the API keys in {path}")]
    Keys {
        /// The file or folder.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
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

/// Serves until the stop, then lets open requests finish within [`DRAIN_TIMEOUT`]. Handlers find the client's address as
/// `ConnectInfo<SocketAddr>`. Clients that don't take their answers are given up, and sooner in this shortage.
pub async fn serve(listener: TcpListener, router: Router, shortage: Shortage, stop: Stop) -> Result<(), NodeError> {
    let router = router.layer(middleware::from_fn(read_away));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    let mut asked = stop.clone();
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, (connection, peer)) = tokio::select! {
            () = asked.asked() => break,
            next = next => next,
        };
        while open.try_join_next().is_some() {}
        let talk = converse(connection, peer, router.clone(), shortage.clone(), stop.clone());
        open.spawn(async move {
            talk.await;
            drop(place);
        });
    }
    drop(listener);
    let finished = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        debug!("connections were cut off by the stop");
    }
    Ok(())
}

/// The next connection. What fails is one connection, or for lack of descriptors all of them until some are closed.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                warn!(%error, "can't take connections; trying again");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// The requests of one connection, until the client closes it, is silent, takes nothing, or the process stops.
async fn converse(connection: TcpStream, peer: SocketAddr, router: Router, shortage: Shortage, mut stop: Stop) {
    // An answer in several writes, as a stream's is, would otherwise wait for the client's word on the first.
    if let Err(error) = connection.set_nodelay(true) {
        debug!(%error, "small writes to a connection may be held back");
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(Patient::new(connection, shortage)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection ended early");
    }
}
