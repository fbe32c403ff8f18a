//! How rare a number is among those before it.

use serde::{Deserialize, Serialize};

/// Bins of an octave, by the leading bits of the mantissa.
const PER_OCTAVE_BITS: u32 = 3;
/// Bins, the first of which is for numbers that are too small for the others.
const BINS: usize = 256;
/// The first bin begins a little above 2^-20, the last one just below 2^12.
const LOWEST: u64 = (1023 - 20) << PER_OCTAVE_BITS;
/// Numbers after which sums are made anew. Ranks of the first ones mean nothing.
pub const SUMMED_EVERY: u32 = 128;
/// Counts are halved when there are about so many: what is older fades.
pub const COUNTED_MAX: u32 = 5_000;

/// Counts of non-negative numbers on a scale of ratios.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    bins: Vec<u32>,
    /// Of each bin, what higher ones held when they were summed last: to look at every bin for every number costs too much.
    above: Vec<u32>,
    counted: u32,
}

impl Default for Tail {
    fn default() -> Self {
        Self { bins: vec![0; BINS], above: vec![0; BINS], counted: 0 }
    }
}

impl Tail {
    /// The share of earlier numbers that are at least as large, as if this one were among them; then counts it.
    ///
    /// It is a conformal p-value (Laxhammar and Falkman, 2014) up to the width of a bin: of numbers that keep their
    /// distribution it is below x with probability x, whatever the distribution.
    #[inline]
    pub fn rank(&mut self, number: f64) -> f64 {
        let bin = bin(number);
        let beside = f64::from(self.bins[bin]) * if bin == 0 { 1.0 } else { 0.5 };
        let rank = (f64::from(self.above[bin]) + beside + 1.0) / f64::from(self.counted + 1);
        self.bins[bin] += 1;
        self.counted += 1;
        if self.counted.is_multiple_of(SUMMED_EVERY) {
            self.sum();
        }
        rank.min(1.0)
    }

    fn sum(&mut self) {
        if self.counted >= COUNTED_MAX {
            // Rounded up: what was seen once stays known.
            self.bins.iter_mut().for_each(|count| *count = count.div_ceil(2));
        }
        let mut above = 0;
        for (count, sum) in self.bins.iter().zip(&mut self.above).rev() {
            *sum = above;
            above += count;
        }
        self.counted = above;
    }

    pub fn bytes(&self) -> usize {
        (self.bins.len() + self.above.len()) * size_of::<u32>()
    }
}

/// Negative numbers and those that are none are in the first bin.
#[inline]
fn bin(number: f64) -> usize {
    if number > 0.0 {
        ((number.to_bits() >> (52 - PER_OCTAVE_BITS)).saturating_sub(LOWEST) as usize).min(BINS - 1)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn ranks_of_a_steady_source_are_uniform() {
        let mut random = Random::new(1);
        let mut tail = Tail::default();
        for _ in 0..5_000 {
            tail.rank(random.unit() * random.unit());
        }
        for share in [0.01, 0.1, 0.5] {
            let below =
                (0..20_000).filter(|_| tail.rank(random.unit() * random.unit()) < share).count() as f64 / 20_000.0;
            assert!((below - share).abs() < 0.2 * share + 0.002, "{share}: {below}");
        }
    }

    #[test]
    fn odd_numbers_have_a_rank_and_counts_are_bounded() {
        let mut tail = Tail::default();
        for number in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE] {
            for _ in 0..3 * COUNTED_MAX {
                let rank = tail.rank(number);
                assert!(0.0 < rank && rank <= 1.0, "{number}: {rank}");
            }
            assert!(tail.counted < COUNTED_MAX + SUMMED_EVERY);
        }
    }
}
