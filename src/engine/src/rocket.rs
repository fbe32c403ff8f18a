//! Tells classes of whole signals apart, one labelled signal after the other: convolutions with fixed kernels, the share of
//! each that is positive, and a linear model of these shares that every signal improves.
//!
//! Kernels, dilations and shares are those of MiniRocket (Dempster, Schmidt and Webb, "MiniRocket: A Very Fast (Almost)
//! Deterministic Transform for Time Series Classification", KDD 2021), fewer of them: a tenth. What that takes from the
//! training set, thresholds, is taken here from the first 32 signals. The linear model is its ridge regression, by
//! recursive least squares (Plackett, "Some Theorems in Least Squares", Biometrika 37, 1950): after each signal the weights
//! are those that solving for all signals so far would give, and no signal has to be kept.

use crate::random::Random;

/// Weights of a kernel: three are 2, the others -1.
const TAPS: usize = 9;
/// Ways to choose three of nine.
const KERNELS: usize = 84;
/// Thresholds of a kernel, shared out among its dilations.
const THRESHOLDS: usize = 12;
/// The first signals, from which thresholds and scales are taken.
const WARM_UP: usize = 32;
/// A share that varies less than this is not blown up further.
const DEVIATION_MIN: f64 = 0.01;
/// Penalty on squared weights.
const PENALTY: f64 = 50.0;
/// Channels that one kernel adds up at most.
const CHANNELS_MAX: usize = 8;

/// A classifier of signals with equally many channels, however long each is.
///
/// ```
/// let wave = |period: usize| (0..100).map(|place| (place % period) as f32).collect::<Vec<_>>();
/// let mut classifier = hebb_engine::Rocket::new(1, 7);
/// for number in 0..20 {
///     classifier.learn(&wave(6 + number % 2 * 5), number % 2);
/// }
/// assert_eq!(classifier.classify(&wave(11)), Some(1));
/// ```
///
/// It holds the first signals until there are 32 of them, and then a square of about a thousand numbers a side
/// (8 MB), which it goes through with each lesson.
#[derive(Clone, Debug)]
pub struct Rocket {
    channels: usize,
    random: Random,
    learned: usize,
    /// Signals seen first with their classes, until there are enough of them.
    first: Vec<(Vec<f32>, usize)>,
    convolutions: Vec<Convolution>,
    /// By feature: how much it varies.
    deviations: Vec<f64>,
    least_squares: LeastSquares,
}

/// A kernel with its dilation.
#[derive(Clone, Debug)]
struct Convolution {
    /// The places of the weights that are 2.
    twos: [usize; 3],
    dilation: usize,
    channels: Vec<usize>,
    /// Whether the signal goes on with zeros beyond its ends; otherwise only what the kernel covers whole counts.
    padded: bool,
    thresholds: Vec<f32>,
}

impl Rocket {
    /// A classifier of signals of so many channels.
    pub fn new(channels: usize, seed: u64) -> Self {
        Self {
            channels: channels.max(1),
            random: Random::new(seed),
            learned: 0,
            first: Vec::new(),
            convolutions: Vec::new(),
            deviations: Vec::new(),
            least_squares: LeastSquares::default(),
        }
    }

    /// The likeliest class of a signal, channel after channel; none before two signals were learned.
    pub fn classify(&self, signal: &[f32]) -> Option<usize> {
        let features = self.features(signal);
        let scores = self.least_squares.weights.iter().map(|weights| dot(weights, &features));
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(class, _)| class)
    }

    /// Learns the class, a number from 0 on, of a signal, channel after channel.
    pub fn learn(&mut self, signal: &[f32], class: usize) {
        self.learned += 1;
        if self.learned <= WARM_UP {
            self.first.push((signal.to_vec(), class));
            // Anew at every power of two, so that there is an answer from early on.
            if self.learned.is_power_of_two() && self.learned > 1 {
                self.begin();
                if self.learned == WARM_UP {
                    self.first = Vec::new();
                }
                return;
            }
        }
        if !self.convolutions.is_empty() {
            let features = self.features(signal);
            self.least_squares.learn(&features, class);
        }
    }

    /// Chooses convolutions by the first signals and learns these.
    fn begin(&mut self) {
        let shortest = self.first.iter().map(|(signal, _)| signal.len() / self.channels).min().unwrap_or(0);
        let dilations: Vec<usize> = std::iter::successors(Some(1), |dilation| Some(dilation * 2))
            .take_while(|dilation| *dilation == 1 || dilation * (TAPS - 1) < shortest)
            .collect();
        let golden = (5.0f64.sqrt() + 1.0) / 2.0;
        let mut quantiles = (1u32..).map(|number| (f64::from(number) * golden).fract());
        self.convolutions.clear();
        for (number, dilation) in dilations.iter().enumerate() {
            let signals = self.first.iter().map(|(signal, _)| Shifted::new(signal, self.channels, *dilation));
            let shifted: Vec<Shifted> = signals.collect();
            for (kernel, twos) in kernels().enumerate() {
                let mut channels: Vec<usize> = (0..self.channels).collect();
                let most = self.channels.min(CHANNELS_MAX).ilog2() as usize;
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
                sums.sort_by(f32::total_cmp);
                let count = (THRESHOLDS / dilations.len()).max(1);
                convolution.thresholds = quantiles.by_ref().take(count).map(|share| quantile(&sums, share)).collect();
                self.convolutions.push(convolution);
            }
        }
        let shares: Vec<Vec<f64>> = self.first.iter().map(|(signal, _)| self.shares(signal)).collect();
        let count = shares.len() as f64;
        self.deviations = (0..shares[0].len())
            .map(|feature| {
                let mean = shares.iter().map(|shares| shares[feature]).sum::<f64>() / count;
                let squares =
                    shares.iter().map(|shares| (shares[feature] - mean) * (shares[feature] - mean)).sum::<f64>();
                (squares / count).sqrt() + DEVIATION_MIN
            })
            .collect();
        self.least_squares = LeastSquares::new(self.deviations.len() + 1);
        for (shares, (_, class)) in shares.into_iter().zip(&self.first) {
            self.least_squares.learn(&self.scaled(shares), *class);
        }
    }

    /// By threshold, the share of a convolution that is above it.
    fn shares(&self, signal: &[f32]) -> Vec<f64> {
        let mut shares = Vec::new();
        let mut sums = Vec::new();
        for same in self.convolutions.chunk_by(|one, other| one.dilation == other.dilation) {
            let shifted = Shifted::new(signal, self.channels, same[0].dilation);
            for convolution in same {
                shifted.convolve(convolution, &mut sums);
                shares.extend(convolution.thresholds.iter().map(|threshold| {
                    let above: u32 = sums.iter().map(|sum| u32::from(sum > threshold)).sum();
                    f64::from(above) / sums.len().max(1) as f64
                }));
            }
        }
        shares
    }

    /// What the linear model sees: shares in deviations, and a constant.
    fn scaled(&self, shares: Vec<f64>) -> Vec<f64> {
        let scaled = shares.into_iter().zip(&self.deviations).map(|(share, deviation)| share / deviation);
        scaled.chain([1.0]).collect()
    }

    fn features(&self, signal: &[f32]) -> Vec<f64> {
        self.scaled(self.shares(signal))
    }
}

/// The places of the weights that are 2, of every kernel.
fn kernels() -> impl Iterator<Item = [usize; 3]> {
    (0..TAPS).flat_map(|a| (a + 1..TAPS).flat_map(move |b| (b + 1..TAPS).map(move |c| [a, b, c])))
}

/// The value that so large a share of sorted values is below; 0 of none.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let place = (share * sorted.len() as f64) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// What all kernels of a dilation have in common on a signal.
struct Shifted {
    dilation: usize,
    length: usize,
    /// By channel: the samples between as many zeros as half a kernel covers.
    padded: Vec<Vec<f32>>,
    /// By channel: the sums of a kernel whose weights are all -1.
    totals: Vec<Vec<f32>>,
}

impl Shifted {
    fn new(signal: &[f32], channels: usize, dilation: usize) -> Self {
        let length = signal.len() / channels;
        let zeros = vec![0.0; TAPS / 2 * dilation];
        let channel = |channel: usize| &signal[channel * length..(channel + 1) * length];
        let padded: Vec<Vec<f32>> = (0..channels).map(|number| [&zeros, channel(number), &zeros].concat()).collect();
        let total = |padded: &Vec<f32>| {
            let mut total = vec![0.0; length];
            for tap in 0..TAPS {
                for (sum, sample) in total.iter_mut().zip(&padded[tap * dilation..]) {
                    *sum -= sample;
                }
            }
            total
        };
        let totals = padded.iter().map(total).collect();
        Self { dilation, length, padded, totals }
    }

    fn convolve(&self, convolution: &Convolution, sums: &mut Vec<f32>) {
        let beyond = TAPS / 2 * self.dilation;
        let whole = convolution.padded || self.length <= 2 * beyond;
        let places = if whole { 0..self.length } else { beyond..self.length - beyond };
        sums.clear();
        sums.resize(places.len(), 0.0);
        for channel in &convolution.channels {
            let [a, b, c] = convolution.twos.map(|tap| &self.padded[*channel][places.start + tap * self.dilation..]);
            let total = &self.totals[*channel][places.clone()];
            for ((((sum, total), a), b), c) in sums.iter_mut().zip(total).zip(a).zip(b).zip(c) {
                *sum += total + 3.0 * (a + b + c);
            }
        }
    }
}

/// Ridge regression of every class against the others, solved anew with each lesson.
#[derive(Clone, Debug, Default)]
struct LeastSquares {
    /// The inverse of the features' penalised second moments, row by row.
    inverse: Vec<f64>,
    /// By class: the weight of every feature. The last feature is a constant.
    weights: Vec<Vec<f64>>,
    width: usize,
}

impl LeastSquares {
    fn new(width: usize) -> Self {
        let mut inverse = vec![0.0; width * width];
        for place in 0..width {
            // The constant is hardly penalised.
            inverse[place * width + place] = if place + 1 < width { 1.0 / PENALTY } else { 1.0 };
        }
        Self { inverse, weights: Vec::new(), width }
    }

    fn learn(&mut self, features: &[f64], class: usize) {
        while self.weights.len() <= class {
            // Nothing was of this class so far.
            let mut weights = vec![0.0; self.width];
            weights[self.width - 1] = -1.0;
            self.weights.push(weights);
        }
        let gain: Vec<f64> = self.inverse.chunks(self.width).map(|row| dot(row, features)).collect();
        let scale = 1.0 / (1.0 + dot(&gain, features));
        for (number, weights) in self.weights.iter_mut().enumerate() {
            let wanted = if number == class { 1.0 } else { -1.0 };
            let step = (wanted - dot(weights, features)) * scale;
            for (weight, gain) in weights.iter_mut().zip(&gain) {
                *weight += step * gain;
            }
        }
        for (row, of_row) in self.inverse.chunks_mut(self.width).zip(&gain) {
            for (value, gain) in row.iter_mut().zip(&gain) {
                *value -= of_row * scale * gain;
            }
        }
    }
}

/// In lanes that a processor adds at once; always in the same order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
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

    #[test]
    fn classes_that_differ_by_a_shape_somewhere_are_told_apart() {
        let mut random = Random::new(3);
        let mut rocket = Rocket::new(1, 1);
        assert_eq!(rocket.classify(&bump(&mut random, 0)), None);
        for number in 0..60 {
            rocket.learn(&bump(&mut random, number % 2), number % 2);
        }
        let right = (0..100).filter(|number| rocket.classify(&bump(&mut random, number % 2)) == Some(number % 2));
        let right = right.count();
        assert!(right >= 97, "{right}");
    }

    #[test]
    fn a_class_that_comes_late_is_learned_and_odd_signals_do_no_harm() {
        let mut random = Random::new(4);
        let mut rocket = Rocket::new(2, 1);
        // The second channel is all that tells the third class.
        let signal = |random: &mut Random, class: usize| {
            let second = (0..120).map(|place| if class == 2 { (place % 6) as f32 } else { 0.0 }).collect();
            [bump(random, class % 2), second].concat()
        };
        for number in 0..90 {
            let class = if number < 45 { number % 2 } else { number % 3 };
            rocket.learn(&signal(&mut random, class), class);
        }
        for odd in [vec![], vec![1.0], vec![f32::MAX; 40], vec![0.0; 3]] {
            rocket.classify(&odd);
        }
        rocket.learn(&[1.0, 2.0], 1);
        assert!((0..20).all(|_| rocket.classify(&signal(&mut random, 2)) == Some(2)));
    }

    #[test]
    fn each_lesson_leaves_the_weights_that_solving_for_all_would_give() {
        let mut random = Random::new(5);
        let lessons: Vec<([f64; 4], f64)> = (0..40)
            .map(|number| {
                let row = [random.unit(), random.unit(), random.unit(), 1.0];
                (row, if number % 3 == 0 { 1.0 } else { -1.0 })
            })
            .collect();
        let mut model = LeastSquares { weights: vec![vec![0.0; 4]; 2], ..LeastSquares::new(4) };
        for (row, wanted) in &lessons {
            model.learn(row, usize::from(*wanted > 0.0));
        }
        // Where the gradient of the penalised loss is 0.
        for slot in 0..4 {
            let penalty = if slot < 3 { PENALTY } else { 1.0 };
            let weights = &model.weights[1];
            let residuals = lessons.iter().map(|(row, wanted)| (wanted - dot(weights, row)) * row[slot]).sum::<f64>();
            assert!((residuals - penalty * weights[slot]).abs() < 1e-9, "slot {slot}");
        }
    }
}
