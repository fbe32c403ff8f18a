//! Anomalies and changes of one series of numbers, sample by sample.

use serde::{Deserialize, Serialize};

use super::moments::Moments;
use super::rhythm::Rhythm;
use super::tail::{COUNTED_MAX, SUMMED_EVERY, Tail};
use crate::answer::SignalAnomaly;
use crate::math::{larger, ln, smaller};

/// Samples that the baseline averages over, and those that its newest mean does.
const LONG: f64 = 6_400.0;
const SHORT: f64 = 40.0;
/// Samples after an anomaly in which only one that is greater by a tenth is told.
const HOLD: u32 = 100;
const GREATER: f64 = 1.1;
/// Samples at the beginning of which nothing is told: their ranks mean nothing.
const WARM: f64 = SUMMED_EVERY as f64;
/// Samples of a stretch: a shift is compared with the greatest of earlier stretches, which fades by a share with each.
const STRETCH: u32 = 128;
const STRETCH_FADE: f64 = 0.99;
/// Four ranks whose product is above this are no anomaly.
const PLAIN: f64 = 0.05;
/// What is told of a deviation at most: the baseline may be of no width at all.
const DEVIATION_MAX: f64 = 1e6;
/// Samples are taken to be within this, so that their squares are numbers.
const SAMPLE_MAX: f64 = 1e100;

/// Contexts: levels times slopes.
const LEVELS: i32 = 31;
const SLOPES: i32 = 15;
/// Levels a deviation, and slopes a typical step.
const LEVELS_PER_DEVIATION: f64 = 2.0;
/// Samples that a context averages over.
const CONTEXT: f64 = 200.0;
/// A new context is trusted as if it had seen so many steps of the usual size.
const PRIOR: f64 = 4.0;

/// What followed a level and a slope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Context {
    weight: f64,
    step: f64,
    variance: f64,
}

/// What a sample is to the series before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// How anomalous it is, 0 to 1; 0 within 100 samples of an anomaly that was about as great, so that an event is told once.
    pub score: f64,
    /// How far the mean of about the last 40 samples has left the long mean, 0 to 1; 0.5 is as far as ever before.
    pub change: f64,
    /// Standard deviations above the long mean, from -1,000,000 to 1,000,000.
    pub z_score: f64,
}

/// A detector of anomalies and changes in one series.
///
/// Four deviations are watched: from the range seen so far, from the mean (in standard deviations), of the mean of the newest
/// samples from it, and from what followed such a level and slope before (a one-step baseline that is learned). Each becomes
/// the share of earlier samples that deviated as much, and the score is the mean of their negative logarithms (ranks combined
/// as by Fisher, 1932). It is so near 1 for a sample that is the first of its kind in 5,000 in all four respects, and
/// comparable between series of any scale. Of an event that comes back in the same time, half the score is left.
///
/// ```
/// let mut detector = hebb_engine::SeriesDetector::default();
/// let quiet = (0..2_000).map(|at| detector.step(f64::from(at % 24)).score).fold(0.0, f64::max);
/// let spike = detector.step(60.0);
/// assert!(quiet < 0.4 && spike.score > 0.6 && spike.z_score > 4.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesDetector {
    level: Moments,
    /// Of the steps from sample to sample.
    step: Moments,
    newest: Moments,
    low: f64,
    high: f64,
    last: f64,
    /// The context of the sample to come.
    at: u32,
    contexts: Vec<Context>,
    novelty: Tail,
    deviation: Tail,
    shift: Tail,
    surprise: Tail,
    /// The greatest shift of this stretch, of earlier ones, and the samples of this one.
    farthest: f64,
    farthest_before: f64,
    stretched: u32,
    rhythm: Rhythm,
    /// The greatest score that holds, and the samples for which it still does.
    held: f64,
    holds_for: u32,
}

impl Default for SeriesDetector {
    fn default() -> Self {
        Self {
            level: Moments::default(),
            step: Moments::default(),
            newest: Moments::default(),
            low: 0.0,
            high: 0.0,
            last: 0.0,
            at: 0,
            contexts: vec![Context::default(); (LEVELS * SLOPES) as usize],
            novelty: Tail::default(),
            deviation: Tail::default(),
            shift: Tail::default(),
            surprise: Tail::default(),
            farthest: 0.0,
            farthest_before: 0.0,
            stretched: 0,
            rhythm: Rhythm::default(),
            held: 0.0,
            holds_for: 0,
        }
    }
}

/// `number / width`, where both may be 0.
#[inline]
fn ratio(number: f64, width: f64) -> f64 {
    bounded(number / width.max(f64::MIN_POSITIVE))
}

#[inline]
fn bounded(number: f64) -> f64 {
    number.clamp(-DEVIATION_MAX, DEVIATION_MAX)
}

/// The mean of the negative logarithms of four ranks with this product, as a share of the most that it can be.
///
/// One logarithm of a product is cheaper than four, and most samples need none.
#[inline]
fn rarity(product: f64) -> f64 {
    if product > PLAIN { 0.0 } else { (-ln(product) / (4.0 * ln(f64::from(COUNTED_MAX)))).clamp(0.0, 1.0) }
}

impl SeriesDetector {
    /// Judges a sample by those before it, then learns it. What isn't finite is passed over.
    #[inline]
    pub fn step(&mut self, sample: f64) -> Reading {
        if !sample.is_finite() {
            return Reading::default();
        }
        let sample = sample.clamp(-SAMPLE_MAX, SAMPLE_MAX);
        if self.level.weight == 0.0 {
            (self.low, self.high, self.last, self.newest.mean, self.level.mean) =
                (sample, sample, sample, sample, sample);
        }
        let beyond = (sample - self.high).max(self.low - sample).max(0.0);
        let novelty = self.novelty.rank(ratio(beyond, self.high - self.low));
        // No sample more than doubles the range: what is far beyond it would hide all that comes later.
        let room = if self.level.knows_spread() { self.high - self.low } else { f64::INFINITY };
        self.low = smaller(self.low, larger(sample, self.low - room));
        self.high = larger(self.high, smaller(sample, self.high + room));
        let narrow = 1.0 / self.level.deviation.max(f64::MIN_POSITIVE);
        let z_score = bounded((sample - self.level.mean) * narrow);
        let deviation = self.deviation.rank(z_score.abs());
        let plausible = self.level.plausible(sample);
        self.newest.add(plausible, SHORT);
        let shift = bounded((self.newest.mean - self.level.mean).abs() * narrow);
        let shifted = self.shift.rank(shift);
        let surprise = self.follow(sample);
        let surprise = self.surprise.rank(surprise);
        self.level.add(plausible, LONG);
        self.at = self.context(sample);
        self.last = sample;

        let change = self.change(shift);
        let weighed = self.rhythm.weigh(rarity(novelty * deviation * shifted * surprise));
        let score = self.hold(weighed);
        if self.level.weight > WARM { Reading { score, change, z_score } } else { Reading::default() }
    }

    /// What stands out in the next samples of the series; nothing without samples.
    pub fn watch(&mut self, samples: &[f32]) -> Option<SignalAnomaly> {
        let mut most = SignalAnomaly::default();
        let (mut score, mut change, mut z_score) = (0.0, 0.0, 0.0_f64);
        for (place, sample) in samples.iter().enumerate() {
            let reading = self.step(f64::from(*sample));
            if reading.score > score {
                (score, most.at) = (reading.score, place as u32);
            }
            if reading.change > change {
                (change, most.change_at) = (reading.change, place as u32);
            }
            if reading.z_score.abs() > z_score.abs() {
                z_score = reading.z_score;
            }
        }
        (most.score, most.change, most.z_score) = (score as f32, change as f32, z_score as f32);
        (!samples.is_empty()).then_some(most)
    }

    /// How unlike what its context led to this step is, in typical deviations; learns it.
    #[inline]
    fn follow(&mut self, sample: f64) -> f64 {
        let step = sample - self.last;
        let context = &mut self.contexts[self.at as usize];
        let Context { weight, step: usual, variance } = *context;
        let share = 1.0 / (weight + PRIOR);
        let variance = (weight * variance + PRIOR * self.step.variance) * share;
        let surprise = ratio((step - usual * weight * share).abs(), variance.sqrt());
        let step = self.step.plausible(step);
        context.weight = (weight + 1.0).min(CONTEXT);
        let share = 1.0 / context.weight;
        context.step += (step - usual) * share;
        let off = step - context.step;
        context.variance += (off * off - context.variance) * share;
        self.step.add(step, LONG);
        surprise
    }

    /// The context that a sample is to the next one.
    #[inline]
    fn context(&self, sample: f64) -> u32 {
        let place = |number: f64, places: i32| {
            let most = places / 2;
            let rounded = if number < 0.0 { number - 0.5 } else { number + 0.5 };
            (rounded as i32).clamp(-most, most) + most
        };
        let level = LEVELS_PER_DEVIATION * ratio(sample - self.level.mean, self.level.deviation);
        let slope = ratio(sample - self.last, self.step.deviation);
        (place(level, LEVELS) * SLOPES + place(slope, SLOPES)) as u32
    }

    /// How far a shift is beyond those of earlier stretches; learns it.
    #[inline]
    fn change(&mut self, shift: f64) -> f64 {
        if self.level.weight <= WARM {
            return 0.0;
        }
        let before = self.farthest_before;
        // Of the first stretch it isn't known what is far.
        let change =
            if self.level.weight <= WARM + f64::from(STRETCH) || shift == 0.0 { 0.0 } else { shift / (shift + before) };
        self.farthest = self.farthest.max(shift);
        self.stretched += 1;
        if self.stretched == STRETCH {
            self.farthest_before = self.farthest.max(before * STRETCH_FADE);
            (self.farthest, self.stretched) = (0.0, 0);
        }
        change
    }

    #[inline]
    fn hold(&mut self, raw: f64) -> f64 {
        if self.holds_for > 0 && raw <= GREATER * self.held {
            self.holds_for -= 1;
            return 0.0;
        }
        if raw > 0.0 {
            (self.held, self.holds_for) = (raw, HOLD);
        }
        raw
    }

    /// Bytes of memory; they don't grow.
    pub fn bytes(&self) -> usize {
        self.contexts.len() * size_of::<Context>()
            + self.novelty.bytes()
            + self.deviation.bytes()
            + self.shift.bytes()
            + self.surprise.bytes()
    }
}
