//! A stream of events in, a stream of answers out, one JSON value a line, in order.
//!
//! Many events are under way at once, so a stream fills the log's batches. A full queue slows the stream down; a bad line
//! gets an error in its place and the stream goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use futures::{FutureExt, Stream, StreamExt, stream};
use serde::Serialize;
use tokio::time::timeout;

use super::Shared;
use super::admission::Admitted;
use super::bodies::Lines;
use super::dispatch::OnFull;
use super::http::{self, Begun};
use super::priority::Priority;
use super::reply::Failure;
use super::wire::{BODY_MAX, WireError};
use crate::leftover::drain;
use crate::task::Task;

/// Lines that go through the gateway together, as far as they have arrived together.
const GROUP_MAX: usize = 64;
/// Groups of one stream that are under way: most of what normal priority may have of a queue of the usual length.
const GROUPS_MAX: usize = 14;
/// How long a stream may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// From so many bytes on a group is waited for in a task of its own: a stream whose client doesn't read its answers isn't
/// polled, and keeps the room of what is under way. Of smaller groups that is two megabytes at most.
const LARGE: usize = 64 << 10;

/// A line with when it was taken up and what became of it.
type Taken = (Instant, Result<Begun, Failure>);

/// Lines that are under way together, their bytes and their room.
struct Group {
    taken: Vec<Taken>,
    bytes: usize,
    room: Lines,
}

/// Answers a stream of `infer-and-adapt` events.
pub async fn stream(
    shared: Arc<Shared>,
    domain: String,
    admitted: Admitted,
    priority: Priority,
    request: Request,
) -> Response {
    let asks_first = request.headers().get(header::EXPECT).is_some_and(|value| value.as_bytes() == b"100-continue");
    let mut reader = Reader::new(request.into_body());
    if asks_first {
        // The client sends nothing before it is asked to, which is what reading does; the response's head would be no
        // such word, and clients wait for a second then.
        reader.fill().await;
    }
    // A group is answered as a whole, so a line that waits for its token would hold up those before it.
    let together = if shared.admission.is_limited(&admitted) { 1 } else { GROUP_MAX };
    let domain: Arc<str> = domain.into();
    let (begin, end) = (shared.clone(), shared);
    // Begun one after the other, so that the events are learned in the order of their lines; awaited many at once.
    let answers = groups(reader, together)
        .then(move |lines| {
            let (shared, domain, admitted) = (begin.clone(), domain.clone(), admitted.clone());
            async move { begin_group(&shared, &domain, &admitted, lines, priority).await }
        })
        .map(move |Group { taken, bytes, room }| {
            let shared = end.clone();
            let answers = async move {
                let answers = finish(&shared, taken).await;
                drop(room);
                answers
            };
            match LARGE <= bytes {
                true => Either::Left(Task::spawn(answers).ended()),
                false => Either::Right(answers.map(Ok)),
            }
        })
        .buffered(GROUPS_MAX);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response()
}

/// Takes lines up, as soon as there is room for all of them.
async fn begin_group(
    shared: &Shared,
    domain: &str,
    admitted: &Admitted,
    lines: Vec<Result<Vec<u8>, Failure>>,
    priority: Priority,
) -> Group {
    for _ in &lines {
        shared.admission.pace(admitted).await;
    }
    let bytes = lines.iter().flatten().map(Vec::len).sum();
    let room = shared.bodies.room_for(lines.len(), bytes).await;
    let mut taken = Vec::with_capacity(lines.len());
    for line in lines {
        taken.push(begin_line(shared, domain, line, priority).await);
    }
    Group { taken, bytes, room }
}

async fn begin_line(shared: &Shared, domain: &str, line: Result<Vec<u8>, Failure>, priority: Priority) -> Taken {
    let started = Instant::now();
    let begun = match line {
        Ok(line) => http::begin_event(shared, domain, &line, OnFull::Wait.at(priority)).await,
        Err(failure) => Err(failure),
    };
    (started, begun)
}

/// The answers of a group, a line each.
async fn finish(shared: &Shared, taken: Vec<Taken>) -> Bytes {
    let mut answers = Vec::new();
    for (started, begun) in taken {
        let result = match begun {
            Ok(begun) => http::finish(shared, begun).await,
            Err(failure) => Err(failure),
        };
        shared.metrics.answered("stream", result.is_ok(), started.elapsed().as_secs_f64());
        match result {
            Ok(answer) => encode(&answer, &mut answers),
            Err(failure) => encode(&failure.body(), &mut answers),
        }
    }
    answers.into()
}

fn encode(value: &impl Serialize, lines: &mut Vec<u8>) {
    // Writing plain data to a growable buffer has no way to fail.
    let _ = serde_json::to_writer(&mut *lines, value);
    lines.push(b'\n');
}

/// The lines of a body without empty ones, in groups of those that have arrived, `together` at most. A line over the
/// bound, or a body that breaks off, is the last item.
fn groups(reader: Reader, together: usize) -> impl Stream<Item = Vec<Result<Vec<u8>, Failure>>> {
    stream::unfold(reader, move |mut reader| async move {
        let mut group = vec![reader.next().await?];
        while group.len() < together
            && let Some(line) = reader.arrived()
        {
            group.push(Ok(line));
        }
        Some((group, reader))
    })
}

struct Reader {
    chunks: axum::body::BodyDataStream,
    buffer: Vec<u8>,
    /// Where the next line begins; what is before it has been given out.
    start: usize,
    /// Up to where no line's end was found.
    scanned: usize,
    done: bool,
    /// Why nothing more comes, if that is no end.
    failed: Option<Failure>,
    /// An error was the last item. The rest is read away, so that what was answered before arrives.
    over: bool,
}

impl Reader {
    fn new(body: Body) -> Self {
        let chunks = body.into_data_stream();
        Self { chunks, buffer: Vec::new(), start: 0, scanned: 0, done: false, failed: None, over: false }
    }

    /// The next line, when it has arrived.
    async fn next(&mut self) -> Option<Result<Vec<u8>, Failure>> {
        loop {
            if self.over {
                drain(&mut self.chunks).await;
                return None;
            }
            if let Some(line) = self.arrived() {
                return Some(Ok(line));
            }
            if let Some(why) = self.failed.take() {
                return Some(self.end_with(why));
            }
            if self.done {
                let line = self.take(self.buffer.len());
                return if line.iter().all(u8::is_ascii_whitespace) { None } else { Some(Ok(line)) };
            }
            let found = self.buffer.len() - self.start;
            if found > BODY_MAX {
                let why = WireError::TooLarge { what: "the line", unit: "bytes", found, max: BODY_MAX };
                return Some(self.end_with(why));
            }
            self.fill().await;
        }
    }

    /// The next line, if it is there as a whole.
    fn arrived(&mut self) -> Option<Vec<u8>> {
        while let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line = self.take(self.scanned + length + 1);
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(line);
            }
        }
        self.scanned = self.buffer.len();
        None
    }

    /// Waits for more of the body.
    async fn fill(&mut self) {
        match timeout(SILENCE_MAX, self.chunks.next()).await {
            Err(_) => self.failed = Some(Failure::TooSlow(SILENCE_MAX)),
            Ok(Some(Ok(chunk))) => {
                self.buffer.drain(..self.start);
                self.scanned -= self.start;
                self.start = 0;
                self.buffer.extend_from_slice(&chunk);
            }
            Ok(Some(Err(error))) => {
                self.failed = Some(WireError::Shape(format!("the stream broke off: {error}")).into());
            }
            Ok(None) => self.done = true,
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
        // A group that ends with it looks once more for a line.
        (self.buffer, self.start, self.scanned) = (Vec::new(), 0, 0);
        self.over = true;
        Err(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: Vec<&'static str>) -> Vec<String> {
        let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk))));
        let groups: Vec<_> = groups(Reader::new(Body::from_stream(chunks)), 2).collect().await;
        let lines = groups.into_iter().inspect(|group| assert!((1..=2).contains(&group.len()))).flatten();
        lines
            .map(|line| match line {
                Ok(line) => String::from_utf8(line).unwrap().trim().to_owned(),
                Err(failure) => failure.to_string(),
            })
            .collect()
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
