//! The trail of a request: from the client's `traceparent` through the log to the worker.
//!
//! The context travels in the name of whom the answer goes to, beside the entry and not in it: without a trace a record is
//! what it always was, byte by byte. A worker that doesn't know of traces applies such an entry as any other and answers to
//! a name that nobody has; then the gateway sends the entry again, without a trace.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use hebb_log::MAX_NAME_BYTES;
use hebb_telemetry::traces::{Span, SpanKind, TraceParent, is_traced};

/// Between the gateway's name and the context.
const MARK: char = '|';

tokio::task_local! {
    /// The request that the task serves.
    static REQUEST: TraceParent;
}

/// Records a request, as part of the client's trace where it has one.
pub async fn follow(request: Request, next: Next) -> Response {
    if !is_traced() {
        return next.run(request).await;
    }
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()?.parse().ok());
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str()).to_owned();
    let mut span = Span::begin(format!("{} {route}", request.method()), SpanKind::Server, parent);
    span.set("http.request.method", request.method().to_string());
    span.set("http.route", route);
    let response = match span.context() {
        Some(context) => REQUEST.scope(context, next.run(request)).await,
        None => next.run(request).await,
    };
    span.set("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.fail("the request failed");
    }
    response
}

/// The request that this task serves, where it is recorded.
pub fn current() -> Option<TraceParent> {
    REQUEST.try_with(|context| *context).ok()
}

/// The name of a gateway with the context of what is sent in its name.
pub fn addressed(gateway: &Arc<str>, context: Option<TraceParent>) -> Arc<str> {
    match context.map(|context| format!("{gateway}{MARK}{context}")) {
        Some(name) if name.len() <= MAX_NAME_BYTES => name.into(),
        _ => gateway.clone(),
    }
}

/// The gateway of such a name, and the context.
pub fn addressee(name: &str) -> (&str, Option<TraceParent>) {
    let parsed = name.rsplit_once(MARK).and_then(|(gateway, context)| Some((gateway, context.parse().ok()?)));
    parsed.map_or((name, None), |(gateway, context)| (gateway, Some(context)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_a_context_or_is_what_it_was() {
        let context: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let name = addressed(&"gateway-0-0011aabb".into(), Some(context));
        assert_eq!(addressee(&name), ("gateway-0-0011aabb", Some(context)));
        assert_eq!(&*addressed(&"gateway-0".into(), None), "gateway-0");
        assert_eq!(addressee("gateway-0"), ("gateway-0", None));
        assert_eq!(addressee("odd|name"), ("odd|name", None));
        let long: Arc<str> = "g".repeat(MAX_NAME_BYTES - 10).into();
        assert_eq!(addressed(&long, Some(context)), long, "the store takes no longer name");
    }
}
