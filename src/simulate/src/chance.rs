//! Seeded randomness: one stream for each who draws, so that what one does changes nobody else's luck.

use std::ops::Range;
use std::time::Duration;

use hebb_engine::event_digest;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A stream of random numbers.
pub struct Chance(StdRng);

impl Chance {
    /// The stream of this name under a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(StdRng::seed_from_u64(event_digest(&format!("{seed} {name}"))))
    }

    /// Whether what has a probability from 0 to 1 happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// A length of time of a range.
    pub fn duration(&mut self, range: &Range<Duration>) -> Duration {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(millis(range.start)..millis(range.end)))
    }

    /// A number of a range; its start where the range is empty.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { self.0.random_range(range) }
    }

    /// A number from −1 to 1.
    pub fn signed(&mut self) -> f64 {
        self.0.random::<f64>() * 2.0 - 1.0
    }
}
