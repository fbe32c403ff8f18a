//! Serves the webhook over TLS. Whoever connects is given little of everything: connections, time, bytes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, warn};

use super::certificate::Certificates;
use super::review::{Malformed, Review};
use super::{Desk, Webhook};
use crate::stopped;

/// Connections at once. The API server keeps a few; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 256;
/// Reviews that are answered at once: so many bodies, and what is read from them, are in memory at most.
const REVIEWS_MAX: usize = 8;
/// Bytes of a review: the object and what it was before, each at most as large as the API server stores one.
const BODY_MAX: usize = 4 << 20;
/// How long an answer may take: less than the API server waits for by the chart's default.
const ANSWER_DEADLINE: Duration = Duration::from_secs(4);
/// How long a client may take for the handshake, and for the head of a request: also how long a connection may be idle.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Wait after a connection that couldn't be taken.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long reviews are answered after a stop: for so long the API server may not know yet that this process goes.
const LINGER: Duration = Duration::from_secs(3);
/// How long connections that are open then get to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request gets no verdict.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("no such page")]
    Elsewhere,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the body has more than {BODY_MAX} bytes, or ended early")]
    Body,
    #[error("there are too many reviews at once, or the body took too long")]
    Late,
}

impl Unanswered {
    fn status(&self) -> StatusCode {
        match self {
            Self::Elsewhere => StatusCode::NOT_FOUND,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        (self.status(), format!("{self}\n")).into_response()
    }
}

struct Shared {
    desk: Desk,
    /// Of the path: how long a comparison takes tells nothing of the token in it.
    path: [u8; 32],
    places: Semaphore,
}

fn digest(path: &str) -> [u8; 32] {
    Sha256::digest(path).into()
}

/// Serves the webhook until the stop, and a moment longer.
pub async fn serve(listener: TcpListener, webhook: Webhook, desk: Desk, stop: watch::Receiver<bool>) {
    let path = match &webhook.token {
        Some(token) => format!("/validate/{token}"),
        None => "/validate".to_owned(),
    };
    let shared = Arc::new(Shared { desk, path: digest(&path), places: Semaphore::new(REVIEWS_MAX) });
    let router = Router::new().fallback(move |request| validate(shared.clone(), request));
    let certificates = Arc::new(Certificates::new(webhook.certificates));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (close, closing) = watch::channel(false);
    let mut open = JoinSet::new();
    let ended = async {
        stopped(stop).await;
        sleep(LINGER).await;
    };
    let mut ended = pin!(ended);
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, connection) = tokio::select! {
            () = ended.as_mut() => break,
            next = next => next,
        };
        while open.try_join_next().is_some() {}
        let talk = converse(connection, certificates.clone(), router.clone(), closing.clone());
        open.spawn(async move {
            talk.await;
            drop(place);
        });
    }
    drop(listener);
    close.send_replace(true);
    let finished = async { while open.join_next().await.is_some() {} };
    if timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        debug!("reviews were cut off by the stop");
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return connection,
            Err(error) => {
                warn!(%error, "the webhook can't take connections; trying again");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// The requests of one connection.
async fn converse(
    connection: TcpStream,
    certificates: Arc<Certificates>,
    router: Router,
    closing: watch::Receiver<bool>,
) {
    let Some(config) = certificates.shown().await else { return };
    let shaken = timeout(HANDSHAKE_DEADLINE, TlsAcceptor::from(config).accept(connection)).await;
    let Ok(Ok(connection)) = shaken else {
        debug!("a connection to the webhook ended in its handshake");
        return;
    };
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(connection), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the webhook ended early");
    }
}

async fn validate(shared: Arc<Shared>, request: Request<Body>) -> Result<Response, Unanswered> {
    if request.method() != Method::POST || digest(request.uri().path()) != shared.path {
        return Err(Unanswered::Elsewhere);
    }
    let answer = timeout(ANSWER_DEADLINE, answer(&shared, request)).await.unwrap_or(Err(Unanswered::Late));
    match &answer {
        Err(Unanswered::Late) => shared.desk.metrics.not_admitted("late"),
        Err(_) => shared.desk.metrics.not_admitted("malformed"),
        Ok(_) => {}
    }
    answer
}

async fn answer(shared: &Shared, request: Request<Body>) -> Result<Response, Unanswered> {
    // An error says that nobody hands out places any more.
    let _place = shared.places.acquire().await.map_err(|_| Unanswered::Late)?;
    let body = to_bytes(request.into_body(), BODY_MAX).await.map_err(|_| Unanswered::Body)?;
    let review = Review::read(&body)?;
    drop(body);
    let verdict = shared.desk.answer(&review).await;
    Ok(Json(review.answered(&verdict)).into_response())
}

#[cfg(test)]
mod tests {
    use hebb_alert::notify::Egress;
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::facts;
    use crate::learning_cluster::topology::example;
    use crate::metrics::Metrics;

    fn shared(namespace: Option<&str>) -> Arc<Shared> {
        let desk = Desk {
            client: facts::tests::client(),
            metrics: Metrics::new().unwrap(),
            defaults: example::defaults(),
            egress: Egress::default(),
            namespace: namespace.map(str::to_owned),
        };
        Arc::new(Shared { desk, path: digest("/validate/t"), places: Semaphore::new(1) })
    }

    async fn said(shared: &Arc<Shared>, method: Method, path: &str, body: impl Into<Body>) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let answer = validate(shared.clone(), request).await.into_response();
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), BODY_MAX).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    fn asked() -> String {
        let object = json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": "demo"},
            "spec": {"gateway": {"auth": {"secretRef": {"name": "gone"}}}},
        });
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "kind": {"group": "hebb.dev", "kind": "LearningCluster"}, "operation": "CREATE",
            "namespace": "ns", "object": object,
        }})
        .to_string()
    }

    #[tokio::test]
    async fn who_asks_otherwise_gets_a_code_and_no_verdict() {
        let shared = shared(None);
        let huge = vec![b' '; BODY_MAX + 1];
        assert_eq!(said(&shared, Method::POST, "/validate/t", "{").await.0, 400);
        assert_eq!(said(&shared, Method::POST, "/validate/t", huge).await.0, 413);
        assert_eq!(said(&shared, Method::POST, "/validate/u", asked()).await.0, 404);
        assert_eq!(said(&shared, Method::POST, "/validate", asked()).await.0, 404);
        assert_eq!(said(&shared, Method::GET, "/validate/t", "").await.0, 404);
        let place = shared.places.acquire().await.unwrap();
        assert_eq!(said(&shared, Method::POST, "/validate/t", asked()).await.0, 503);
        drop(place);
        assert_eq!(said(&shared, Method::POST, "/validate/t", asked()).await.0, 200);
    }

    #[tokio::test]
    async fn an_operator_of_one_namespace_looks_nowhere_else() {
        for (namespace, looks) in [(None, true), (Some("ns"), true), (Some("other"), false)] {
            let (code, body) = said(&shared(namespace), Method::POST, "/validate/t", asked()).await;
            let answer: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code, &answer["response"]["allowed"]), (200, &json!(true)));
            assert_eq!(body.contains("there is no Secret gone yet"), looks, "{namespace:?}: {body}");
        }
    }
}
