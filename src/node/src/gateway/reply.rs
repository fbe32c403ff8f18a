//! What every endpoint answers with: errors as JSON, metrics as text; and the check of a bearer token.

use std::fmt;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry, TextEncoder};
use serde::Serialize;

use super::dispatch::{ANSWER_TIMEOUT, DispatchError};
use super::follower::CopyError;
use super::wire::WireError;
use crate::memory::Memory;

/// An error as clients see it: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    error: ErrorText,
}

#[derive(Clone, Debug, Serialize)]
struct ErrorText {
    code: &'static str,
    message: String,
}

impl ErrorBody {
    /// A word for programs and a sentence for people.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { error: ErrorText { code, message: message.into() } }
    }

    /// The response with a status.
    pub fn respond(self, status: StatusCode) -> Response {
        (status, Json(self)).into_response()
    }
}

/// Why a request failed: with a status and an [`ErrorBody`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No key, or none that is known.
    #[error("send `Authorization: Bearer` with an API key; this gateway knows no such key")]
    Unauthorized,
    /// A browser sends it for a page of another site.
    #[error("a page of another site may not do this")]
    CrossSite,
    /// The client has used up what it may ask for.
    #[error("{client} asks for more than it may; come again in {} s", seconds(.wait))]
    RateLimited {
        /// The client's name or address.
        client: String,
        /// Until when there is a token again.
        wait: Duration,
    },
    /// Too many requests at once.
    #[error("this gateway has as many requests under way as it can; try again")]
    Busy,
    /// The body doesn't arrive.
    #[error("the body did not arrive within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// What was sent is refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The path or the query can't be read.
    #[error("the address is not what this endpoint takes: {0}")]
    Address(String),
    /// The header that tells the priority can't be read.
    #[error("the header Hebb-Priority is high, normal or low, and there once at most")]
    Priority,
    /// The entry found no answer.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// A reset is in the log, and not every partition has said that it is applied.
    #[error(
        "the reset is in the log, and not every partition has applied it within {} s: it needn't be repeated, look at the domain",
        ANSWER_TIMEOUT.as_secs()
    )]
    ResetPending,
    /// An eventual read found no copy that is young enough.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The engine refused the entry.
    #[error(transparent)]
    Rejected(#[from] hebb_engine::Rejection),
    /// No such domain.
    #[error("there is no domain {0:?}; it is made by its first event, or by spec.domains")]
    UnknownDomain(String),
    /// No such domain, and it may not be made.
    #[error("the domain {0:?} is not declared, and allowUndeclaredDomains is false")]
    UndeclaredDomain(String),
    /// No such domain, and there are as many as can be made by events.
    #[error("the domain {name:?} is not declared, and there are already {max} domains")]
    TooManyDomains {
        /// The domain that was asked for.
        name: String,
        /// The bound.
        max: usize,
    },
    /// Not a name for a domain.
    #[error(
        "{0:?} is no name for a domain: 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
    )]
    DomainName(String),
    /// No such event.
    #[error("no event {0:?} within the horizon")]
    UnknownEvent(String),
    /// The store is away.
    #[error("the store is unavailable; try again")]
    Store(#[from] hebb_log::LogError),
    /// An outcome of another kind than was asked for.
    #[error("the answer does not belong to the question")]
    Unexpected,
}

impl Failure {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Failure::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Failure::CrossSite => (StatusCode::FORBIDDEN, "cross_site"),
            Failure::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Failure::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Failure::Wire(WireError::Shape(_)) => (StatusCode::BAD_REQUEST, "bad_body"),
            Failure::Wire(WireError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Failure::Wire(WireError::Unfit(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit"),
            Failure::Address(_) => (StatusCode::BAD_REQUEST, "bad_address"),
            Failure::Priority => (StatusCode::BAD_REQUEST, "bad_priority"),
            Failure::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "rejected"),
            Failure::DomainName(_) => (StatusCode::BAD_REQUEST, "bad_domain_name"),
            Failure::UnknownDomain(_) | Failure::UndeclaredDomain(_) => (StatusCode::NOT_FOUND, "unknown_domain"),
            Failure::TooManyDomains { .. } => (StatusCode::FORBIDDEN, "too_many_domains"),
            Failure::UnknownEvent(_) => (StatusCode::NOT_FOUND, "unknown_event"),
            Failure::Dispatch(DispatchError::Full { .. }) => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Failure::Dispatch(DispatchError::Late) | Failure::ResetPending => {
                (StatusCode::SERVICE_UNAVAILABLE, "answer_pending")
            }
            Failure::Copy(_) => (StatusCode::SERVICE_UNAVAILABLE, "copy_stale"),
            Failure::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Failure::Dispatch(DispatchError::Unreadable) | Failure::Unexpected => {
                (StatusCode::BAD_GATEWAY, "unreadable_answer")
            }
        }
    }

    /// Code and message without the status, for a line of NDJSON.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.status_and_code().1, self.to_string())
    }
}

/// Whole seconds after which a client finds what it waits for.
fn seconds(wait: &Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, _) = self.status_and_code();
        let mut response = self.body().respond(status);
        let headers = response.headers_mut();
        match self {
            Failure::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Failure::RateLimited { wait, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(&wait)));
            }
            _ if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// The answer to a method that an endpoint doesn't take.
pub async fn wrong_method() -> Response {
    ErrorBody::new("wrong_method", "this endpoint takes another method").respond(StatusCode::METHOD_NOT_ALLOWED)
}

/// The answer to an address that a role other than the gateway doesn't have.
pub async fn unknown_address() -> Response {
    ErrorBody::new("unknown_route", "no such endpoint").respond(StatusCode::NOT_FOUND)
}

/// An extractor of the address, whose refusals are answered as every other error is.
pub struct Address<E>(pub E);

impl<S: Send + Sync, E: FromRequestParts<S, Rejection: fmt::Display>> FromRequestParts<S> for Address<E> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        E::from_request_parts(parts, state).await.map(Self).map_err(|why| Failure::Address(why.to_string()))
    }
}

/// Metrics in Prometheus' text format.
pub fn expose(families: Result<Vec<MetricFamily>, prometheus::Error>) -> Response {
    match families.and_then(|families| TextEncoder::new().encode_to_string(&families)) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => ErrorBody::new("metrics", error.to_string()).respond(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Metrics, those of the process with them.
///
/// # Errors
/// A metric that can't be registered.
pub fn families(registry: &Registry) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let process = Registry::new();
    let memory = IntGauge::new("process_resident_memory_bytes", "Memory of this process, in bytes")?;
    memory.set(i64::try_from(Memory::now().bytes).unwrap_or(i64::MAX));
    process.register(Box::new(memory))?;
    let mut families = registry.gather();
    families.extend(process.gather());
    Ok(families)
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether the request carries this bearer token; the time taken doesn't tell how much of it was right.
pub fn bearer_matches(headers: &HeaderMap, token: &str) -> bool {
    bearer(headers).is_some_and(|given| equal(given.as_bytes(), token.as_bytes()))
}

/// Whether two texts are equal, in a time that tells nothing of where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_matches() {
        let mut headers = HeaderMap::new();
        assert!(!bearer_matches(&headers, "secret"));
        for (given, matches) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer  secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("secret", false),
        ] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(given));
            assert_eq!(bearer_matches(&headers, "secret"), matches, "{given}");
        }
    }
}
