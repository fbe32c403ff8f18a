//! One POST over HTTP/1.1, to a checked address, without redirects and with a bounded answer.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Edges, connect};
use crate::retry::{FailureKind, SendError};
use crate::validate::url_problem;

/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 4_096;
/// How long the rest of an answer is waited for, once its status is known.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Characters of an answer that an error repeats.
const EXCERPT_MAX: usize = 120;

/// What is posted.
pub(super) struct Post<'a> {
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    pub(super) allow_private: bool,
    /// Whether it goes over TLS alone. What the administrator made an exception for needn't.
    pub(super) needs_tls: bool,
}

impl<'a> Post<'a> {
    /// Something in JSON that goes over TLS to a public address.
    pub(super) fn json(url: &'a str, body: &serde_json::Value) -> Self {
        Self {
            url,
            headers: Vec::new(),
            content_type: "application/json",
            body: body.to_string(),
            allow_private: false,
            needs_tls: true,
        }
    }
}

/// Posts it; succeeds when the receiver says so.
pub(super) async fn post(edges: &Edges, post: Post<'_>) -> Result<(), SendError> {
    if let Some(problem) = url_problem(post.url) {
        return Err(SendError::permanent(FailureKind::Content, format!("the URL {problem}")));
    }
    let invalid = || SendError::permanent(FailureKind::Content, "the URL is none");
    let uri: Uri = post.url.parse().map_err(|_| invalid())?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or_else(invalid)?.to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let addresses = connect::resolve(edges, &host, port, post.allow_private).await?;
    let excepted = addresses.iter().all(|address| edges.egress.is_excepted(address.ip()));
    if post.needs_tls && !secure && !excepted {
        return Err(SendError::permanent(FailureKind::Content, "the URL must begin with https://"));
    }
    let request = request(&uri, post).map_err(|_| invalid())?;
    let stream = connect::tcp(&addresses).await?;
    let answer = if secure {
        exchange(connect::tls(&edges.https, &host, stream).await?, request).await
    } else {
        exchange(stream, request).await
    };
    judge(answer?)
}

fn request(uri: &Uri, post: Post<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, post.content_type)
        .header(USER_AGENT, concat!("hebb/", env!("CARGO_PKG_VERSION")));
    for (name, value) in post.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from(post.body)))
}

/// An answer, as much of it as matters.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    excerpt: String,
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |_| SendError::transient(FailureKind::AnswerLost, "the connection ended before an answer came");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Ends with this call, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong with the connection is told by the request.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), Timestamp::now());
    // What else is said by a receiver that took the message doesn't matter, and may never end.
    let excerpt = if response.status().is_success() { String::new() } else { excerpt(response).await };
    Ok(Answer { status, retry_after, excerpt })
}

/// The beginning of an answer, as far as it comes in time. One that breaks off or stalls has still said its status.
async fn excerpt(mut response: Response<Incoming>) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = response.frame().await {
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(&data[..data.len().min(ANSWER_MAX - bytes.len())]);
            }
            if bytes.len() == ANSWER_MAX {
                break;
            }
        }
    };
    // An error says that there would have been more to wait for.
    let _ = timeout(ANSWER_WITHIN, read).await;
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(EXCERPT_MAX).collect()
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(crate::time::elapsed(at, now))
}

/// Whether the receiver took it, and whether it may do so in a moment.
fn judge(answer: Answer) -> Result<(), SendError> {
    let (kind, transient) = match answer.status {
        200..=299 => return Ok(()),
        300..=399 => (FailureKind::Redirect, false),
        401 | 403 | 407 => (FailureKind::AuthError, false),
        408 => (FailureKind::Timeout, true),
        425 | 429 => (FailureKind::RateLimited, true),
        500.. => (FailureKind::ServerError, true),
        _ => (FailureKind::ClientError, false),
    };
    let mut reason = format!("the receiver answered {}", answer.status);
    if !answer.excerpt.is_empty() {
        reason = format!("{reason}: {}", answer.excerpt);
    }
    Err(SendError { kind, transient, retry_after: answer.retry_after.filter(|_| transient), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        for (status, kind, transient) in [
            (301, FailureKind::Redirect, false),
            (400, FailureKind::ClientError, false),
            (403, FailureKind::AuthError, false),
            (404, FailureKind::ClientError, false),
            (408, FailureKind::Timeout, true),
            (429, FailureKind::RateLimited, true),
            (500, FailureKind::ServerError, true),
            (503, FailureKind::ServerError, true),
        ] {
            let error = judge(Answer { status, retry_after: None, excerpt: String::new() }).unwrap_err();
            assert_eq!((error.kind, error.transient), (kind, transient), "{status}");
        }
        assert_eq!(judge(Answer { status: 204, retry_after: None, excerpt: String::new() }), Ok(()));
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_date() {
        let now: Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(120.0)),
            ("0.5", Some(0.5)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(30.0)),
            ("-1", None),
            ("soon", None),
            ("NaN", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs_f64()), expected, "{text}");
        }
    }
}
