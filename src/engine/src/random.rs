//! A random generator that is part of the state: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

use serde::{Deserialize, Serialize};

/// The generator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// A Poisson number of mean 6, at most 20: the weight of an event for one tree.
    pub fn poisson6(&mut self) -> u32 {
        let unit = self.unit();
        // All are compared, so that the processor needn't guess how far.
        POISSON6.iter().map(|at_most| u32::from(unit >= *at_most)).sum()
    }
}

/// Chances that a Poisson number of mean 6 is at most 0, 1, … 19.
const POISSON6: [f64; 20] = {
    /// exp(-6)
    const NONE: f64 = 0.002_478_752_176_666_358_5;
    let (mut chances, mut chance, mut sum, mut number) = ([0.0; 20], NONE, 0.0, 0);
    while number < chances.len() {
        sum += chance;
        chances[number] = sum;
        number += 1;
        chance *= 6.0 / number as f64;
    }
    chances
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_have_a_mean_of_six() {
        let mut random = Random::new(1);
        let weights: Vec<u32> = (0..10_000).map(|_| random.poisson6()).collect();
        let sum: u32 = weights.iter().sum();
        assert!((59_000..61_000).contains(&sum), "{sum}");
        // Of a Poisson number the variance is the mean.
        let squares: u32 = weights.iter().map(|weight| weight.abs_diff(6).pow(2)).sum();
        assert!((57_000..63_000).contains(&squares), "{squares}");
    }
}
