//! The horizon: what is remembered of the newest events, for retries and for labels that come later.
//!
//! Bounded by number and by bytes. An event beyond the horizon is new again, so a client retries within it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::answer::EventRecord;
use crate::entry::{Features, Input, Value};

/// One remembered event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remembered {
    pub record: EventRecord,
    /// What its label is learned from, until it has come.
    pub awaited: Option<Awaited>,
}

/// What an event keeps until its label comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Awaited {
    /// What was observed.
    pub input: Input,
    /// What the mixture gave to the classes that were known: the label is scored by it. It isn't known of an event from
    /// before version 3 of the snapshot, or from before a reset.
    pub shares: Option<Vec<f32>>,
}

impl Awaited {
    fn bytes(&self) -> usize {
        let input = match &self.input {
            Input::Features(Features::Dense(values)) => values.len() * 8,
            Input::Features(Features::Named(values)) => values.iter().map(|(name, value)| named(name, value)).sum(),
            Input::Signal(samples) => samples.len() * 4,
            Input::Channels(channels) => channels.iter().map(|samples| samples.len() * 4 + 24).sum(),
        };
        input + self.shares.as_ref().map_or(0, |shares| shares.len() * 4)
    }
}

/// A name and a value; texts can be much longer than what holds them.
fn named(name: &str, value: &Value) -> usize {
    let text = match value {
        Value::Text(text) => text.len(),
        Value::Number(_) | Value::Missing => 0,
    };
    64 + name.len() + text
}

/// The newest events by id. Stored as the list of them, oldest first; the rest follows from it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Vec<(String, Remembered)>")]
pub struct Recent {
    events: VecDeque<(Arc<str>, Remembered)>,
    /// The numbers of the events by their ids; the first of `events` has the number `first`.
    numbers: BTreeMap<Arc<str>, u64>,
    first: u64,
    awaited_bytes: usize,
    /// Events at the front of which nothing waits any more.
    forgotten: usize,
}

impl Serialize for Recent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.events.iter().map(|(id, event)| (&**id, event)))
    }
}

impl From<Vec<(String, Remembered)>> for Recent {
    fn from(events: Vec<(String, Remembered)>) -> Self {
        let mut recent = Self::default();
        for (id, event) in events {
            recent.push(id.into(), event);
        }
        recent
    }
}

impl Recent {
    fn place(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).map(|number| (number - self.first) as usize)
    }

    pub fn get(&self, id: &str) -> Option<&Remembered> {
        self.place(id).and_then(|place| self.events.get(place)).map(|(_, event)| event)
    }

    /// Takes what an event has kept for its label, which has come, and marks it.
    pub fn label(&mut self, id: &str) -> Option<Awaited> {
        let place = self.place(id)?;
        let (_, event) = self.events.get_mut(place)?;
        event.record.labelled = true;
        let awaited = event.awaited.take()?;
        self.awaited_bytes -= awaited.bytes();
        Some(awaited)
    }

    /// Remembers an event that isn't remembered yet; the oldest go beyond `max`, and what they keep for their labels beyond so
    /// many bytes of it.
    pub fn insert(&mut self, id: &str, event: Remembered, max: u32, awaited_bytes_max: usize) {
        self.push(id.into(), event);
        self.limit(max);
        while self.awaited_bytes > awaited_bytes_max && self.forgotten < self.events.len() {
            if let Some(awaited) = self.events[self.forgotten].1.awaited.take() {
                self.awaited_bytes -= awaited.bytes();
            }
            self.forgotten += 1;
        }
    }

    fn push(&mut self, id: Arc<str>, event: Remembered) {
        self.awaited_bytes += event.awaited.as_ref().map_or(0, Awaited::bytes);
        self.numbers.insert(id.clone(), self.first + self.events.len() as u64);
        self.events.push_back((id, event));
    }

    /// Keeps the newest `max`.
    pub fn limit(&mut self, max: u32) {
        while self.events.len() > max.max(1) as usize {
            let Some((id, event)) = self.events.pop_front() else { return };
            self.numbers.remove(&id);
            self.first += 1;
            self.awaited_bytes -= event.awaited.as_ref().map_or(0, Awaited::bytes);
            self.forgotten = self.forgotten.saturating_sub(1);
        }
    }

    /// Forgets how the mixtures were: the classes are about to be others.
    pub fn forget_shares(&mut self) {
        for (_, event) in &mut self.events {
            let Some(awaited) = &mut event.awaited else { continue };
            let shares = awaited.shares.take();
            self.awaited_bytes -= shares.map_or(0, |shares| shares.len() * 4);
        }
    }

    pub fn bytes(&self) -> usize {
        self.awaited_bytes + self.events.iter().map(|(id, _)| id.len() + 200).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::AnswerPath;
    use crate::entry::EntryId;

    const BYTES_MAX: usize = 64 << 20;

    #[test]
    fn long_texts_are_forgotten_before_they_are_more_than_the_bound() {
        let mut recent = Recent::default();
        for number in 0..100 {
            let values = (0..2_000).map(|name| (format!("{name:0>250}"), Value::Text("v".repeat(250)))).collect();
            let awaited = Awaited { input: Input::Features(Features::Named(values)), shares: None };
            let record = EventRecord {
                applied_at: EntryId::default(),
                prediction: None,
                confidence: 0.0,
                path: AnswerPath::ColdStart,
                labelled: false,
            };
            recent.insert(&format!("e-{number}"), Remembered { record, awaited: Some(awaited) }, 1_000, BYTES_MAX);
        }
        let stored = postcard::to_stdvec(&recent).unwrap().len();
        assert!((BYTES_MAX / 2..BYTES_MAX).contains(&stored), "{stored} bytes");
        assert!(recent.get("e-0").is_some(), "its id is still known");
        assert!(recent.label("e-0").is_none() && recent.label("e-99").is_some());
    }
}
