//! The bodies of requests in memory: bounded in bytes, each and all together, and in time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::reply::Failure;
use super::wire::{BODY_MAX, WireError};

/// Bytes of all bodies of one process: a quarter of a gateway's memory, and what they become takes about as much.
const BODIES_MAX: usize = 64 << 20;
/// How long one body may take. A large one comes in time at half a megabit a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The room for bodies.
pub struct Bodies {
    room: Semaphore,
    timeout: Duration,
}

/// A whole body. It keeps its room until it is dropped.
pub struct Whole<'a> {
    bytes: Vec<u8>,
    _room: Option<SemaphorePermit<'a>>,
}

impl std::ops::Deref for Whole<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self { room: Semaphore::new(BODIES_MAX), timeout: BODY_TIMEOUT }
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
        tokio::time::timeout(self.timeout, read).await.unwrap_or(Err(Failure::TooSlow(self.timeout)))
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
        let bodies = Bodies { room: Semaphore::new(10), timeout: BODY_TIMEOUT };
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
        let bodies = Bodies { room: Semaphore::new(10), timeout: Duration::from_millis(20) };
        let silent = stream::iter([Ok::<_, std::io::Error>("1")]).chain(std::future::pending().into_stream());
        assert!(matches!(bodies.read(Body::from_stream(silent)).await, Err(Failure::TooSlow(_))));
        assert_eq!(bodies.room.available_permits(), 10);
    }
}
