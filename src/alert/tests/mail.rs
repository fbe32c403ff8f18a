//! Mail to a real SMTP server (aiosmtpd), with STARTTLS and TLS, logins, and answers that go wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail as the test does: by a panic")]

#[expect(dead_code, reason = "the tests of webhooks use other parts of it")]
mod sink;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hebb_alert::notify::{Edges, Egress, Resolver, Secrets, send};
use hebb_alert::{FailureKind, Message, SendError};
use hebb_api::{Receiver, SecretKeyRef};
use jiff::Timestamp;
use sink::Authority;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const PASSWORD: &str = "s3cret-passw0rd";

struct MailServer {
    child: Child,
    output: BufReader<ChildStdout>,
    starttls: u16,
    tls: u16,
    edges: Edges,
    _folder: tempfile::TempDir,
}

impl MailServer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("mail.example", 2200);
        let (certificate, key) = (folder.path().join("certificate"), folder.path().join("key"));
        std::fs::write(&certificate, &authority.certificate).unwrap();
        std::fs::write(&key, &authority.key).unwrap();
        // Debian's module belongs to Debian's Python, which need not be the first on the path.
        let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
            let import = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
            import.is_ok_and(|status| status.success())
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mail_server.py");
        let mut child =
            Command::new(python.expect("these tests need a real mail server: e2e/cluster/packages.sh alert"))
                .arg(script)
                .args([&certificate, &key])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = || line(&mut output).trim().parse().unwrap();
        let (starttls, tls) = (port(), port());
        let table: BTreeMap<_, _> = [("mail.example".to_owned(), vec!["127.0.0.1".parse().unwrap()])].into();
        let egress = Egress { exceptions: vec!["127.0.0.1".parse().unwrap()], ..Egress::default() };
        let edges = Edges::new(egress, Resolver::Table(table), authority.root.as_bytes(), None).unwrap();
        Self { child, output, starttls, tls, edges, _folder: folder }
    }

    async fn send(&self, security: &str, port: u16, to: &str, password: &str) -> Result<(), SendError> {
        let receiver: Receiver = serde_yaml::from_str(&format!(
            "{{name: r, email: {{host: mail.example, port: {port}, security: {security}, from: 'Hebb <hebb@example.org>', to: ['{to}'], usernameSecretRef: {{name: s, key: user}}, passwordSecretRef: {{name: s, key: password}}}}}}"
        ))
        .unwrap();
        let mut secrets = Secrets::default();
        for (key, value) in [("user", "hebb"), ("password", password)] {
            secrets.insert(&SecretKeyRef { name: "s".to_owned(), key: key.to_owned() }, value);
        }
        let message = Message::test("default/p", Timestamp::UNIX_EPOCH);
        send(&receiver, &message, &secrets, &self.edges, Duration::from_secs(10)).await.map(|_| ())
    }

    fn taken(&mut self) -> serde_json::Value {
        serde_json::from_str(&line(&mut self.output)).unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // The server ends with its standard input; it is waited for lest it stays behind.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

#[tokio::test]
async fn mail_is_taken_over_both_kinds_of_tls_with_a_login() {
    let mut server = MailServer::start();
    for (security, port) in [("StartTls", server.starttls), ("Tls", server.tls)] {
        server.send(security, port, "oncall@example.org", PASSWORD).await.unwrap();
        let mail = server.taken();
        assert_eq!(
            (mail["from"].as_str(), mail["to"][0].as_str()),
            (Some("hebb@example.org"), Some("oncall@example.org"))
        );
        let text = mail["text"].as_str().unwrap();
        for part in ["Subject: [FIRING] Info: a test of this receiver", "Message-ID: <", "Nothing is the matter."] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_with_mail_is_told_apart() {
    let server = MailServer::start();
    for (security, port, to, password, kind, transient) in [
        ("StartTls", server.starttls, "later@b.c", PASSWORD, FailureKind::ServerError, true),
        ("StartTls", server.starttls, "never@b.c", PASSWORD, FailureKind::ClientError, false),
        ("Tls", server.tls, "nobody@b.c", PASSWORD, FailureKind::ClientError, false),
        ("Tls", server.tls, "lost@b.c", PASSWORD, FailureKind::AnswerLost, true),
        ("StartTls", server.starttls, "a@b.c", "wrong-passw0rd", FailureKind::AuthError, false),
        // A server that speaks in the clear to one that wants TLS, and the other way round.
        ("Tls", server.starttls, "a@b.c", PASSWORD, FailureKind::Tls, true),
        ("None", server.starttls, "a@b.c", PASSWORD, FailureKind::Tls, false),
    ] {
        let error = server.send(security, port, to, password).await.unwrap_err();
        assert_eq!((error.kind, error.transient), (kind, transient), "{security} {to}: {error}");
        assert!(!error.reason.contains("passw0rd"), "{error}");
    }
}

/// Bytes that a server without an end sends at most, should anybody take them.
const FLOOD: usize = 64 << 20;

/// Sends a line that never ends, and counts how much of it is taken.
async fn flood(mut stream: impl AsyncWrite + Unpin, taken: &AtomicUsize) {
    let part = [b'2'; 64 << 10];
    while taken.load(Ordering::SeqCst) < FLOOD && stream.write_all(&part).await.is_ok() {
        taken.fetch_add(part.len(), Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_mail_server_that_never_ends_a_line_is_listened_to_only_so_far() {
    let authority = Authority::new("mail.example", 2200);
    let table: BTreeMap<_, _> = [("mail.example".to_owned(), vec!["127.0.0.1".parse().unwrap()])].into();
    let egress = Egress { exceptions: vec!["127.0.0.1".parse().unwrap()], ..Egress::default() };
    let edges = Edges::new(egress, Resolver::Table(table), authority.root.as_bytes(), None).unwrap();
    for security in ["StartTls", "Tls"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = (security == "Tls").then(|| TlsAcceptor::from(Arc::new(authority.server())));
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            match acceptor {
                Some(acceptor) => flood(acceptor.accept(stream).await.unwrap(), &counted).await,
                None => flood(stream, &counted).await,
            }
        });
        let receiver: Receiver = serde_yaml::from_str(&format!(
            "{{name: r, email: {{host: mail.example, port: {port}, security: {security}, from: a@b.c, to: [a@b.c]}}}}"
        ))
        .unwrap();
        let message = Message::test("default/p", Timestamp::UNIX_EPOCH);
        let sent = send(&receiver, &message, &Secrets::default(), &edges, Duration::from_secs(10)).await;
        let error = sent.unwrap_err();
        assert_eq!((error.kind, error.transient), (FailureKind::ServerError, false), "{security}: {error}");
        assert!(error.reason.contains("256 KiB"), "{security}: {error}");
        // The system keeps some for whoever doesn't read.
        assert!(taken.load(Ordering::SeqCst) < FLOOD / 2, "{security}: {taken:?}");
    }
}
