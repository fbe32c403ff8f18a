//! The proxy between an operator and the API server.
//!
//! Reads and watches stream through untouched. Writes are written down first, then meet the fault and the mutant of the
//! plan. A write that has begun is finished even if the operator dies meanwhile, as it would be without the proxy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use hebb_api::LearningCluster;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::Error;
use crate::fault::{Fault, Mutant, Verdict};
use crate::journal::{Journal, Write};

/// More than any object.
const BODY_MAX: usize = 4 << 20;
/// How often a planted bug repeats itself: seldom enough to look settled in between.
const REPEAT: Duration = Duration::from_millis(3_500);
/// How many times.
const REPEATS: usize = 20;

/// What the proxies of one plan share, one for each start of the operator.
pub struct Shared {
    /// The way to the API server, which tries nothing twice.
    pub client: Client,
    /// The namespace of the plan.
    pub namespace: String,
    /// The cluster of the plan.
    pub cluster: &'static str,
    /// What was written.
    pub journal: Journal,
    /// The harm.
    pub fault: Fault,
    /// The planted bug.
    pub mutant: Option<Mutant>,
    /// Whether the fault has happened.
    pub fired: AtomicBool,
    /// Whether a bug that shows once has shown.
    pub planted: AtomicBool,
}

/// The proxy of one start of the operator.
pub struct Link {
    shared: Arc<Shared>,
    /// Which start, from 1.
    start: usize,
    /// False from the moment at which the operator is to die: nothing that it still sends arrives.
    open: AtomicBool,
    /// Calls for the operator's death.
    pub kill: Notify,
    cut: watch::Sender<()>,
    /// The watches that were told already that they can't be resumed, once they are to be told so.
    expired: Mutex<Option<BTreeSet<String>>>,
    /// Until when the watches say nothing.
    silent_until: Mutex<Instant>,
}

/// What became of a write.
enum Answer {
    Given(Response),
    /// Nobody is there to hear it.
    Never,
    /// The connection breaks.
    Lost,
}

impl Link {
    /// Listens on a free port until the task is ended.
    pub async fn serve(
        shared: Arc<Shared>,
        start: usize,
    ) -> Result<(Arc<Self>, SocketAddr, tokio::task::AbortHandle), Error> {
        let (cut, _) = watch::channel(());
        let link = Arc::new(Self {
            shared,
            start,
            open: AtomicBool::new(true),
            kill: Notify::new(),
            cut,
            expired: Mutex::default(),
            silent_until: Mutex::new(Instant::now()),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(handle).with_state(link.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((link, address, task.abort_handle()))
    }

    fn die(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.shared.fired.store(true, Ordering::SeqCst);
        self.kill.notify_one();
    }

    fn mutates(&self, mutant: Mutant) -> bool {
        self.shared.mutant == Some(mutant)
    }

    /// Whether a bug that shows once shows now.
    fn plants(&self, mutant: Mutant) -> bool {
        self.mutates(mutant) && !self.shared.planted.swap(true, Ordering::SeqCst)
    }

    /// Whether a watch is to be told now that it can't be resumed.
    fn expires(&self, path: &str) -> bool {
        let mut expired = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        expired.as_mut().is_some_and(|told| told.insert(path.to_owned()))
    }

    /// Waits until the watches may say something.
    async fn hold(&self) {
        let until = *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(until.into()).await;
    }

    async fn read(self: Arc<Self>, parts: Parts, bytes: Bytes) -> Answer {
        let path = parts.uri.path();
        if self.start > 1 && path.contains("/secrets/") && self.plants(Mutant::ForgetPassword) {
            return Answer::Given(refusal(404, "NotFound"));
        }
        if self.start > 1 && path.ends_with("/services/demo-coordinator") && self.plants(Mutant::Remake) {
            self.delete_as_operator(&parts).await;
        }
        let watches = parts.uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        if watches && self.expires(path) {
            let status = status_of(410, "Expired");
            return Answer::Given(
                Body::from(format!("{}\n", json!({"type": "ERROR", "object": status}))).into_response(),
            );
        }
        let mut cut = self.cut.subscribe();
        match self.forward(parts, bytes).await {
            Ok(answer) if watches => {
                let (head, body) = answer.into_parts();
                let ended = async move { cut.changed().await };
                let link = self.clone();
                let told = body.into_data_stream().then(move |chunk| {
                    let link = link.clone();
                    async move {
                        link.hold().await;
                        chunk
                    }
                });
                Answer::Given(Response::from_parts(head, Body::from_stream(told.take_until(Box::pin(ended)))))
            }
            Ok(answer) => Answer::Given(answer),
            Err(error) => Answer::Given(unreachable(&error)),
        }
    }

    async fn write(self: Arc<Self>, mut parts: Parts, mut bytes: Bytes) -> Answer {
        if self.mutates(Mutant::DeleteWithoutUid) && parts.method == Method::DELETE {
            bytes = edited(&bytes, |body| body["preconditions"] = Value::Null);
        }
        let write = Write::read(&parts, &bytes, self.start);
        let place = self.shared.journal.begin(write.clone());
        let verdict = self.shared.fault.at(place.number, place.first_try);
        if verdict != Verdict::Pass {
            self.shared.fired.store(true, Ordering::SeqCst);
        }
        match verdict {
            Verdict::KillBefore => {
                self.die();
                return Answer::Never;
            }
            Verdict::DeleteOwner { kill } => {
                self.delete_owner().await;
                if kill {
                    self.die();
                    return Answer::Never;
                }
            }
            Verdict::Refuse(code) => {
                let reason = match code {
                    409 => "Conflict",
                    429 => "TooManyRequests",
                    _ => "InternalError",
                };
                self.shared.journal.refused(&place, code);
                return Answer::Given(refusal(code, reason));
            }
            Verdict::Wait(time) => tokio::time::sleep(time).await,
            Verdict::CutWatches => {
                self.cut.send_replace(());
            }
            Verdict::ExpireWatches => {
                *self.expired.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeSet::new());
                self.cut.send_replace(());
            }
            Verdict::HoldWatches(time) => {
                *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
            }
            Verdict::Pass | Verdict::KillAfter | Verdict::LoseAnswer => {}
        }
        if place.number > 0 || self.mutates(Mutant::ForgetOwner) {
            (parts, bytes) = self.mutate(&write, parts, bytes);
        }
        if self.mutates(Mutant::DeleteTwice) && parts.method == Method::DELETE {
            let twice = self.shared.journal.begin(write.clone());
            if let Ok(answer) = self.forward(parts.clone(), bytes.clone()).await {
                self.shared.journal.end(&twice, answer.status().as_u16());
            }
        }
        let answer = match self.forward(parts.clone(), bytes.clone()).await {
            Ok(answer) => answer,
            Err(error) => unreachable(&error),
        };
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
        self.shared.journal.end(&place, head.status.as_u16());
        if verdict == Verdict::KillAfter {
            self.die();
            return Answer::Never;
        }
        if verdict == Verdict::LoseAnswer {
            return Answer::Lost;
        }
        if place.number > 0 && write.object.ends_with("/status") && self.plants(Mutant::RepeatStatus) {
            tokio::spawn(self.clone().repeat(write, parts, bytes));
        }
        Answer::Given(Response::from_parts(head, Body::from(body)))
    }

    /// Plants the bugs that are about one write.
    fn mutate(&self, write: &Write, mut parts: Parts, mut bytes: Bytes) -> (Parts, Bytes) {
        let restarted = self.start > 1;
        let is_child = !write.is_event() && !write.object.starts_with("learningclusters/");
        let applies = parts.method == Method::PATCH && is_child;
        let forgotten = (applies && write.object == "services/demo-gateway" && self.plants(Mutant::ForgetService))
            || (applies && write.object == "configmaps/demo-revision" && self.mutates(Mutant::ForgetRevision))
            || (restarted && write.object.ends_with("/status") && self.mutates(Mutant::ForgetStatus))
            || (parts.method == Method::DELETE && self.mutates(Mutant::ForgetDelete));
        if forgotten {
            // The API server answers as if it had been done.
            let query = parts.uri.query().map_or("dryRun=All".to_owned(), |query| format!("{query}&dryRun=All"));
            parts.uri = format!("{}?{query}", parts.uri.path()).parse().unwrap_or(parts.uri);
            if parts.method == Method::DELETE {
                bytes = edited(&bytes, |body| body["dryRun"] = json!(["All"]));
            }
        }
        if applies && self.mutates(Mutant::ForgetOwner) {
            bytes = edited(&bytes, |body| body["metadata"]["ownerReferences"] = json!([]));
        }
        if applies && restarted && write.object == "deployments/demo-worker" && self.mutates(Mutant::ShrinkWorkers) {
            bytes = edited(&bytes, |body| {
                let replicas = body["spec"]["replicas"].as_i64().unwrap_or(1);
                body["spec"]["replicas"] = json!(replicas - 1);
            });
        }
        if applies && restarted && self.plants(Mutant::StrayLabel) {
            bytes = edited(&bytes, |body| body["metadata"]["labels"]["stray"] = json!("yes"));
        }
        (parts, bytes)
    }

    /// Sends a write again and again.
    async fn repeat(self: Arc<Self>, write: Write, parts: Parts, bytes: Bytes) {
        for _ in 0..REPEATS {
            tokio::time::sleep(REPEAT).await;
            let place = self.shared.journal.begin(write.clone());
            if let Ok(answer) = self.forward(parts.clone(), bytes.clone()).await {
                self.shared.journal.end(&place, answer.status().as_u16());
            }
        }
    }

    /// Deletes what is about to be read, as if the operator had.
    async fn delete_as_operator(&self, parts: &Parts) {
        let mut deletion = parts.clone();
        deletion.method = Method::DELETE;
        let mut write = Write::read(&deletion, b"{}", self.start);
        // What is planted here is the deletion, not that it is a careless one.
        write.precondition = Some("seen".to_owned());
        let place = self.shared.journal.begin(write);
        if let Ok(answer) = self.forward(deletion, Bytes::from_static(b"{}")).await {
            self.shared.journal.end(&place, answer.status().as_u16());
        }
    }

    async fn delete_owner(&self) {
        let api: Api<LearningCluster> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        // It may have gone already, by an earlier try of the same write.
        let _ = api.delete(self.shared.cluster, &kube::api::DeleteParams::background()).await;
    }

    async fn forward(&self, parts: Parts, bytes: Bytes) -> Result<Response, kube::Error> {
        let mut request = axum::http::Request::new(kube::client::Body::from(bytes.to_vec()));
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
        let untouched = parts.headers.iter().filter(|(name, _)| !header_of_connection(name));
        request.headers_mut().extend(untouched.map(|(name, value)| (name.clone(), value.clone())));
        let mut answer = self.shared.client.send(request).await?.map(Body::new);
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(answer)
    }
}

/// Whether a header is about the connection, of which the proxy has another.
fn header_of_connection(name: &header::HeaderName) -> bool {
    [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name)
}

fn edited(bytes: &Bytes, edit: impl FnOnce(&mut Value)) -> Bytes {
    let Ok(mut body) = serde_json::from_slice(bytes) else { return bytes.clone() };
    edit(&mut body);
    Bytes::from(body.to_string())
}

/// What the API server says of a failure.
fn status_of(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "refused by the proxy", "metadata": {},
    })
}

/// An answer as the API server gives it.
fn refusal(code: u16, reason: &str) -> Response {
    let status = status_of(code, reason);
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::RETRY_AFTER, "1")];
    (code, headers, status.to_string()).into_response()
}

fn unreachable(error: &kube::Error) -> Response {
    (StatusCode::BAD_GATEWAY, error.to_string()).into_response()
}

async fn handle(State(link): State<Arc<Link>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    if !link.open.load(Ordering::SeqCst) {
        return std::future::pending().await;
    }
    let answer = if [Method::GET, Method::HEAD].contains(&parts.method) {
        link.read(parts, bytes).await
    } else {
        // A task of its own: the end of the connection must not undo half of what has begun.
        tokio::spawn(async move { link.write(parts, bytes).await }).await.unwrap_or(Answer::Lost)
    };
    match answer {
        Answer::Given(answer) => answer,
        Answer::Never => std::future::pending().await,
        Answer::Lost => {
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost")) });
            Body::from_stream(broken).into_response()
        }
    }
}
