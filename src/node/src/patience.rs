//! How long a client may take nothing of what it is being sent.
//!
//! What it doesn't take stays in memory. So a connection that takes no byte for [`PATIENCE`] ends, and sooner when others
//! wait for the room.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection may take no byte.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same in a shortage.
const PATIENCE_IN_SHORTAGE: Duration = Duration::from_secs(5);
/// How often it is looked whether there is a shortage.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether somebody has waited for room in vain for a while. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Shortage(Arc<AtomicUsize>);

/// Somebody who waits for room.
pub struct InNeed<'a>(&'a AtomicUsize);

impl Shortage {
    /// There is a shortage until the answer is dropped.
    pub fn feel(&self) -> InNeed<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        InNeed(&self.0)
    }

    /// Whether there is a shortage now.
    pub fn is_felt(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for InNeed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose writes fail once the other side has taken nothing for too long.
pub struct Patient<S> {
    stream: S,
    shortage: Shortage,
    /// Since when nothing is taken, and when to look again; None while bytes go out.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    /// A connection that is ended sooner while there is this shortage.
    pub fn new(stream: S, shortage: Shortage) -> Self {
        Self { stream, shortage, stalled: None }
    }

    /// What became of a write, or that it is given up.
    fn judge(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let (since, look) = self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(PATIENCE_IN_SHORTAGE))));
        while look.as_mut().poll(context).is_ready() {
            if since.elapsed() >= PATIENCE || self.shortage.is_felt() {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            look.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let patient = self.get_mut();
        let written = Pin::new(&mut patient.stream).poll_write(context, bytes);
        patient.judge(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let patient = self.get_mut();
        let written = Pin::new(&mut patient.stream).poll_write_vectored(context, slices);
        patient.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// More than the other side takes in.
    const MUCH: [u8; 64] = [7; 64];

    fn connection() -> (Patient<DuplexStream>, DuplexStream, Shortage) {
        let (here, there) = duplex(16);
        let shortage = Shortage::default();
        (Patient::new(here, shortage.clone()), there, shortage)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut here, _there, _) = connection();
        let began = Instant::now();
        assert_eq!(here.write_all(&MUCH).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_sooner_in_a_shortage() {
        let (mut here, _there, shortage) = connection();
        let began = Instant::now();
        let over = shortage.feel();
        assert_eq!(here.write_all(&MUCH).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE_IN_SHORTAGE.as_secs());
        drop(over);
        assert!(!shortage.is_felt());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_is_not_given_up() {
        let (mut here, mut there, _) = connection();
        let taken = async {
            let mut taken = Vec::new();
            while taken.len() < MUCH.len() {
                tokio::time::sleep(PATIENCE - LOOK_EVERY).await;
                let mut some = [0; 8];
                let length = there.read(&mut some).await.unwrap();
                taken.extend_from_slice(&some[..length]);
            }
            taken
        };
        let (written, taken) = tokio::join!(here.write_all(&MUCH), taken);
        written.unwrap();
        assert_eq!(taken, MUCH);
    }
}
