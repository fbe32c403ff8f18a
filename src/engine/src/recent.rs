//! The horizon: what is remembered of the newest events, for retries and for labels that come later.
//!
//! Bounded by number and by bytes. An event beyond the horizon is new again, so a client retries within it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::answer::EventRecord;
use crate::entry::Input;

/// Bytes of inputs that wait for their labels; beyond it the oldest are forgotten first.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// One remembered event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    pub record: EventRecord,
    /// What was observed, until the label has come.
    pub input: Option<Input>,
}

/// The newest events by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    order: VecDeque<String>,
    events: BTreeMap<String, Remembered>,
    input_bytes: usize,
    /// Events at the front of `order` whose inputs are gone.
    forgotten: usize,
}

fn bytes(input: &Input) -> usize {
    match input {
        Input::Features(crate::entry::Features::Dense(values)) => values.len() * 8,
        Input::Features(crate::entry::Features::Named(values)) => values.len() * 64,
        Input::Signal(samples) => samples.len() * 4,
    }
}

impl Recent {
    pub fn get(&self, id: &str) -> Option<&Remembered> {
        self.events.get(id)
    }

    /// Takes the input of an event whose label has come, and marks it.
    pub fn label(&mut self, id: &str) -> Option<Input> {
        let event = self.events.get_mut(id)?;
        event.record.labelled = true;
        let input = event.input.take()?;
        self.input_bytes -= bytes(&input);
        Some(input)
    }

    /// Remembers an event that isn't remembered yet; the oldest go beyond `max`.
    pub fn insert(&mut self, id: String, event: Remembered, max: u32) {
        self.input_bytes += event.input.as_ref().map_or(0, bytes);
        self.order.push_back(id.clone());
        self.events.insert(id, event);
        self.limit(max);
        while self.input_bytes > INPUT_BYTES_MAX && self.forgotten < self.order.len() {
            if let Some(event) = self.events.get_mut(&self.order[self.forgotten])
                && let Some(input) = event.input.take()
            {
                self.input_bytes -= bytes(&input);
            }
            self.forgotten += 1;
        }
    }

    /// Keeps the newest `max`.
    pub fn limit(&mut self, max: u32) {
        while self.order.len() > max.max(1) as usize {
            if let Some(oldest) = self.order.pop_front()
                && let Some(event) = self.events.remove(&oldest)
            {
                self.input_bytes -= event.input.as_ref().map_or(0, bytes);
            }
            self.forgotten = self.forgotten.saturating_sub(1);
        }
    }

    pub fn bytes(&self) -> usize {
        self.input_bytes + self.order.iter().map(|id| id.len() * 2 + 200).sum::<usize>()
    }
}
