//! Tells classes of whole signals apart, one labelled signal after the other: convolutions with fixed kernels, the share of
//! each that is positive, and a linear model of these shares that every signal improves.
//!
//! Kernels, dilations and shares are those of MiniRocket (Dempster, Schmidt and Webb, "MiniRocket: A Very Fast (Almost)
//! Deterministic Transform for Time Series Classification", KDD 2021), fewer of them: a tenth. What that takes from the
//! training set, thresholds, is taken here from the first 32 signals. The linear model is its ridge regression, solved anew
//! with each signal, of which nothing has to be kept.

mod convolution;
mod least_squares;

use serde::{Deserialize, Serialize};

use self::convolution::{Convolution, KERNELS, Shifted, TAPS, kernels, share_above};
use self::least_squares::LeastSquares;
use crate::answer::Rejection;
use crate::config::Task;
use crate::learner::{Adwin, DRIFT, best};
use crate::math::{exp, in_range, larger};
use crate::random::Random;

/// Samples of one signal, of all its channels together.
pub const SAMPLES_MAX: usize = 65_536;
/// Channels of a signal.
pub const CHANNELS_MAX: usize = 64;
/// Classes: each has a thousand weights.
pub const CLASSES_MAX: usize = 256;
/// Thresholds of a kernel, shared out among its dilations.
const THRESHOLDS: usize = 12;
/// The first signals, from which thresholds and scales are taken.
const FIRST_MAX: usize = 32;
/// Samples of these together. Long signals say as much, fewer of them.
const FIRST_SAMPLES_MAX: usize = 8 * SAMPLES_MAX;
/// A share that varies less than this is not blown up further.
const DEVIATION_MIN: f64 = 0.01;
/// Channels that one kernel adds up at most.
const CHANNELS_ADDED_MAX: usize = 8;
/// How sure a difference of scores makes before there is experience of it, and how far that may go.
const SHARPNESS: f64 = 2.0;
const SHARPNESS_MIN: f64 = 0.5;
const SHARPNESS_MAX: f64 = 20.0;
/// How far one label moves it.
const SHARPNESS_STEP: f64 = 0.1;

/// A classifier of signals, all of equally many channels, however long each is.
///
/// It holds the first signals until there are 32 of them, and then a triangle of about a thousand numbers a side (4 MB),
/// which it goes through with each lesson.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rocket {
    /// Of the first signal; 0 before.
    channels: usize,
    random: Random,
    learned: u64,
    /// Signals learned first with their classes, until there are enough of them.
    first: Vec<(Vec<Vec<f32>>, usize)>,
    /// Chosen by the first signals; anew at every power of two, until there are enough of them.
    convolutions: Vec<Convolution>,
    /// By feature: how much it varies.
    deviations: Vec<f64>,
    least_squares: LeastSquares,
    /// What scores are multiplied with before they become shares.
    sharpness: f64,
    /// Watches whether it errs more often than before.
    drift: Adwin,
}

impl Rocket {
    pub fn new(seed: u64) -> Self {
        Self {
            channels: 0,
            random: Random::new(seed),
            learned: 0,
            first: Vec::new(),
            convolutions: Vec::new(),
            deviations: Vec::new(),
            least_squares: LeastSquares::default(),
            sharpness: SHARPNESS,
            drift: Adwin::new(DRIFT),
        }
    }

    /// Whether a signal is within the bounds and has as many channels as the first.
    pub fn check(&self, signal: &[&[f32]]) -> Result<(), Rejection> {
        let unfit = |expected| Rejection::WrongInput { task: Task::TimeSeriesClassification, expected };
        let (count, length) = (signal.len(), signal.first().map_or(0, |samples| samples.len()));
        let is_even = length > 0 && signal.iter().all(|samples| samples.len() == length);
        if !is_even || count > CHANNELS_MAX || count * length > SAMPLES_MAX {
            return Err(unfit(format!(
                "a signal of 1 to {CHANNELS_MAX} channels, equally long, with {SAMPLES_MAX} samples at most together"
            )));
        }
        if self.channels > 0 && self.channels != count {
            return Err(unfit(format!("a signal of {} channels, as the first had", self.channels)));
        }
        for (channel, samples) in signal.iter().enumerate() {
            if let Some(place) = samples.iter().position(|sample| !in_range(f64::from(*sample))) {
                return Err(Rejection::OutOfRange(format!("sample {place} of channel {channel}")));
            }
        }
        Ok(())
    }

    /// Takes from the first signal how many channels every one has.
    pub fn meet(&mut self, signal: &[&[f32]]) {
        if self.channels == 0 {
            self.channels = signal.len();
        }
    }

    /// Whether the convolutions stay as they are.
    pub fn is_settled(&self) -> bool {
        self.first.is_empty() && !self.convolutions.is_empty()
    }

    /// Writes what the linear model sees of a signal: shares in deviations, and a constant. Nothing before two signals were
    /// learned.
    pub fn features(&self, signal: &[&[f32]], features: &mut Vec<f64>) {
        features.clear();
        if !self.convolutions.is_empty() {
            self.shares_above(signal, features);
            self.scale(features);
        }
    }

    /// Writes the probability of each class that was learned; of no features, of none.
    pub fn consider(&self, features: &[f64], shares: &mut Vec<f64>) {
        shares.clear();
        if features.is_empty() {
            return;
        }
        shares.extend(self.least_squares.scores(features));
        let top = shares.iter().copied().fold(f64::MIN, larger);
        for share in shares.iter_mut() {
            *share = exp(self.sharpness * (*share - top));
        }
        let sum: f64 = shares.iter().sum();
        for share in shares {
            *share /= sum;
        }
    }

    /// Follows the labels, whether or not they are learned from: how sure scores make, by a step down the log-loss
    /// (temperature scaling: Guo and others, "On Calibration of Modern Neural Networks", ICML 2017), and whether it has begun
    /// to err more often.
    pub fn see(&mut self, features: &[f64], shares: &[f64], class: usize) -> bool {
        if let Some(actual) = self.least_squares.scores(features).nth(class) {
            let expected: f64 =
                self.least_squares.scores(features).zip(shares).map(|(score, share)| score * share).sum();
            let sharpness = self.sharpness + SHARPNESS_STEP * (actual - expected);
            self.sharpness = sharpness.clamp(SHARPNESS_MIN, SHARPNESS_MAX);
        }
        let before = self.drift.mean();
        let drifted = self.drift.insert(f64::from(u8::from(best(shares) != Some(class)))) && self.drift.mean() > before;
        if drifted {
            // What was before is over: the same drift isn't told twice.
            self.drift = Adwin::new(DRIFT);
        }
        drifted
    }

    /// Learns the class, a number from 0 on, of a signal whose features were asked for last.
    pub fn learn(&mut self, signal: &[&[f32]], features: &[f64], class: usize) {
        self.learned += 1;
        if !self.is_settled() {
            self.first.push((signal.iter().map(|channel| channel.to_vec()).collect(), class));
            let samples: usize = self.first.iter().flat_map(|(signal, _)| signal).map(Vec::len).sum();
            let enough = self.first.len() >= FIRST_MAX || samples >= FIRST_SAMPLES_MAX;
            // Anew at every power of two, so that there is an answer from early on.
            if enough || self.first.len() > 1 && self.first.len().is_power_of_two() {
                self.begin();
                if enough {
                    self.first = Vec::new();
                }
                return;
            }
        }
        if !features.is_empty() {
            self.least_squares.learn(features, class);
        }
    }

    /// Chooses convolutions by the first signals and learns these.
    fn begin(&mut self) {
        let shortest = self.first.iter().map(|(signal, _)| signal[0].len()).min().unwrap_or(0);
        let dilations: Vec<usize> = std::iter::successors(Some(1), |dilation| Some(dilation * 2))
            .take(THRESHOLDS)
            .take_while(|dilation| *dilation == 1 || dilation * (TAPS - 1) < shortest)
            .collect();
        let golden = (5.0f64.sqrt() + 1.0) / 2.0;
        let mut quantiles = (1u32..).map(|number| (f64::from(number) * golden).fract());
        self.convolutions.clear();
        for (number, dilation) in dilations.iter().enumerate() {
            let shifted: Vec<Shifted> = self.first.iter().map(|(signal, _)| Shifted::new(signal, *dilation)).collect();
            for (kernel, twos) in kernels().enumerate() {
                let mut channels: Vec<usize> = (0..self.channels).collect();
                let most = self.channels.min(CHANNELS_ADDED_MAX).ilog2() as usize;
                let count = 1 << self.random.below(most + 1);
                for place in 0..count {
                    let other = place + self.random.below(self.channels - place);
                    channels.swap(place, other);
                }
                channels.truncate(count);
                let padded = (number + kernel).is_multiple_of(2);
                let mut convolution =
                    Convolution { twos, dilation: *dilation, channels, padded, thresholds: Vec::new() };
                let mut sums = Vec::new();
                shifted[(number * KERNELS + kernel) % shifted.len()].convolve(&convolution, &mut sums);
                let count = THRESHOLDS / dilations.len();
                convolution.thresholds =
                    quantiles.by_ref().take(count).map(|share| quantile(&mut sums, share)).collect();
                self.convolutions.push(convolution);
            }
        }
        let lessons: Vec<(Vec<f64>, usize)> = self
            .first
            .iter()
            .map(|(signal, class)| {
                let mut shares = Vec::new();
                self.shares_above(signal, &mut shares);
                (shares, *class)
            })
            .collect();
        let count = lessons.len() as f64;
        self.deviations = (0..lessons[0].0.len())
            .map(|feature| {
                let mean = lessons.iter().map(|(shares, _)| shares[feature]).sum::<f64>() / count;
                let squares =
                    lessons.iter().map(|(shares, _)| (shares[feature] - mean) * (shares[feature] - mean)).sum::<f64>();
                (squares / count).sqrt() + DEVIATION_MIN
            })
            .collect();
        self.least_squares = LeastSquares::new(self.deviations.len() + 1);
        for (mut shares, class) in lessons {
            self.scale(&mut shares);
            self.least_squares.learn(&shares, class);
        }
    }

    /// By threshold, the share of a convolution that is above it.
    fn shares_above(&self, signal: &[impl AsRef<[f32]>], shares: &mut Vec<f64>) {
        let mut sums = Vec::new();
        for same in self.convolutions.chunk_by(|one, other| one.dilation == other.dilation) {
            let shifted = Shifted::new(signal, same[0].dilation);
            for convolution in same {
                shifted.convolve(convolution, &mut sums);
                shares.extend(convolution.thresholds.iter().map(|threshold| share_above(&sums, *threshold)));
            }
        }
    }

    fn scale(&self, shares: &mut Vec<f64>) {
        for (share, deviation) in shares.iter_mut().zip(&self.deviations) {
            *share /= deviation;
        }
        shares.push(1.0);
    }

    pub fn bytes(&self) -> usize {
        let first: usize = self.first.iter().flat_map(|(signal, _)| signal).map(|channel| channel.len() * 4).sum();
        let convolutions: usize = self
            .convolutions
            .iter()
            .map(|one| size_of::<Convolution>() + one.channels.len() * 8 + one.thresholds.len() * 4)
            .sum();
        first + convolutions + self.deviations.len() * 8 + self.least_squares.bytes()
    }
}

/// The value that so large a share of the values, whose order changes, is below; 0 of none.
fn quantile(values: &mut [f32], share: f64) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let place = (share * values.len() as f64) as usize;
    *values.select_nth_unstable_by(place.min(values.len() - 1), f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise with a bump somewhere, which is pointed in one class and broad in the other.
    fn bump(random: &mut Random, class: usize) -> Vec<f32> {
        let mut signal: Vec<f32> = (0..120).map(|_| random.unit() as f32 * 0.4).collect();
        let at = 20 + random.below(80);
        let reach: usize = if class == 0 { 4 } else { 12 };
        for (place, sample) in signal.iter_mut().enumerate().skip(at - reach).take(2 * reach) {
            *sample += 2.0 - 2.0 * place.abs_diff(at) as f32 / reach as f32;
        }
        signal
    }

    fn shares(rocket: &Rocket, signal: &[&[f32]]) -> Vec<f64> {
        let (mut features, mut shares) = (Vec::new(), Vec::new());
        rocket.features(signal, &mut features);
        rocket.consider(&features, &mut shares);
        shares
    }

    fn learn(rocket: &mut Rocket, signal: &[&[f32]], class: usize) {
        rocket.meet(signal);
        let mut features = Vec::new();
        rocket.features(signal, &mut features);
        rocket.learn(signal, &features, class);
    }

    #[test]
    fn classes_that_differ_by_a_shape_somewhere_are_told_apart() {
        let mut random = Random::new(3);
        let mut rocket = Rocket::new(1);
        assert!(shares(&rocket, &[&bump(&mut random, 0)]).is_empty());
        for number in 0..60 {
            learn(&mut rocket, &[&bump(&mut random, number % 2)], number % 2);
        }
        let right =
            (0..100).filter(|number| best(&shares(&rocket, &[&bump(&mut random, number % 2)])) == Some(number % 2));
        let right = right.count();
        assert!(right >= 97, "{right}");
    }

    #[test]
    fn a_class_that_comes_late_is_learned_and_odd_signals_do_no_harm() {
        let mut random = Random::new(4);
        let mut rocket = Rocket::new(1);
        // The second channel is all that tells the third class.
        let signal = |random: &mut Random, class: usize| {
            let second = (0..120).map(|place| if class == 2 { (place % 6) as f32 } else { 0.0 }).collect::<Vec<f32>>();
            [bump(random, class % 2), second]
        };
        for number in 0..90 {
            let class = if number < 45 { number % 2 } else { number % 3 };
            let [first, second] = signal(&mut random, class);
            learn(&mut rocket, &[&first, &second], class);
        }
        for odd in [vec![1.0], vec![f32::MAX; 40], vec![-f32::MAX; 40], vec![0.0; 3]] {
            let shares = shares(&rocket, &[&odd, &odd]);
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
            learn(&mut rocket, &[&odd, &odd], 1);
        }
        let found = (0..20).filter(|_| {
            let [first, second] = signal(&mut random, 2);
            best(&shares(&rocket, &[&first, &second])) == Some(2)
        });
        assert_eq!(found.count(), 20);
    }

    #[test]
    fn the_longest_signals_are_kept_in_no_more_than_the_bounds() {
        let mut rocket = Rocket::new(1);
        let mut random = Random::new(6);
        let mut most = 0;
        for number in 0..12 {
            let signal: Vec<f32> = (0..SAMPLES_MAX).map(|_| random.unit() as f32).collect();
            learn(&mut rocket, &[&signal], number);
            most = most.max(rocket.first.iter().flat_map(|(signal, _)| signal).map(Vec::len).sum());
        }
        assert!(most < FIRST_SAMPLES_MAX && rocket.is_settled());
        // A constant beside a thousand features at most.
        assert_eq!(rocket.deviations.len(), KERNELS * THRESHOLDS);
        learn(&mut rocket, &[&[1.0, 2.0]], CLASSES_MAX - 1);
        assert!(rocket.bytes() < 7 << 20, "{}", rocket.bytes());
    }
}
