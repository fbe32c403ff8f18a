//! What a coordinator that follows does with a request: the leader answers it.

use std::sync::PoisonError;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hebb_log::Leadership;

use super::Shared;
use crate::gateway::ErrorBody;

/// Says that a request was forwarded already, so that two coordinators that take each other for the leader don't loop.
const FORWARDED: &str = "x-hebb-forwarded";

/// The coordinator that leads in place of this one, if one is known that the request doesn't come from.
pub fn other(shared: &Shared, headers: &HeaderMap) -> Option<Leadership> {
    let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
    let leadership = view.leadership.clone().filter(|_| !view.leads);
    leadership.filter(|_| !headers.contains_key(FORWARDED))
}

/// The answer where there is none.
pub fn nobody() -> Response {
    ErrorBody::new("no_leader", "no coordinator leads at the moment; try again in a few seconds")
        .respond(StatusCode::SERVICE_UNAVAILABLE)
}

/// What the leader answers to the request, as it comes.
pub async fn forward(
    shared: &Shared,
    leader: &Leadership,
    method: Method,
    uri: &Uri,
    body: Bytes,
    timeout: Duration,
) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("http://{}{path}", leader.address);
    let mut request = shared.client.request(method, url).header(FORWARDED, "1").timeout(timeout).body(body);
    if let Some(token) = &shared.options.token {
        request = request.bearer_auth(token);
    }
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
            let mut response = (status, Body::from_stream(answer.bytes_stream())).into_response();
            if let Some(kind) = kind {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Err(error) => {
            ErrorBody::new("leader_unreachable", format!("the leader {} doesn't answer: {error}", leader.leader))
                .respond(StatusCode::BAD_GATEWAY)
        }
    }
}
