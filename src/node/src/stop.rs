//! One signal that asks every task of a process to finish.

use tokio::sync::watch;

/// Asks for the stop; a dropped stopper asks too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Waits for the stop. Clones see the same signal.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A stopper and what listens to it.
pub fn stop_channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks every listener to finish.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// One more listener.
    pub fn listen(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    /// Whether the stop was asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns once the stop is asked for.
    pub async fn asked(&mut self) {
        // An error says that the stopper is gone, which asks as well.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}
