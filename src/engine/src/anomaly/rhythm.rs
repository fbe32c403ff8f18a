//! Events that come back in the same time.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Events that are remembered: among many, some always are as far apart by chance.
const EVENTS_MAX: usize = 16;
/// A score from which a sample is part of an event.
const EVENT: f64 = 0.3;
/// Samples without one that end an event.
const BURST: u64 = 20;
/// Samples between events that can be a rhythm.
const INTERVAL_MIN: u64 = 100;
/// By how much two intervals may differ and be the same: a share, and samples.
const TOLERANCE: f64 = 0.03;
const TOLERANCE_MIN: f64 = 2.0;
/// An event expects a later one that is so much greater at most.
const ALIKE: f64 = 0.8;
/// What is left of the score of an event that was due.
const DUE: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Happened {
    at: u64,
    score: f64,
}

/// The newest events of a series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rhythm {
    now: u64,
    events: VecDeque<Happened>,
}

impl Rhythm {
    /// The score of the next sample, less where two events as great, as far apart as it is from the second, made it due.
    #[inline]
    pub fn weigh(&mut self, score: f64) -> f64 {
        self.now += 1;
        if score < EVENT { score } else { self.event(score) }
    }

    fn event(&mut self, score: f64) -> f64 {
        let due = self.is_due(score);
        match self.events.back_mut() {
            Some(last) if self.now - last.at < BURST => last.score = last.score.max(score),
            _ => {
                if self.events.len() == EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back(Happened { at: self.now, score });
            }
        }
        if due { score * DUE } else { score }
    }

    fn is_due(&self, score: f64) -> bool {
        let alike = || self.events.iter().filter(|event| event.score >= ALIKE * score);
        alike().any(|second| {
            let interval = self.now - second.at;
            let tolerance = (TOLERANCE * interval as f64).max(TOLERANCE_MIN);
            let as_far = |first: &Happened| (second.at.saturating_sub(first.at)).abs_diff(interval) as f64 <= tolerance;
            interval >= INTERVAL_MIN && alike().take_while(|first| first.at < second.at).any(as_far)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scores of events at these places, the last one in doubt.
    fn last(events: &[(u64, f64)]) -> f64 {
        let mut rhythm = Rhythm::default();
        let mut score = 0.0;
        for (at, raw) in events {
            while rhythm.now + 1 < *at {
                rhythm.weigh(0.0);
            }
            score = rhythm.weigh(*raw);
        }
        score
    }

    #[test]
    fn an_event_that_comes_back_in_time_is_worth_half() {
        assert_eq!(last(&[(500, 0.6), (788, 0.6)]), 0.6);
        assert_eq!(last(&[(500, 0.6), (788, 0.6), (1_076, 0.6)]), 0.3);
        assert_eq!(last(&[(500, 0.6), (788, 0.6), (1_079, 0.6)]), 0.3, "a little late");
        assert_eq!(last(&[(500, 0.6), (788, 0.6), (900, 0.6), (1_076, 0.6)]), 0.3, "others between");
    }

    #[test]
    fn what_is_greater_or_out_of_time_keeps_its_score() {
        assert_eq!(last(&[(500, 0.6), (788, 0.6), (1_076, 0.8)]), 0.8);
        assert_eq!(last(&[(500, 0.6), (788, 0.6), (1_000, 0.6)]), 0.6);
        assert_eq!(last(&[(500, 0.6), (550, 0.6), (600, 0.6)]), 0.6, "too close for a rhythm");
        let many: Vec<(u64, f64)> = (0..100).map(|number| (number * number * 10 + 1, 0.5)).collect();
        let mut rhythm = Rhythm::default();
        for (at, score) in many {
            while rhythm.now < at {
                rhythm.weigh(0.0);
            }
            rhythm.weigh(score);
            assert!(rhythm.events.len() <= EVENTS_MAX);
        }
    }
}
