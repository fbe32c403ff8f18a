//! How the roles use the runtime.

use std::future::Future;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// A task that ends with its owner at the latest: nothing of a role outlives it.
pub struct Task<T = ()>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end; an error says that it panicked.
    pub async fn ended(mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks that go on when whoever asked for them has gone, and that their role waits for before it ends.
#[derive(Default)]
pub struct Lasting(watch::Sender<usize>);

/// One of them, however it ends.
struct Counted(watch::Sender<usize>);

impl Lasting {
    /// Begins one. It has to end by itself, and soon.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.send_modify(|count| *count += 1);
        let counted = Counted(self.0.clone());
        tokio::spawn(async move {
            let _counted = counted;
            work.await
        })
    }

    /// Waits until there are none.
    pub async fn ended(&self) {
        // An error says that the sender is gone, which is here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Does what takes milliseconds of a processor. Where the runtime has other threads they take over its other tasks; on
/// simulated time there is one thread, and nothing else happens meanwhile.
pub fn at_length<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}
