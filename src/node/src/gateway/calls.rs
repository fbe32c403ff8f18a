//! The API as a library calls it, without HTTP: the same bounds, the same log, the same answers.

use hebb_engine::{Answer, Entry, Event, Outcome};

use super::Gateway;
use super::dispatch::OnFull;
use super::domains::partition_of;
use super::http::{fresh_id, known_domain};
use super::reply::Failure;
use super::wire;

/// Why a call has no answer; what HTTP would say.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CallError(Failure);

impl Gateway {
    /// Finds patterns in a signal and learns them; waits while the partition's queue is full. The domain must be there.
    ///
    /// # Errors
    /// [`CallError`] for a signal that is out of bounds, a domain that isn't there or isn't for patterns, or an answer that
    /// doesn't come in time.
    pub async fn perceive(&self, domain: &str, signal: Vec<f32>) -> Result<Answer, CallError> {
        self.perceived(domain, signal).await.map_err(CallError)
    }

    async fn perceived(&self, name: &str, signal: Vec<f32>) -> Result<Answer, Failure> {
        let shared = &self.0;
        let domain = known_domain(shared, name).await?;
        let input = wire::signal_input(signal, domain.config.task)?;
        let event = Event { id: fresh_id(), input, label: None };
        let partition = partition_of(&domain, None, &event.id);
        match shared.dispatcher.submit(&partition, Entry::Event(event).encode(), OnFull::Wait).await? {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Rejected(rejection) => Err(rejection.into()),
            _ => Err(Failure::Unexpected),
        }
    }
}
