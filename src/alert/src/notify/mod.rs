//! The I/O edge: hands a message to a receiver, once. Whether and when it is handed over again is not decided here.
//!
//! Receivers are named by tenants, so connections go only where [`Egress`] lets them, redirects are not followed, every wait ends
//! at the deadline, and no error says anything that is kept in a Secret.

mod bounded;
mod connect;
mod discord;
mod egress;
mod email;
mod file;
mod http;
mod pagerduty;
mod secrets;
mod slack;
mod webhook;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hebb_api::{Receiver, WebhookReceiver};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tracing::{info, warn};

pub use egress::{Egress, Net, NetError};
pub use secrets::Secrets;

use crate::action::Run;
use crate::message::{Message, Standing};
use crate::retry::{FailureKind, SendError};
use crate::template::cut;

/// Bytes of an Event's note.
const NOTE_MAX: usize = 1_000;

/// What the administrator of the process lets receivers reach.
#[derive(Clone, Debug)]
pub struct Edges {
    egress: Egress,
    resolver: Resolver,
    /// Without a protocol's name in the handshake: for mail.
    tls: Arc<ClientConfig>,
    /// The same with that of HTTP.
    https: Arc<ClientConfig>,
    roots: Vec<CertificateDer<'static>>,
    files: Option<PathBuf>,
}

/// Who knows the addresses of hosts.
#[derive(Clone, Debug, Default)]
pub enum Resolver {
    /// The system.
    #[default]
    System,
    /// This table alone.
    Table(BTreeMap<String, Vec<IpAddr>>),
}

/// Why the edges can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum EdgesError {
    /// A certificate that can't be read.
    #[error("the certificates to be trusted can't be read")]
    Roots,
    /// No TLS.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

impl Edges {
    /// Trusts the system's certificates and those of `roots` (PEM); writes files in `files`, if there is such a folder.
    ///
    /// # Errors
    /// [`EdgesError`] for certificates that can't be read.
    pub fn new(egress: Egress, resolver: Resolver, roots: &[u8], files: Option<PathBuf>) -> Result<Self, EdgesError> {
        let mut trusted = rustls_native_certs::load_native_certs().certs;
        for root in CertificateDer::pem_slice_iter(roots) {
            trusted.push(root.map_err(|_| EdgesError::Roots)?);
        }
        let mut store = RootCertStore::empty();
        // A certificate of the system that can't be parsed is of no use to anybody.
        store.add_parsable_certificates(trusted.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut https = tls.clone();
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { egress, resolver, tls: Arc::new(tls), https: Arc::new(https), roots: trusted, files })
    }
}

/// What came of a delivery that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The Events that the caller is to write: this crate knows no Kubernetes.
    pub events: Vec<EventNote>,
}

/// An Event about a LearningCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Name of the LearningCluster.
    pub target: String,
    /// Whether it is a Warning.
    pub warning: bool,
    /// What it is about, a closed word.
    pub reason: &'static str,
    /// What it says.
    pub note: String,
}

/// Hands `message` to `receiver`, once, and takes no longer than `deadline`.
///
/// # Errors
/// [`SendError`] with what went wrong, whether it may go better in a moment, and how long the receiver asks to wait.
pub async fn send(
    receiver: &Receiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
    deadline: Duration,
) -> Result<Delivered, SendError> {
    let sent = async {
        if let Some(slack) = &receiver.slack {
            slack::send(slack, message, secrets, edges).await?;
        } else if let Some(discord) = &receiver.discord {
            discord::send(discord, message, secrets, edges).await?;
        } else if let Some(email) = &receiver.email {
            email::send(email, message, secrets, edges).await?;
        } else if let Some(webhook) = &receiver.webhook {
            webhook::send(webhook, message, secrets, edges).await?;
        } else if let Some(pagerduty) = &receiver.pagerduty {
            pagerduty::send(pagerduty, message, secrets, edges).await?;
        } else if let Some(file) = &receiver.file {
            file::append(file, message, edges).await?;
        } else if receiver.log.is_some() {
            log(message);
        } else if receiver.event.is_some() {
            return Ok(Delivered { events: events(message) });
        } else {
            return Err(SendError::permanent(FailureKind::Content, "the receiver is of no kind"));
        }
        Ok(Delivered::default())
    };
    within(deadline, sent).await.map_err(|error| secrets.redacted(error))
}

/// Calls the webhook of an action, once, and takes no longer than `deadline`.
///
/// # Errors
/// [`SendError`] with what went wrong.
pub async fn call(
    webhook: &WebhookReceiver,
    run: &Run,
    policy: &str,
    secrets: &Secrets,
    edges: &Edges,
    deadline: Duration,
) -> Result<(), SendError> {
    within(deadline, webhook::call(webhook, run, policy, secrets, edges)).await.map_err(|error| secrets.redacted(error))
}

async fn within<T>(deadline: Duration, sent: impl Future<Output = Result<T, SendError>>) -> Result<T, SendError> {
    let late = || SendError::transient(FailureKind::Timeout, format!("no answer within {} s", deadline.as_secs_f64()));
    tokio::time::timeout(deadline, sent).await.unwrap_or_else(|_| Err(late()))
}

fn log(message: &Message) {
    let key = message.idempotency_key.as_str();
    let (policy, text) = (message.policy.as_str(), message.text());
    match message.status {
        Standing::Firing => warn!(key, policy, severity = message.severity.as_str(), text, "an alert fires"),
        Standing::Resolved => info!(key, policy, severity = message.severity.as_str(), text, "an alert has ended"),
    }
}

/// One Event for each alert.
fn events(message: &Message) -> Vec<EventNote> {
    let event = |notice: &crate::message::Notice| {
        let (warning, reason) = match notice.status {
            Standing::Firing => (true, "AlertFiring"),
            Standing::Resolved => (false, "AlertResolved"),
        };
        EventNote { target: notice.target.clone(), warning, reason, note: cut(notice.lines().join("; "), NOTE_MAX) }
    };
    message.alerts.iter().map(event).collect()
}
