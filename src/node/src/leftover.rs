//! What a handler left of a request's body.
//!
//! A server that closes a connection with unread data on it resets it, and the reset may overtake the answer: the client
//! sees no reason, only a broken connection. So what nobody read is read away before the answer, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// Bytes of one body that are read away: 64 times what the API takes. Whoever sends more may see a reset.
const LEFT_MAX: u64 = 64 << 20;
/// How long one body is read away; as long as a client waits for an answer at most.
const LEFT_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers as the handlers do, and only when the body is off the connection. The connection is closed where it isn't, and
/// after a body that was too large.
pub async fn read_away(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let holds_back = holds_back(&parts.headers);
    let (give_back, mut left) = oneshot::channel();
    let lent = Lent { body: Some(body), begun: false, give_back: Some(give_back) };
    let mut response = next.run(Request::from_parts(parts, Body::new(lent))).await;
    // Nothing came back when it was read to its end, or when the answer is a stream that goes on reading.
    let is_off = match left.try_recv() {
        Ok(Left { body, begun }) => {
            let is_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
            let hopeless = is_slow || body.size_hint().lower() > LEFT_MAX || (holds_back && !begun);
            !hopeless && drain(&mut body.into_data_stream()).await
        }
        Err(_) => true,
    };
    if !is_off || response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the client sends its body only when it is told to, which reading it would do.
fn holds_back(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads a body away within the bounds, and says whether that was all of it.
pub async fn drain<E>(chunks: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin)) -> bool {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            bytes += chunk.len() as u64;
            if bytes > LEFT_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(LEFT_TIMEOUT, read).await.unwrap_or(false)
}

/// A body whose rest goes back when its reader has had enough.
struct Lent {
    /// None at its end.
    body: Option<Body>,
    begun: bool,
    give_back: Option<oneshot::Sender<Left>>,
}

struct Left {
    body: Body,
    /// Whether anybody asked for the beginning.
    begun: bool,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let lent = self.get_mut();
        lent.begun = true;
        let Some(body) = &mut lent.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            lent.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_end_stream())
            && let Some(give_back) = self.give_back.take()
        {
            // An error says that the request is over.
            let _ = give_back.send(Left { body, begun: self.begun });
        }
    }
}
