//! Mail over SMTP, with STARTTLS or TLS from the first byte, to a checked address.

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
use std::time::{Duration, SystemTime};

use hebb_api::{EmailReceiver, EmailSecurity};
use lettre::message::{Mailbox, MessageBuilder, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;

use super::bounded::{Bounded, READ_MAX, TooMuch};
use super::{Edges, Secrets, connect};
use crate::message::Message;
use crate::retry::{FailureKind, SendError};

/// Characters of a server's words that an error repeats.
const WORDS_MAX: usize = 160;

pub(super) async fn send(
    email: &EmailReceiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let mail = mail(email, message)?;
    let credentials = match (&email.username_secret_ref, &email.password_secret_ref) {
        (Some(user), Some(password)) => {
            Some(Credentials::new(secrets.get(user)?.to_owned(), secrets.get(password)?.to_owned()))
        }
        _ => None,
    };
    let default_port = match email.security {
        EmailSecurity::StartTls => 587,
        EmailSecurity::Tls => 465,
        EmailSecurity::None => 25,
    };
    let port = email.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(default_port);
    let addresses = connect::resolve(edges, &email.host, port, email.allow_private).await?;
    let hello = ClientId::default();
    let tcp = connect::tcp(&addresses).await?;
    let stream: Box<dyn AsyncTokioStream> = match email.security {
        EmailSecurity::Tls => Box::new(Bounded::new(connect::tls(&edges.tls, &email.host, tcp).await?)),
        EmailSecurity::StartTls | EmailSecurity::None => Box::new(Bounded::new(tcp)),
    };
    let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &hello).await.map_err(|e| refused(&e))?;
    if email.security == EmailSecurity::StartTls {
        connection.starttls(trust(edges, &email.host)?, &hello).await.map_err(|e| refused(&e))?;
    }
    if let Some(credentials) = credentials {
        // Never in the clear, whatever an object says that nobody checked. Of TLS that was there before it the connection
        // knows nothing.
        if email.security != EmailSecurity::Tls && !connection.is_encrypted() {
            return Err(SendError::permanent(FailureKind::Tls, "a password isn't sent without TLS"));
        }
        connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(|e| unauthorised(&e))?;
    }
    connection.send(mail.envelope(), &mail.formatted()).await.map_err(|e| refused(&e))?;
    // The server has taken the mail; how it takes leave doesn't matter.
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.quit()).await;
    Ok(())
}

/// The mail. It is the same for every attempt, and so is its id.
fn mail(email: &EmailReceiver, message: &Message) -> Result<lettre::Message, SendError> {
    let wrong = |what: &str| SendError::permanent(FailureKind::Content, format!("{what} is no mail address"));
    let from: Mailbox = email.from.parse().map_err(|_| wrong("from"))?;
    let at = SystemTime::from(message.at);
    let id = format!("<{}@{}>", message.idempotency_key, from.email.domain());
    let mut builder = MessageBuilder::new().from(from).subject(line(&message.headline())).date(at).message_id(Some(id));
    for to in &email.to {
        builder = builder.to(to.parse().map_err(|_| wrong("to"))?);
    }
    builder
        .singlepart(SinglePart::plain(message.text()))
        .map_err(|_| SendError::permanent(FailureKind::Content, "the mail can't be made"))
}

/// A line: what would begin another header is a space.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn trust(edges: &Edges, host: &str) -> Result<TlsParameters, SendError> {
    let failed = |_| SendError::permanent(FailureKind::Tls, "TLS can't be set up");
    let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    for root in &edges.roots {
        // What can't be parsed was left out of the others' trust too.
        if let Ok(certificate) = Certificate::from_der(root.to_vec())
            && webpki_takes(root)
        {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(failed)
}

/// Whether the certificate is one that can be trusted at all: a single other one would make the whole set unusable.
fn webpki_takes(root: &rustls::pki_types::CertificateDer<'_>) -> bool {
    rustls::RootCertStore::empty().add(root.clone().into_owned()).is_ok()
}

fn unauthorised(error: &lettre::transport::smtp::Error) -> SendError {
    let failure = refused(error);
    if failure.transient { failure } else { SendError { kind: FailureKind::AuthError, ..failure } }
}

fn refused(error: &lettre::transport::smtp::Error) -> SendError {
    let mut words = error.to_string();
    let mut io = None;
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        io = io.or(inner.downcast_ref::<std::io::Error>());
        source = inner.source();
    }
    if let Some(error) = io.filter(|error| connect::is_of_tls(error)) {
        return connect::untrusted(error);
    }
    if io.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<TooMuch>()) {
        let reason = format!("the mail server answers without an end: more than {} KiB", READ_MAX / 1_024);
        return SendError::permanent(FailureKind::ServerError, reason);
    }
    words = line(&words).chars().take(WORDS_MAX).collect();
    if error.is_tls() {
        return SendError::permanent(FailureKind::Tls, words);
    }
    if error.is_permanent() || error.is_client() {
        return SendError::permanent(FailureKind::ClientError, words);
    }
    if error.is_transient() {
        return SendError::transient(FailureKind::ServerError, words);
    }
    // An answer that breaks off, and a connection that does so after it had come about.
    let broken = |kind| matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    if error.is_response() || io.is_some_and(|error| broken(error.kind())) {
        return SendError::transient(FailureKind::AnswerLost, words);
    }
    SendError::transient(FailureKind::Connect, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_the_same_for_every_attempt_and_has_no_headers_of_others() {
        let mut message = Message::test("default/p", "2026-01-01T00:00:00Z".parse().unwrap());
        message.title = "x\r\nBcc: victim@example.org".to_owned();
        let email: EmailReceiver = serde_json::from_value(
            serde_json::json!({"host": "h", "from": "Hebb <hebb@example.org>", "to": ["a@example.org"]}),
        )
        .unwrap();
        let first = mail(&email, &message).unwrap();
        let text = String::from_utf8(first.formatted()).unwrap();
        assert_eq!(first.formatted(), mail(&email, &message).unwrap().formatted());
        assert!(text.contains(&format!("Message-ID: <{}@example.org>", message.idempotency_key)), "{text}");
        let headers = text.split("\r\n\r\n").next().unwrap();
        assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{text}");
        assert_eq!(first.envelope().to().len(), 1);
    }
}
