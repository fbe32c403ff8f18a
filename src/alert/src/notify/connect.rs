//! Connections: a name is resolved once, every address of it is checked, and the connection goes to an address that was checked.
//! A name that leads elsewhere a moment later leads nowhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Edges, Resolver};
use crate::retry::{FailureKind, SendError};

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;

/// The addresses of a host, all of them allowed.
pub(super) async fn resolve(
    edges: &Edges,
    host: &str,
    port: u16,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, SendError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<IpAddr> = match (bare.parse(), &edges.resolver) {
        (Ok(address), _) => vec![address],
        (Err(_), Resolver::Table(table)) => table.get(bare).cloned().unwrap_or_default(),
        (Err(_), Resolver::System) => {
            let unknown = |_| SendError::transient(FailureKind::Dns, "the host's name isn't resolved");
            tokio::net::lookup_host((bare, port)).await.map_err(unknown)?.map(|address| address.ip()).collect()
        }
    };
    if addresses.is_empty() {
        return Err(SendError::transient(FailureKind::Dns, "the host's name isn't resolved"));
    }
    // One address that isn't allowed among others that are is an attempt, not a mistake.
    for address in &addresses {
        if let Err(what) = edges.egress.check(*address, allow_private) {
            return Err(SendError::permanent(FailureKind::Denied, format!("the host's address is {what}")));
        }
    }
    Ok(addresses.into_iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, port)).collect())
}

/// A connection to one of the addresses.
pub(super) async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
    let mut failure = SendError::transient(FailureKind::Connect, "the host has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = SendError::transient(FailureKind::Connect, refused(&error)),
        }
    }
    Err(failure)
}

fn refused(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the host can't be reached",
        _ => "no connection came about",
    }
}

/// TLS to `host` over a connection.
pub(super) async fn tls(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, SendError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare)
        .map_err(|_| SendError::permanent(FailureKind::Tls, "the host's name isn't one that TLS knows"))?;
    let connector = TlsConnector::from(Arc::clone(config));
    connector.connect(name, stream).await.map_err(|error| untrusted(&error))
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether it is TLS that failed.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    cause(error).is_some()
}

/// A certificate stays what it is for a while; anything else may be a hiccup.
pub(super) fn untrusted(error: &io::Error) -> SendError {
    match cause(error) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            SendError::permanent(FailureKind::Tls, format!("the certificate isn't trusted: {why}"))
        }
        Some(other) => SendError::transient(FailureKind::Tls, format!("TLS failed: {other}")),
        None => SendError::transient(FailureKind::Tls, "TLS failed: the connection ended"),
    }
}
