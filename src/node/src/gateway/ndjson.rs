//! A stream of events in, a stream of answers out, one JSON value a line, in order.
//!
//! Many events are under way at once, so a stream fills the log's batches. A full queue slows the stream down; a bad line
//! gets an error in its place and the stream goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::time::timeout;

use super::admission::Admitted;
use super::dispatch::OnFull;
use super::reply::Failure;
use super::wire::{BODY_MAX, WireError};
use super::{Shared, http};
use crate::leftover::drain;

/// Events of one stream that are under way: one append's worth.
const IN_FLIGHT_MAX: usize = 512;
/// How long a stream may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Answers a stream of `infer-and-adapt` events.
pub fn stream(shared: Arc<Shared>, domain: String, admitted: Admitted, body: Body) -> Response {
    let domain: Arc<str> = domain.into();
    let (begin, finish) = (shared.clone(), shared);
    // Begun one after the other, so that the events are learned in the order of their lines; awaited many at once.
    let answers = lines(body)
        .then(move |line| {
            let (shared, domain, admitted) = (begin.clone(), domain.clone(), admitted.clone());
            async move {
                shared.admission.pace(&admitted).await;
                let started = Instant::now();
                let begun = match line {
                    Ok(line) => http::begin_event(&shared, &domain, &line, OnFull::Wait).await,
                    Err(failure) => Err(failure),
                };
                (started, begun)
            }
        })
        .map(move |(started, begun)| {
            let shared = finish.clone();
            async move {
                let result = match begun {
                    Ok(begun) => http::finish(&shared, begun).await,
                    Err(failure) => Err(failure),
                };
                shared.metrics.answered("stream", result.is_ok(), started.elapsed().as_secs_f64());
                Ok::<_, std::convert::Infallible>(match result {
                    Ok(answer) => encode(&answer),
                    Err(failure) => encode(&failure.body()),
                })
            }
        })
        .buffered(IN_FLIGHT_MAX);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response()
}

fn encode(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// The lines of a body, without empty ones. A line over the bound, or a body that breaks off, is the last item.
fn lines(body: Body) -> impl Stream<Item = Result<Vec<u8>, Failure>> {
    let reader =
        Reader { chunks: body.into_data_stream(), buffer: Vec::new(), start: 0, scanned: 0, done: false, over: false };
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|line| (line, reader)) })
}

struct Reader {
    chunks: axum::body::BodyDataStream,
    buffer: Vec<u8>,
    /// Where the next line begins; what is before it has been given out.
    start: usize,
    /// Up to where no line's end was found.
    scanned: usize,
    done: bool,
    /// An error was the last item. The rest is read away, so that what was answered before arrives.
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Failure>> {
        loop {
            if self.over {
                drain(&mut self.chunks).await;
                return None;
            }
            if let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let end = self.scanned + length + 1;
                let line = self.take(end);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(Ok(line));
            }
            self.scanned = self.buffer.len();
            if self.done {
                let line = self.take(self.buffer.len());
                return if line.iter().all(u8::is_ascii_whitespace) { None } else { Some(Ok(line)) };
            }
            let found = self.buffer.len() - self.start;
            if found > BODY_MAX {
                let why = WireError::TooLarge { what: "the line", unit: "bytes", found, max: BODY_MAX };
                return Some(self.end_with(why));
            }
            let Ok(chunk) = timeout(SILENCE_MAX, self.chunks.next()).await else {
                return Some(self.end_with(Failure::TooSlow(SILENCE_MAX)));
            };
            match chunk {
                Some(Ok(chunk)) => {
                    self.buffer.drain(..self.start);
                    self.scanned -= self.start;
                    self.start = 0;
                    self.buffer.extend_from_slice(&chunk);
                }
                Some(Err(error)) => {
                    return Some(self.end_with(WireError::Shape(format!("the stream broke off: {error}"))));
                }
                None => self.done = true,
            }
        }
    }

    /// A copy of the line that ends at `end`, as small as the line: many wait at once.
    fn take(&mut self, end: usize) -> Vec<u8> {
        let line = self.buffer[self.start..end].to_vec();
        self.start = end;
        self.scanned = end;
        line
    }

    fn end_with(&mut self, why: impl Into<Failure>) -> Result<Vec<u8>, Failure> {
        self.buffer = Vec::new();
        self.over = true;
        Err(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: Vec<&'static str>) -> Vec<String> {
        let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk))));
        lines(Body::from_stream(chunks))
            .map(|line| {
                line.map_or_else(
                    |failure| failure.to_string(),
                    |line| String::from_utf8(line).unwrap().trim().to_owned(),
                )
            })
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_chunks_end() {
        assert_eq!(
            read(vec!["{\"a\"", ":1}\n\n{\"b\":2}\r\n{", "\"c\":3}"]).await,
            ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]
        );
        assert!(read(vec![]).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_at_the_bound() {
        let found = read(vec![Box::leak("x".repeat(BODY_MAX + 1).into_boxed_str())]).await;
        assert!(found[0].starts_with("the line has"), "{found:?}");
        assert_eq!(found.len(), 1);
    }
}
