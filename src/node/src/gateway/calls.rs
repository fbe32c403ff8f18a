//! The API as a library calls it, without HTTP: the same bounds, the same log, the same answers.

use hebb_engine::{Answer, Entry, Event, Features, Label, SmolStr};
use hebb_log::Domain;

use super::Gateway;
use super::dispatch::{OnFull, Sent};
use super::domains::partition_of;
use super::http::{answered, fresh_id, known_domain};
use super::reply::Failure;
use super::wire;

/// Why a call has no answer; what HTTP would say.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CallError(Failure);

/// What one event consists of: an id that is learned once at most, the features and, where it is known, what was true.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Names the event, in at most 256 bytes; sent again, it is answered again and not learned again.
    pub id: SmolStr,
    /// What was observed.
    pub features: Features,
    /// What was true; without it the event is answered only.
    pub label: Option<Label>,
}

impl Gateway {
    /// Finds patterns in a signal and learns them; waits while the partition's queue is full. The domain must be there.
    ///
    /// # Errors
    /// [`CallError`] for a signal that is out of bounds, a domain that isn't there or isn't for patterns, or an answer that
    /// doesn't come in time.
    pub async fn perceive(&self, domain: &str, signal: Vec<f32>) -> Result<Answer, CallError> {
        let answer = async {
            let domain = known_domain(&self.0, domain).await?;
            let input = wire::signal_input(signal, domain.config.task)?;
            answered(&self.0, self.send(&domain, Event { id: fresh_id(), input, label: None }).await?).await
        };
        answer.await.map_err(CallError)
    }

    /// Answers events and learns them in their order, all of them under way at once; waits while a partition's queue is full.
    /// The domain must be there.
    ///
    /// # Errors
    /// [`CallError`] of the first event that is out of bounds or doesn't fit the domain, or whose answer doesn't come in time.
    /// Others may have been learned; to send all of them again is safe.
    pub async fn infer_and_adapt(&self, domain: &str, events: Vec<Observation>) -> Result<Vec<Answer>, CallError> {
        let answers = async {
            let domain = known_domain(&self.0, domain).await?;
            let events =
                events.into_iter().map(|event| checked(event, &domain)).collect::<Result<Vec<_>, Failure>>()?;
            let mut sent = Vec::with_capacity(events.len());
            for event in events {
                sent.push(self.send(&domain, event).await?);
            }
            let mut answers = Vec::with_capacity(sent.len());
            for sent in sent {
                answers.push(answered(&self.0, sent).await?);
            }
            Ok(answers)
        };
        answers.await.map_err(CallError)
    }

    async fn send(&self, domain: &Domain, event: Event) -> Result<Sent, Failure> {
        let partition = partition_of(domain, None, &event.id);
        Ok(self.0.dispatcher.send(&partition, Entry::Event(event).encode(), OnFull::Wait).await?)
    }
}

/// An event within the bounds of the API. What only the engine can judge, such as a label of the wrong kind, it refuses.
fn checked(event: Observation, domain: &Domain) -> Result<Event, Failure> {
    let Observation { id, features, label } = event;
    wire::check_name("the id", &id)?;
    if let Some(Label::Class(class)) = &label {
        wire::check_name("the label", class)?;
    }
    let input = wire::features_input(features, domain.config.task)?;
    Ok(Event { id, input, label })
}
