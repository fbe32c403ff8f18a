//! The bodies of requests in memory, and the lines of streams: bounded in bytes, each and all together, and in time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::reply::Failure;
use super::wire::{BODY_MAX, WireError};
use crate::patience::Shortage;

/// Bytes of all bodies of one process: a quarter of a gateway's memory, and what they become takes about as much.
const BODIES_MAX: usize = 64 << 20;
/// Of these, what the lines of streams may have. A stream waits for room and a whole body is refused, so that without this
/// rest streams to a partition that stands still would have all other requests refused.
const LINES_MAX: usize = BODIES_MAX / 4 * 3;
/// What a line counts beside its bytes: as much as becomes of a small one while it is under way.
const LINE_BYTES: usize = 1 << 10;
/// How long one body may take, and one long line. A large one comes in time at half a megabit a second.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long lines wait for room before that is a shortage: the log takes a batch in milliseconds.
const SHORTAGE_AFTER: Duration = Duration::from_secs(2);

/// The room for bodies. Clones share it.
#[derive(Clone)]
pub struct Bodies {
    room: Arc<Semaphore>,
    /// What lines may have of it.
    lines: Arc<Semaphore>,
    timeout: Duration,
    /// Whether lines wait for room, which clients that don't read their answers may keep from them.
    shortage: Shortage,
}

/// A whole body. It keeps its room until it is dropped.
pub struct Whole<'a> {
    bytes: Vec<u8>,
    _room: Option<SemaphorePermit<'a>>,
}

/// The room of lines that are under way, or of their answers.
pub struct Lines {
    lines: Option<OwnedSemaphorePermit>,
    room: Option<OwnedSemaphorePermit>,
}

impl Lines {
    /// Keeps the room of what is left of the lines, which have so many bytes together.
    pub fn fit_lines(&mut self, lines: usize, bytes: usize) {
        self.fit(bytes + lines * LINE_BYTES);
    }

    /// Keeps the room of answers that have so many bytes.
    pub fn fit_answers(&mut self, bytes: usize) {
        self.fit(bytes);
    }

    /// Gives back what isn't needed. What is needed beyond is taken where it is there: answers that waited for more while
    /// they keep what they have could wait for one another.
    fn fit(&mut self, bytes: usize) {
        for permit in [&mut self.lines, &mut self.room].into_iter().flatten() {
            let held = permit.num_permits();
            if bytes < held {
                drop(permit.split(held - bytes));
            } else if let Ok(more) = u32::try_from(bytes - held)
                && let Ok(more) = permit.semaphore().clone().try_acquire_many_owned(more)
            {
                permit.merge(more);
            }
        }
    }
}

impl std::ops::Deref for Whole<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(BODIES_MAX)),
            lines: Arc::new(Semaphore::new(LINES_MAX)),
            timeout: BODY_TIMEOUT,
            shortage: Shortage::default(),
        }
    }
}

impl Bodies {
    /// The whole body, or why it was refused.
    pub async fn read(&self, body: Body) -> Result<Whole<'_>, Failure> {
        let read = async {
            let mut chunks = body.into_data_stream();
            let mut whole = Whole { bytes: Vec::new(), _room: None };
            while let Some(chunk) = chunks.next().await {
                let chunk: Bytes = chunk.map_err(|error| WireError::Shape(format!("the body broke off: {error}")))?;
                let found = whole.bytes.len() + chunk.len();
                if found > BODY_MAX {
                    return Err(WireError::TooLarge { what: "the body", unit: "bytes", found, max: BODY_MAX }.into());
                }
                // Room is taken for what has arrived, so that nobody holds any by promising to send.
                let length = u32::try_from(chunk.len()).map_err(|_| Failure::Busy)?;
                let more = self.room.try_acquire_many(length).map_err(|_| Failure::Busy)?;
                match &mut whole._room {
                    Some(room) => room.merge(more),
                    none => *none = Some(more),
                }
                whole.bytes.extend_from_slice(&chunk);
            }
            Ok(whole)
        };
        timeout(self.timeout, read).await.unwrap_or(Err(Failure::TooSlow(self.timeout)))
    }

    /// Waits for the room of lines that have so many bytes together, in turn. It is given all at once, so that nobody waits
    /// for the rest of it while others do; what is larger than all room has that alone.
    pub async fn room_for(&self, lines: usize, bytes: usize) -> Lines {
        let wanted = u32::try_from(LINES_MAX.min(bytes + lines * LINE_BYTES)).unwrap_or(u32::MAX);
        let mut room = pin!(async {
            // The semaphores are never closed.
            let lines = self.lines.clone().acquire_many_owned(wanted).await.ok();
            let room = self.room.clone().acquire_many_owned(wanted).await.ok();
            Lines { lines, room }
        });
        if let Ok(room) = timeout(SHORTAGE_AFTER, &mut room).await {
            return room;
        }
        let _in_need = self.shortage.feel();
        room.await
    }

    /// Whether lines have waited for room for a while.
    pub fn shortage(&self) -> Shortage {
        self.shortage.clone()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;

    fn body(chunks: Vec<&'static [u8]>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn a_body_takes_room_as_it_comes_and_gives_it_back() {
        let bodies = Bodies { room: Arc::new(Semaphore::new(10)), ..Bodies::default() };
        let whole = bodies.read(body(vec![b"123", b"456"])).await.map_err(|why| why.to_string()).unwrap();
        assert_eq!((&*whole, bodies.room.available_permits()), (&b"123456"[..], 4));
        assert!(matches!(bodies.read(body(vec![b"123", b"45"])).await, Err(Failure::Busy)));
        assert_eq!(bodies.room.available_permits(), 4);
        drop(whole);
        assert_eq!(bodies.room.available_permits(), 10);
        assert!(bodies.read(body(vec![])).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let bodies =
            Bodies { room: Arc::new(Semaphore::new(10)), timeout: Duration::from_millis(20), ..Bodies::default() };
        let silent = stream::iter([Ok::<_, std::io::Error>("1")]).chain(std::future::pending().into_stream());
        assert!(matches!(bodies.read(Body::from_stream(silent)).await, Err(Failure::TooSlow(_))));
        assert_eq!(bodies.room.available_permits(), 10);
    }

    #[tokio::test]
    async fn lines_wait_for_room_and_leave_some_to_whole_bodies() {
        let bodies = Bodies::default();
        let first = bodies.room_for(1, 1 << 20).await;
        // Larger than all room, it waits for the other alone.
        let mut second = std::pin::pin!(bodies.room_for(1, 1 << 30));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        let mut third = std::pin::pin!(bodies.room_for(64, 0));
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(bodies.room.available_permits(), BODIES_MAX - LINES_MAX);
        assert!(bodies.read(body(vec![b"123"])).await.is_ok());
        drop(second);
        drop(third.now_or_never().unwrap());
        assert_eq!(bodies.room.available_permits(), BODIES_MAX);
        assert_eq!(bodies.lines.available_permits(), LINES_MAX);
    }

    #[tokio::test]
    async fn answers_have_the_room_of_their_bytes_and_wait_for_none() {
        let bodies = Bodies::default();
        let mut answers = bodies.room_for(1, 1 << 20).await;
        answers.fit_answers(1_000);
        assert_eq!(bodies.lines.available_permits(), LINES_MAX - 1_000);
        answers.fit_answers(3_000);
        assert_eq!(bodies.room.available_permits(), BODIES_MAX - 3_000);
        let rest = bodies.room_for(0, LINES_MAX - 3_000).await;
        answers.fit_answers(3_001);
        drop((rest, answers));
        assert_eq!(bodies.room.available_permits(), BODIES_MAX);
        assert_eq!(bodies.lines.available_permits(), LINES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_wait_for_room_say_so() {
        let bodies = Bodies::default();
        let all = bodies.room_for(0, LINES_MAX).await;
        let waiting = bodies.room_for(1, 1);
        let look = async {
            assert!(!bodies.shortage.is_felt());
            tokio::time::sleep(SHORTAGE_AFTER * 2).await;
            assert!(bodies.shortage.is_felt());
            drop(all);
        };
        tokio::join!(waiting, look);
        assert!(!bodies.shortage.is_felt());
    }
}
