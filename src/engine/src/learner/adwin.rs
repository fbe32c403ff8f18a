//! ADWIN: a window over numbers in [0, 1] that shrinks when its older and newer parts differ beyond chance
//! (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007).

use serde::{Deserialize, Serialize, Serializer};

use crate::math::ln;

/// Buckets of one size before the two oldest are merged.
const BUCKETS_A_SIZE: usize = 5;
/// A cut is looked for once in so many numbers.
const CHECK_EVERY: u64 = 32;
/// Numbers that each part needs before they are compared.
const PART_MIN: f64 = 5.0;

/// The window and what it takes to notice that it has become two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    delta: f64,
    /// The buckets by size: those of 2^i numbers at i.
    sizes: Vec<Buckets>,
    count: u64,
    sum: f64,
    ticks: u64,
}

/// The sums of some buckets of one size, oldest first; stored as the list of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Vec<f32>")]
struct Buckets {
    // One more for the moment before two are merged.
    sums: [f32; BUCKETS_A_SIZE + 1],
    len: usize,
}

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sums().serialize(serializer)
    }
}

impl TryFrom<Vec<f32>> for Buckets {
    type Error = &'static str;

    fn try_from(stored: Vec<f32>) -> Result<Self, Self::Error> {
        if stored.len() > BUCKETS_A_SIZE {
            return Err("a window has too many buckets of one size");
        }
        let mut buckets = Self::default();
        stored.into_iter().for_each(|sum| buckets.push(sum));
        Ok(buckets)
    }
}

impl Buckets {
    fn sums(&self) -> &[f32] {
        &self.sums[..self.len]
    }

    fn push(&mut self, sum: f32) {
        self.sums[self.len] = sum;
        self.len += 1;
    }

    /// Takes the oldest `N` out.
    fn take<const N: usize>(&mut self) -> Option<[f32; N]> {
        let taken = *self.sums().first_chunk()?;
        self.sums.copy_within(N.., 0);
        self.len -= N;
        Some(taken)
    }
}

impl Adwin {
    /// A detector whose chance of a false alarm is about `delta`.
    pub fn new(delta: f64) -> Self {
        Self { delta, sizes: vec![Buckets::default()], count: 0, sum: 0.0, ticks: 0 }
    }

    /// Mean of the window.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// The share of what is something, at most, were the next number something, too.
    pub fn mean_at_most(&self) -> f64 {
        (self.sum + 1.0) / self.count.max(1) as f64
    }

    /// Numbers so far; those that the window let go count too.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Whether the newest numbers, so many at least, are all nothing.
    pub fn is_quiet(&self, count: u64) -> bool {
        let mut quiet = 0;
        for (size, buckets) in self.sizes.iter().enumerate() {
            for bucket in buckets.sums().iter().rev() {
                if quiet >= count || *bucket > 0.0 {
                    return quiet >= count;
                }
                quiet += 1 << size;
            }
        }
        quiet >= count
    }

    /// Takes a number in; whether the window shrank.
    pub fn insert(&mut self, value: f64) -> bool {
        self.sizes[0].push(value as f32);
        self.count += 1;
        self.sum += value;
        self.ticks += 1;
        self.compress();
        self.ticks.is_multiple_of(CHECK_EVERY) && self.count > 2 * PART_MIN as u64 && self.shrink()
    }

    fn compress(&mut self) {
        let mut size = 0;
        while self.sizes[size].len > BUCKETS_A_SIZE
            && let Some([older, newer]) = self.sizes[size].take()
        {
            size += 1;
            if size == self.sizes.len() {
                self.sizes.push(Buckets::default());
            }
            self.sizes[size].push(older + newer);
        }
    }

    fn shrink(&mut self) -> bool {
        let mut shrank = false;
        while self.has_cut() {
            shrank = true;
            self.drop_oldest();
            if self.count < 2 * PART_MIN as u64 {
                break;
            }
        }
        shrank
    }

    fn has_cut(&self) -> bool {
        let total = self.count as f64;
        let mean = self.mean();
        let variance = mean * (1.0 - mean);
        let log = ln(2.0 * ln(total).max(1.0) / self.delta);
        // The bound is a sum, and hardly any difference reaches even one of its terms. Those are compared first, times both
        // counts, so that nothing is divided; a little less than they are, so that rounding leaves out nothing.
        let (of_variance, of_log) = (0.999 * 2.0 * variance * log * total, 0.999 * 2.0 / 3.0 * log * total);
        // However what is rarer lies, all of it in one part puts them no further apart.
        if 1.001 * self.sum.min(total - self.sum) * total < of_log {
            return false;
        }
        let (mut old_count, mut old_sum) = (0.0, 0.0);
        for (size, buckets) in self.sizes.iter().enumerate().rev() {
            for bucket in buckets.sums() {
                old_count += (1u64 << size) as f64;
                old_sum += f64::from(*bucket);
                let new_count = total - old_count;
                if new_count < PART_MIN {
                    return false;
                }
                if old_count < PART_MIN {
                    continue;
                }
                let apart = (old_sum * new_count - (self.sum - old_sum) * old_count).abs();
                if apart < of_log || apart * apart < of_variance * old_count * new_count {
                    continue;
                }
                let harmonic = 1.0 / (1.0 / old_count + 1.0 / new_count);
                let bound = (2.0 / harmonic * variance * log).sqrt() + 2.0 / (3.0 * harmonic) * log;
                if (old_sum / old_count - (self.sum - old_sum) / new_count).abs() > bound {
                    return true;
                }
            }
        }
        false
    }

    fn drop_oldest(&mut self) {
        while let Some(buckets) = self.sizes.last_mut() {
            if let Some([bucket]) = buckets.take() {
                self.count -= 1u64 << (self.sizes.len() - 1);
                self.sum -= f64::from(bucket);
                return;
            }
            if self.sizes.len() == 1 {
                return;
            }
            self.sizes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn run(detector: &mut Adwin, random: &mut Random, share: f64, count: usize) -> Option<usize> {
        (0..count).find(|_| {
            let value = f64::from(u8::from(random.unit() < share));
            detector.insert(value)
        })
    }

    #[test]
    fn a_step_of_the_error_rate_is_noticed_within_200_events_on_average() {
        let delays: Vec<usize> = (0..20)
            .map(|seed| {
                let (mut detector, mut random) = (Adwin::new(0.002), Random::new(seed));
                assert_eq!(run(&mut detector, &mut random, 0.2, 2_000), None);
                run(&mut detector, &mut random, 0.4, 2_000).unwrap()
            })
            .collect();
        assert!(delays.iter().sum::<usize>() / delays.len() < 200, "{delays:?}");
    }

    /// Whether two parts of the window are further apart than the bound, as in the paper.
    fn has_cut_by_definition(detector: &Adwin) -> bool {
        let (total, mean) = (detector.count as f64, detector.mean());
        let log = ln(2.0 * ln(total).max(1.0) / detector.delta);
        let (mut old_count, mut old_sum) = (0.0, 0.0);
        let buckets = detector.sizes.iter().enumerate().rev();
        buckets.flat_map(|(size, buckets)| buckets.sums().iter().map(move |sum| (size, sum))).any(|(size, sum)| {
            old_count += (1u64 << size) as f64;
            old_sum += f64::from(*sum);
            let (new_count, new_sum) = (total - old_count, detector.sum - old_sum);
            let parts = 1.0 / old_count + 1.0 / new_count;
            let bound = (2.0 * parts * mean * (1.0 - mean) * log).sqrt() + 2.0 / 3.0 * parts * log;
            let large = old_count >= PART_MIN && new_count >= PART_MIN;
            large && (old_sum / old_count - new_sum / new_count).abs() > bound
        })
    }

    #[test]
    fn what_is_left_out_without_a_division_has_no_cut() {
        let mut random = Random::new(4);
        let mut cuts = 0;
        for rate in [0.001, 0.01, 0.1, 0.4] {
            let mut detector = Adwin::new(0.01);
            for number in 0..20_000 {
                let share = if number / 2_500 % 2 == 0 { rate } else { rate * 1.5 };
                detector.insert(f64::from(u8::from(random.unit() < share)));
                // Before the next look shrinks the window.
                let expected = has_cut_by_definition(&detector);
                assert_eq!(detector.has_cut(), expected, "at {number} with a rate of {rate}");
                cuts += u32::from(expected);
            }
        }
        assert!(cuts > 100, "{cuts}");
    }

    #[test]
    fn a_steady_rate_raises_no_alarm() {
        let alarms = (0..40).filter(|seed| run(&mut Adwin::new(0.002), &mut Random::new(*seed), 0.2, 5_000).is_some());
        assert!(alarms.count() <= 1);
    }

    #[test]
    fn it_is_quiet_again_some_numbers_after_the_last_that_is_something() {
        let mut detector = Adwin::new(0.002);
        assert!(!detector.is_quiet(1), "it has seen nothing yet");
        for _ in 0..1_000 {
            detector.insert(0.0);
        }
        assert!(detector.is_quiet(1_000) && !detector.is_quiet(1_001));
        detector.insert(1.0);
        let since = (0..).find(|_| {
            let quiet = detector.is_quiet(32);
            detector.insert(0.0);
            quiet
        });
        // A bucket is quiet as a whole or not at all.
        assert!(since.is_some_and(|since| (32..64).contains(&since)), "{since:?}");
    }

    #[test]
    fn a_stored_window_with_too_many_buckets_is_refused() {
        let stored = |sums: usize| postcard::from_bytes::<Buckets>(&postcard::to_stdvec(&vec![1.0f32; sums]).unwrap());
        assert_eq!(stored(BUCKETS_A_SIZE).unwrap().sums(), [1.0; BUCKETS_A_SIZE]);
        assert!(stored(BUCKETS_A_SIZE + 1).is_err());
    }

    #[test]
    fn memory_grows_with_the_logarithm_of_the_window() {
        let mut detector = Adwin::new(0.002);
        for _ in 0..100_000 {
            detector.insert(0.0);
        }
        assert_eq!(detector.count, 100_000);
        assert!(detector.sizes.iter().map(|buckets| buckets.len).sum::<usize>() < 120);
    }
}
