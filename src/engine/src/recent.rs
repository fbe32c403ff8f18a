//! The horizon: what is remembered of the newest events, for retries and for labels that come later.
//!
//! Bounded by number and by bytes. Beyond it, an event is still told from a new one for a minute (`Former`), so that a retry that
//! very many others have overtaken isn't learned again.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde::{Deserialize, Serialize, Serializer};
use smol_str::SmolStr;

use crate::answer::EventRecord;
use crate::entry::{Features, Input, Value, event_digest};

/// How long an id is known after its event, in milliseconds of the log. Gateways and clients try again for about ten seconds.
const KNOWN_FOR_MS: u64 = 60_000;
/// Most ids that are known beyond the horizon: 26,000 events a second for ten seconds.
const FORMER_MAX: usize = 1 << 18;

/// A map in which nothing but single keys is looked up: its order is never told. It hashes the same in every process.
type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

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
    /// before version 3 of the snapshot.
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

/// The newest events by id. Stored as the list of them, oldest first, and the ids of the former ones; the rest follows from them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Recent {
    #[serde(serialize_with = "by_id")]
    events: VecDeque<(SmolStr, Remembered)>,
    former: Former,
    /// The numbers of the events by their ids; the first of `events` has the number `first`.
    #[serde(skip_serializing)]
    numbers: Lookup<SmolStr, u64>,
    #[serde(skip_serializing)]
    first: u64,
    #[serde(skip_serializing)]
    awaited_bytes: usize,
    /// Events at the front of which nothing waits any more.
    #[serde(skip_serializing)]
    forgotten: usize,
}

fn by_id<S: Serializer>(events: &VecDeque<(SmolStr, Remembered)>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(events.iter().map(|(id, event)| (&**id, event)))
}

/// The horizon of version 3: nothing was known beyond it.
#[derive(Deserialize)]
pub struct RecentOf3(Vec<(String, Remembered)>);

#[derive(Deserialize)]
struct Stored {
    events: Vec<(String, Remembered)>,
    former: Former,
}

impl From<Stored> for Recent {
    fn from(Stored { events, former }: Stored) -> Self {
        let mut recent = Self { former, ..Self::default() };
        for (id, event) in events {
            recent.push(id.into(), event);
        }
        recent
    }
}

impl From<RecentOf3> for Recent {
    fn from(RecentOf3(events): RecentOf3) -> Self {
        Stored { events, former: Former::default() }.into()
    }
}

impl From<Vec<(String, Remembered)>> for RecentOf3 {
    fn from(events: Vec<(String, Remembered)>) -> Self {
        Self(events)
    }
}

/// What is known of the events beyond the horizon that are no older than a minute. Stored as a list: how many milliseconds each
/// came after the one before it, its digest, and whether it was accepted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Vec<(u64, [u8; 8], bool)>")]
struct Former {
    /// When each came, and the digest of its id, the oldest first.
    events: VecDeque<(u64, u64)>,
    /// By digest, whether a governed memory accepted it.
    accepted: Lookup<u64, bool>,
}

impl Serialize for Former {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = 0;
        serializer.collect_seq(self.events.iter().map(|(at_ms, digest)| {
            let since = at_ms.wrapping_sub(before);
            before = *at_ms;
            (since, digest.to_le_bytes(), self.accepted.get(digest).copied().unwrap_or_default())
        }))
    }
}

impl From<Vec<(u64, [u8; 8], bool)>> for Former {
    fn from(stored: Vec<(u64, [u8; 8], bool)>) -> Self {
        let mut former = Self::default();
        let mut at_ms = 0u64;
        for (since, digest, accepted) in stored {
            at_ms = at_ms.wrapping_add(since);
            former.push(at_ms, u64::from_le_bytes(digest), accepted);
        }
        former
    }
}

impl Former {
    fn push(&mut self, at_ms: u64, digest: u64, accepted: bool) {
        self.events.push_back((at_ms, digest));
        self.accepted.insert(digest, accepted);
        if self.events.len() > FORMER_MAX {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, digest)) = self.events.pop_front() {
            self.accepted.remove(&digest);
        }
    }

    fn expire(&mut self, now_ms: u64) {
        while self.events.front().is_some_and(|(at_ms, _)| is_old(*at_ms, now_ms)) {
            self.pop();
        }
    }
}

fn is_old(at_ms: u64, now_ms: u64) -> bool {
    at_ms.saturating_add(KNOWN_FOR_MS) <= now_ms
}

impl Recent {
    fn place(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).map(|number| (number - self.first) as usize)
    }

    pub fn get(&self, id: &str) -> Option<&Remembered> {
        self.place(id).and_then(|place| self.events.get(place)).map(|(_, event)| event)
    }

    /// Takes what an event has kept for its label, which has come, and marks it; nothing, however often, where that was
    /// forgotten.
    pub fn label(&mut self, id: &str) -> Option<Awaited> {
        let place = self.place(id)?;
        let (_, event) = self.events.get_mut(place)?;
        let awaited = event.awaited.take()?;
        event.record.labelled = true;
        self.awaited_bytes -= awaited.bytes();
        Some(awaited)
    }

    /// Whether the event of this id was accepted, where it is beyond the horizon and no older than a minute; nothing where it
    /// isn't known.
    pub fn former(&self, id: &str) -> Option<bool> {
        // Nothing is where few events come, and then no digest is made.
        if self.former.events.is_empty() {
            return None;
        }
        self.former.accepted.get(&event_digest(id)).copied()
    }

    /// Remembers an event that isn't remembered yet; the oldest go beyond `max`, and what they keep for their labels beyond so
    /// many bytes of it.
    pub fn insert(&mut self, id: SmolStr, event: Remembered, max: u32, awaited_bytes_max: usize) {
        let now_ms = event.record.applied_at.at_ms;
        self.push(id, event);
        self.limit(max, now_ms);
        self.former.expire(now_ms);
        while self.awaited_bytes > awaited_bytes_max && self.forgotten < self.events.len() {
            if let Some(awaited) = self.events[self.forgotten].1.awaited.take() {
                self.awaited_bytes -= awaited.bytes();
            }
            self.forgotten += 1;
        }
    }

    fn push(&mut self, id: SmolStr, event: Remembered) {
        self.awaited_bytes += event.awaited.as_ref().map_or(0, Awaited::bytes);
        self.numbers.insert(id.clone(), self.first + self.events.len() as u64);
        self.events.push_back((id, event));
    }

    /// Keeps the newest `max`, and the digests of the others.
    pub fn limit(&mut self, max: u32, now_ms: u64) {
        while self.events.len() > max.max(1) as usize {
            let Some((id, event)) = self.events.pop_front() else { return };
            self.numbers.remove(&id);
            self.first += 1;
            let at_ms = event.record.applied_at.at_ms;
            if !is_old(at_ms, now_ms) {
                self.former.push(at_ms, event_digest(&id), event.record.is_accepted());
            }
            self.awaited_bytes -= event.awaited.as_ref().map_or(0, Awaited::bytes);
            self.forgotten = self.forgotten.saturating_sub(1);
        }
    }

    /// Gives up what waits for labels: a label of one of these events is taken for one that has come already.
    pub fn forget_awaited(&mut self) {
        for (_, event) in &mut self.events {
            event.record.labelled |= event.awaited.take().is_some();
        }
        self.awaited_bytes = 0;
        self.forgotten = self.events.len();
    }

    pub fn bytes(&self) -> usize {
        self.awaited_bytes
            + self.events.iter().map(|(id, _)| id.len() + 200).sum::<usize>()
            + self.former.events.len() * 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::AnswerPath;
    use crate::entry::EntryId;

    const BYTES_MAX: usize = 64 << 20;

    fn event(at_ms: u64) -> Remembered {
        let record = EventRecord {
            applied_at: EntryId { at_ms, seq: 0 },
            prediction: None,
            confidence: 0.0,
            path: AnswerPath::ColdStart,
            labelled: false,
        };
        Remembered { record, awaited: None }
    }

    #[test]
    fn what_is_known_beyond_the_horizon_is_bounded_and_stored_small() {
        let mut recent = Recent::default();
        for number in 0..FORMER_MAX as u64 + 100 {
            recent.insert(format!("e-{number}").into(), event(1_700_000_000_000 + number / 50), 10, BYTES_MAX);
        }
        assert!(recent.former("e-89").is_none() && recent.former("e-90").is_some());
        let bytes = postcard::to_stdvec(&recent).unwrap();
        assert!(bytes.len() < FORMER_MAX * 11, "{} bytes", bytes.len());
        let restored: Recent = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(postcard::to_stdvec(&restored).unwrap(), bytes);
        assert!(restored.former("e-89").is_none() && restored.former("e-90").is_some());
    }

    #[test]
    fn long_texts_are_forgotten_before_they_are_more_than_the_bound() {
        let mut recent = Recent::default();
        for number in 0..100 {
            let values = (0..2_000).map(|name| (format!("{name:0>250}"), Value::Text("v".repeat(250)))).collect();
            let awaited = Awaited { input: Input::Features(Features::Named(values)), shares: None };
            let event = Remembered { awaited: Some(awaited), ..event(0) };
            recent.insert(format!("e-{number}").into(), event, 1_000, BYTES_MAX);
        }
        let stored = postcard::to_stdvec(&recent).unwrap().len();
        assert!((BYTES_MAX / 2..BYTES_MAX).contains(&stored), "{stored} bytes");
        assert!(recent.get("e-0").is_some(), "its id is still known");
        assert!(recent.label("e-0").is_none() && recent.label("e-99").is_some());
        let labelled = |id| recent.get(id).is_some_and(|event| event.record.labelled);
        assert!(!labelled("e-0") && labelled("e-99"), "no label was learned of what was forgotten");
    }
}
