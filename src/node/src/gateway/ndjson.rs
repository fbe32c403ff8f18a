//! A stream of events in, a stream of answers out, one JSON value a line, in order.
//!
//! Many events are under way at once, so a stream fills the log's batches. A full queue slows the stream down; a bad line
//! gets an error in its place and the stream goes on.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinError;
use tokio::time::timeout;

use super::Shared;
use super::admission::Admitted;
use super::bodies::{BODY_TIMEOUT, Bodies, Lines};
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
/// Bytes of answers of one stream that wait for their client, beside what is under way. Those to some thousands of small
/// lines: a client that sends all of them before it reads isn't stuck.
const UNREAD_MAX: usize = 2 << 20;
/// A line that is longer has room before its rest is read.
const SHORT_MAX: usize = 32 << 10;

/// A line with when it was taken up and what became of it.
type Taken = (Instant, Result<Begun, Failure>);

/// Lines that have arrived together, and their room where it has been taken already.
struct Arrived {
    lines: Vec<Result<Vec<u8>, Failure>>,
    room: Option<Lines>,
}

/// Lines that are under way together, and their room.
struct Group {
    taken: Vec<Taken>,
    room: Lines,
}

/// The answers of a group, a line each. They keep their room until they are written to the connection.
struct Answers {
    bytes: Vec<u8>,
    _room: Lines,
    _unread: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Answers {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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
    let mut reader = Reader::new(request.into_body(), shared.bodies.clone());
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
        .then(move |arrived| {
            let (shared, domain, admitted) = (begin.clone(), domain.clone(), admitted.clone());
            async move { begin_group(&shared, &domain, &admitted, arrived, priority).await }
        })
        // In tasks of their own, which end when the answers are there, also where nobody waits for them at the moment.
        .map(move |group| Task::spawn(finish(end.clone(), group)).ended())
        .buffered(GROUPS_MAX);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(ahead(answers))).into_response()
}

/// The same answers, made before they are asked for as long as at most [`UNREAD_MAX`] bytes of them wait.
fn ahead(
    answers: impl Stream<Item = Result<Answers, JoinError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, JoinError>> + Send + 'static {
    let unread = Arc::new(Semaphore::new(UNREAD_MAX));
    let (tell, told) = mpsc::unbounded_channel();
    let work = Task::spawn(async move {
        let mut answers = pin!(answers);
        while let Some(mut answers) = answers.next().await {
            if let Ok(answers) = &mut answers {
                let bytes = UNREAD_MAX.min(answers.bytes.len()) as u32;
                // The semaphore is never closed.
                answers._unread = unread.clone().acquire_many_owned(bytes).await.ok();
            }
            if tell.send(answers.map(Bytes::from_owner)).is_err() {
                return;
            }
        }
    });
    stream::unfold(Some((told, work)), |state| async move {
        let (mut told, work) = state?;
        match told.recv().await {
            Some(answers) => Some((answers, Some((told, work)))),
            None => work.ended().await.err().map(|why| (Err(why), None)),
        }
    })
}

/// Takes lines up, as soon as there is room for all of them.
async fn begin_group(
    shared: &Shared,
    domain: &str,
    admitted: &Admitted,
    arrived: Arrived,
    priority: Priority,
) -> Group {
    let Arrived { lines, room } = arrived;
    for _ in &lines {
        shared.admission.pace(admitted).await;
    }
    let bytes = lines.iter().flatten().map(Vec::len).sum();
    let room = match room {
        Some(mut room) => {
            room.fit_lines(lines.len(), bytes);
            room
        }
        None => shared.bodies.room_for(lines.len(), bytes).await,
    };
    let mut taken = Vec::with_capacity(lines.len());
    for line in lines {
        taken.push(begin_line(shared, domain, line, priority).await);
    }
    Group { taken, room }
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
async fn finish(shared: Arc<Shared>, Group { taken, mut room }: Group) -> Answers {
    let mut bytes = Vec::new();
    for (started, begun) in taken {
        let result = match begun {
            Ok(begun) => http::finish(&shared, begun).await,
            Err(failure) => Err(failure),
        };
        shared.metrics.answered("stream", result.is_ok(), started.elapsed().as_secs_f64());
        match result {
            Ok(answer) => encode(&answer, &mut bytes),
            Err(failure) => encode(&failure.body(), &mut bytes),
        }
    }
    bytes.shrink_to_fit();
    room.fit_answers(bytes.len());
    Answers { bytes, _room: room, _unread: None }
}

fn encode(value: &impl Serialize, lines: &mut Vec<u8>) {
    // Writing plain data to a growable buffer has no way to fail.
    let _ = serde_json::to_writer(&mut *lines, value);
    lines.push(b'\n');
}

/// The lines of a body without empty ones, in groups of those that have arrived, `together` at most; a long one is alone. A
/// line over the bound, or a body that breaks off, is the last item.
fn groups(reader: Reader, together: usize) -> impl Stream<Item = Arrived> {
    stream::unfold(reader, move |mut reader| async move {
        let mut lines = vec![reader.next().await?];
        let room = reader.give_room();
        while room.is_none()
            && lines.len() < together
            && let Some(line) = reader.arrived()
        {
            lines.push(Ok(line));
        }
        Some((Arrived { lines, room }, reader))
    })
}

struct Reader {
    chunks: axum::body::BodyDataStream,
    bodies: Bodies,
    buffer: Vec<u8>,
    /// Where the next line begins; what is before it has been given out.
    start: usize,
    /// Up to where no line's end was found.
    scanned: usize,
    /// The room of a long line, and since when its rest is waited for.
    long: Option<(Lines, Instant)>,
    done: bool,
    /// Why nothing more comes, if that is no end.
    failed: Option<Failure>,
    /// An error was the last item. The rest is read away, so that what was answered before arrives.
    over: bool,
}

impl Reader {
    fn new(body: Body, bodies: Bodies) -> Self {
        let chunks = body.into_data_stream();
        let (buffer, start, scanned, long) = (Vec::new(), 0, 0, None);
        Self { chunks, bodies, buffer, start, scanned, long, done: false, failed: None, over: false }
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
            if found > SHORT_MAX && self.long.is_none() {
                // As much as it may become: who waits for more while it keeps some may wait for ever.
                let room = self.bodies.room_for(1, BODY_MAX).await;
                self.long = Some((room, Instant::now()));
            }
            self.fill().await;
        }
    }

    /// The room of the line that was given out last, if that was a long one.
    fn give_room(&mut self) -> Option<Lines> {
        let (room, _) = self.long.take()?;
        self.buffer = self.buffer.split_off(self.start);
        self.scanned -= self.start;
        self.start = 0;
        Some(room)
    }

    /// The next line, if it is there as a whole.
    fn arrived(&mut self) -> Option<Vec<u8>> {
        while let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line = self.take(self.scanned + length + 1);
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(line);
            }
            self.long = None;
        }
        self.scanned = self.buffer.len();
        None
    }

    /// Waits for more of the body.
    async fn fill(&mut self) {
        let (within, left) = match &self.long {
            Some((_, since)) => (BODY_TIMEOUT, BODY_TIMEOUT.saturating_sub(since.elapsed())),
            None => (SILENCE_MAX, SILENCE_MAX),
        };
        match timeout(left, self.chunks.next()).await {
            Err(_) => self.failed = Some(Failure::TooSlow(within)),
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
        (self.buffer, self.start, self.scanned, self.long) = (Vec::new(), 0, 0, None);
        self.over = true;
        Err(why.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    fn body(chunks: Vec<&'static str>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)))))
    }

    async fn read(chunks: Vec<&'static str>) -> Vec<String> {
        let reader = Reader::new(body(chunks), Bodies::default());
        let groups: Vec<_> = groups(reader, 2).map(|arrived| arrived.lines).collect().await;
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

    #[tokio::test]
    async fn a_long_line_is_alone_and_has_its_room_before_its_rest_comes() {
        let piece: &str = Box::leak("x".repeat(SHORT_MAX).into_boxed_str());
        let bodies = Bodies::default();
        let all = bodies.room_for(0, usize::MAX / 2).await;
        let chunks = vec!["{}\n{}\n", piece, piece, piece, "\n{}\n{}\n{}"];
        let mut found = Box::pin(groups(Reader::new(body(chunks), bodies.clone()), GROUP_MAX));
        assert_eq!(found.next().await.map(|arrived| arrived.lines.len()), Some(2));
        assert!(found.next().now_or_never().is_none(), "there is no room for a long line");
        drop(all);
        let long = found.next().await.unwrap();
        assert_eq!(long.lines[0].as_ref().map(Vec::len).ok(), Some(3 * SHORT_MAX + 1));
        assert!(long.lines.len() == 1 && long.room.is_some());
        let short = found.next().await.unwrap();
        assert!(short.lines.len() == 2 && short.room.is_none());
        assert_eq!(found.next().await.map(|arrived| arrived.lines.len()), Some(1));
        assert!(found.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_that_does_not_come_gives_its_room_back() {
        let chunks = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; SHORT_MAX + 1]))]);
        let bodies = Bodies::default();
        let body = Body::from_stream(chunks.chain(stream::pending()));
        let mut found = Box::pin(groups(Reader::new(body, bodies.clone()), GROUP_MAX));
        let last = found.next().await.unwrap();
        assert!(matches!(last.lines[..], [Err(Failure::TooSlow(within))] if within == BODY_TIMEOUT));
        drop(last);
        assert!(bodies.room_for(0, usize::MAX / 2).now_or_never().is_some());
    }

    /// Answers of so many bytes, and the room that they keep.
    async fn answers(bodies: &Bodies, bytes: usize) -> Result<Answers, JoinError> {
        let room = bodies.room_for(0, bytes).await;
        Ok(Answers { bytes: vec![b' '; bytes], _room: room, _unread: None })
    }

    #[tokio::test]
    async fn answers_are_made_ahead_within_a_bound_and_keep_their_room_until_they_are_written() {
        const BYTES: usize = UNREAD_MAX / 4;
        let (bodies, made) = (Bodies::default(), Arc::new(AtomicUsize::new(0)));
        let (of, counted) = (bodies.clone(), made.clone());
        let all = stream::iter(0..20).then(move |_| {
            let (bodies, made) = (of.clone(), counted.clone());
            async move {
                made.fetch_add(1, Ordering::Relaxed);
                answers(&bodies, BYTES).await
            }
        });
        let mut answers = Box::pin(ahead(all));
        let settled = async || {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            made.load(Ordering::Relaxed)
        };
        assert_eq!(settled().await, 5, "four wait, and one more for its place");
        let first = answers.next().await.unwrap().unwrap();
        assert_eq!(settled().await, 5, "what is being written still has its place");
        drop(first);
        assert_eq!(settled().await, 6);
        assert_eq!(answers.count().await, 19);
        assert!(bodies.room_for(0, usize::MAX / 2).now_or_never().is_some(), "all room is free again");
    }
}
