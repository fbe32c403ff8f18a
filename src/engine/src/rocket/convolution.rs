//! Kernels over signals: which there are, and what they give.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// Weights of a kernel: three are 2, the others -1.
pub const TAPS: usize = 9;
/// Ways to choose three of nine.
pub const KERNELS: usize = 84;

/// A kernel with its dilation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Convolution {
    /// The places of the weights that are 2.
    pub twos: [usize; 3],
    pub dilation: usize,
    /// Those that it adds up.
    pub channels: Vec<usize>,
    /// Whether the signal goes on with zeros beyond its ends; otherwise only what the kernel covers whole counts.
    pub padded: bool,
    pub thresholds: Vec<f32>,
}

/// The places of the weights that are 2, of every kernel.
pub fn kernels() -> impl Iterator<Item = [usize; 3]> {
    (0..TAPS).flat_map(|a| (a + 1..TAPS).flat_map(move |b| (b + 1..TAPS).map(move |c| [a, b, c])))
}

/// What all kernels of a dilation have in common on a signal.
pub struct Shifted {
    dilation: usize,
    length: usize,
    /// By channel: the samples between as many zeros as half a kernel covers.
    padded: Vec<Vec<f32>>,
    /// By channel: the sums of a kernel whose weights are all -1.
    totals: Vec<Vec<f32>>,
}

impl Shifted {
    /// Of channels that are equally long.
    pub fn new(signal: &[impl AsRef<[f32]>], dilation: usize) -> Self {
        let length = signal.first().map_or(0, |channel| channel.as_ref().len());
        let zeros = vec![0.0; TAPS / 2 * dilation];
        let padded: Vec<Vec<f32>> =
            signal.iter().map(|channel| [zeros.as_slice(), channel.as_ref(), zeros.as_slice()].concat()).collect();
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

    /// Writes a convolution's sums, place by place.
    pub fn convolve(&self, convolution: &Convolution, sums: &mut Vec<f32>) {
        let beyond = TAPS / 2 * self.dilation;
        let whole = convolution.padded || self.length <= 2 * beyond;
        let places = if whole { 0..self.length } else { beyond..self.length - beyond };
        sums.clear();
        sums.resize(places.len(), 0.0);
        for channel in &convolution.channels {
            let twos = convolution.twos.map(|tap| &self.padded[*channel][places.start + tap * self.dilation..]);
            add(sums, &self.totals[*channel][places.clone()], twos);
        }
    }
}

/// Adds a kernel's sums: those of all its weights if they were -1, and what three of them are beyond that.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
fn add(sums: &mut [f32], totals: &[f32], [a, b, c]: [&[f32]; 3]) {
    for ((((sum, total), a), b), c) in sums.iter_mut().zip(totals).zip(a).zip(b).zip(c) {
        *sum += total + 3.0 * (a + b + c);
    }
}

/// The share of the sums that is above a threshold; 0 of none.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
pub fn share_above(sums: &[f32], threshold: f32) -> f64 {
    let above: u32 = sums.iter().map(|sum| u32::from(*sum > threshold)).sum();
    f64::from(above) / sums.len().max(1) as f64
}
