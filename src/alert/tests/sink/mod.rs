//! A receiver on the loopback that behaves as a test wants it to, and remembers what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the sink does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with this status line, these headers and this body.
    Answer(&'static str, &'static str, String),
    /// Reads everything and ends the connection hard.
    Reset,
    /// Reads everything and says nothing.
    Hang,
    /// Answers without an end.
    Endless,
    /// Begins an answer, and says no more while the connection stays open.
    Stall(&'static str),
}

impl Behaviour {
    pub fn status(status: &'static str) -> Self {
        Behaviour::Answer(status, "", String::new())
    }
}

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line =
            self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub struct Sink {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Sink {
    /// Behaves so, one behaviour after the other, the last for ever.
    pub async fn start(behaviours: Vec<Behaviour>) -> Self {
        Self::serve(behaviours, None).await
    }

    pub async fn start_tls(behaviours: Vec<Behaviour>, tls: ServerConfig) -> Self {
        Self::serve(behaviours, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn serve(behaviours: Vec<Behaviour>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut place = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let behaviour = behaviours[place.min(behaviours.len() - 1)].clone();
                place += 1;
                if matches!(behaviour, Behaviour::Reset) {
                    stream.set_zero_linger().unwrap();
                }
                match &tls {
                    None => serve(stream, behaviour, &remembered).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, behaviour, &remembered).await;
                        }
                    }
                }
            }
        });
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, behaviour: Behaviour, seen: &Mutex<Vec<Seen>>) {
    let Some(request) = read(&mut stream).await else { return };
    seen.lock().unwrap().push(request);
    match behaviour {
        Behaviour::Answer(status, headers, body) => {
            let answer = format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // The one who asked may have gone; that is what some tests are about.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Behaviour::Reset => {}
        Behaviour::Hang => tokio::time::sleep(Duration::from_secs(60)).await,
        Behaviour::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
        }
        Behaviour::Stall(beginning) => {
            let _ = stream.write_all(beginning.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let seen = Seen { head: head.to_owned(), body: body.to_owned() };
        let length: usize = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
        if length <= body.len() {
            return Some(seen);
        }
    }
}

/// A certificate authority, and a server's certificate that it has signed.
pub struct Authority {
    /// The authority's certificate, PEM.
    pub root: String,
    /// The server's certificate, PEM.
    pub certificate: String,
    /// The server's key, PEM.
    pub key: String,
    der: (Vec<u8>, Vec<u8>),
}

impl Authority {
    /// A server's certificate for `host` that is good until the end of `year`.
    pub fn new(host: &str, year: i32) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            root: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: (certificate.der().to_vec(), key.serialize_der()),
        }
    }

    pub fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.der.1.clone()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.0.clone().into()], key)
            .unwrap()
    }
}
