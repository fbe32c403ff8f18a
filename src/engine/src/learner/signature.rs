//! Signatures of wide rows, which tell what may be near, so that only that has to be compared.
//!
//! A signature has a bit a slot: whether the value is above 0, the mean of what is standardised (after Charikar, "Similarity
//! Estimation Techniques from Rounding Algorithms", STOC 2002; as in Gao and Long, "RaBitQ", SIGMOD 2024, it is a guess that
//! exact distances then put right). The row that is looked for weighs its slots with one of four weights, by how far it is
//! from the mean there and how much the slot counts. Estimates are whole numbers, the same on every processor; and as signatures say nothing
//! that the rows don't, they are no part of the state.

use std::ops::Range;

use multiversion::multiversion;

/// Signatures that are compared at once.
const LANES: usize = 32;
/// Estimates that are looked at together.
const LOOK: usize = 8;
/// Weight of a slot at most, in two bits.
const WEIGHT_MAX: f32 = 3.0;

/// The signatures of a ring of rows, by place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signatures {
    /// Of 64 slots each, in a signature.
    words: usize,
    /// In blocks of [`LANES`], word by word within a block.
    bits: Vec<u64>,
}

/// 64 slots of what is looked for: on which side of the mean it is, and the two bits of its weight.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    side: u64,
    low: u64,
    high: u64,
}

/// What a search needs room for.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    target: Vec<Word>,
    /// By place.
    estimates: Vec<u16>,
    /// By estimate.
    counts: Vec<u32>,
    /// The places that were chosen last.
    pub chosen: Vec<u32>,
}

impl Signatures {
    /// Signatures of rows of `width`.
    pub fn new(width: usize) -> Self {
        Self { words: width.div_ceil(64), bits: Vec::new() }
    }

    /// Takes up the row at a place.
    pub fn write(&mut self, place: usize, row: &[f32]) {
        let block = place / LANES * LANES * self.words;
        self.bits.resize(self.bits.len().max(block + LANES * self.words), 0);
        for (word, slots) in row.chunks(64).enumerate() {
            self.bits[block + word * LANES + place % LANES] = bits(slots, |value| *value > 0.0);
        }
    }

    /// Estimates how far every row is from `row`, whose slots count as much as `relevance` says.
    pub fn estimate(&self, row: &[f32], relevance: &[f32], present: usize, scratch: &mut Scratch) {
        let Scratch { target, estimates, counts, .. } = scratch;
        let apart = |(value, relevance): (&f32, &f32)| value.abs() * relevance;
        let sum: f32 = row.iter().zip(relevance).map(apart).sum();
        // On average a slot weighs 1.
        let unit = if sum > 0.0 { present as f32 / sum } else { 0.0 };
        target.clear();
        for (row, relevance) in row.chunks(64).zip(relevance.chunks(64)) {
            let mut word = Word { side: bits(row, |value| *value > 0.0), ..Word::default() };
            for (place, slot) in row.iter().zip(relevance).enumerate() {
                let weight = (apart(slot) * unit + 0.5).min(WEIGHT_MAX) as u64;
                word.low |= (weight & 1) << place;
                word.high |= (weight >> 1) << place;
            }
            target.push(word);
        }
        counts.resize(self.words * 64 * WEIGHT_MAX as usize + 1, 0);
        estimates.resize(self.bits.len() / self.words.max(1), 0);
        compare(&self.bits, target, estimates);
    }

    pub fn bytes(&self) -> usize {
        self.bits.len() * 8
    }
}

fn bits(slots: &[f32], is_set: impl Fn(&f32) -> bool) -> u64 {
    slots.iter().enumerate().fold(0, |bits, (place, value)| bits | u64::from(is_set(value)) << place)
}

/// The weight of the slots in which each signature is on the other side.
#[multiversion(targets(
    "x86_64+avx2+avx512bw+avx512f+avx512vl+avx512vpopcntdq+popcnt",
    "x86_64+avx2+popcnt",
    "x86_64+popcnt"
))]
fn compare(signatures: &[u64], target: &[Word], estimates: &mut [u16]) {
    for (block, estimates) in signatures.chunks_exact(LANES * target.len()).zip(estimates.as_chunks_mut::<LANES>().0) {
        let (mut low, mut high) = ([0u64; LANES], [0u64; LANES]);
        for (words, target) in block.as_chunks::<LANES>().0.iter().zip(target) {
            for lane in 0..LANES {
                let other = words[lane] ^ target.side;
                low[lane] += u64::from((other & target.low).count_ones());
                high[lane] += u64::from((other & target.high).count_ones());
            }
        }
        for lane in 0..LANES {
            estimates[lane] = (low[lane] + 2 * high[lane]) as u16;
        }
    }
}

impl Scratch {
    /// Chooses the `wanted` places among some with the least estimates, the least first; of equals the newest, as `age` tells.
    pub fn choose(&mut self, places: Range<usize>, wanted: usize, age: impl Fn(u32) -> usize) {
        let Self { estimates, counts, chosen, .. } = self;
        chosen.clear();
        counts.fill(0);
        let first = places.start;
        let bound = least(&estimates[places], wanted, first as u32, counts, chosen);
        let estimate = |place: &u32| usize::from(estimates[*place as usize]);
        chosen.retain(|place| estimate(place) <= bound);
        chosen.sort_unstable_by_key(|place| (estimate(place), age(*place)));
        chosen.truncate(wanted);
    }
}

/// Puts places into `chosen`, among them all whose estimate is at most the least bound that `wanted` of them keep; that bound.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
fn least(estimates: &[u16], wanted: usize, first: u32, counts: &mut [u32], chosen: &mut Vec<u32>) -> usize {
    let mut bound = counts.len() - 1;
    let mut within = 0;
    let mut take = |place: u32, estimate: u16, bound: &mut usize| {
        chosen.push(place);
        counts[usize::from(estimate)] += 1;
        within += 1;
        while within >= wanted + counts[*bound] as usize && *bound > 0 {
            within -= counts[*bound] as usize;
            *bound -= 1;
        }
    };
    let (blocks, rest) = estimates.as_chunks::<LOOK>();
    for (number, block) in blocks.iter().enumerate() {
        // Most blocks have nothing that is near enough.
        let least = block.iter().fold(u16::MAX, |least, estimate| least.min(*estimate));
        if usize::from(least) > bound {
            continue;
        }
        for (lane, estimate) in block.iter().enumerate() {
            if usize::from(*estimate) <= bound {
                take(first + (number * LOOK + lane) as u32, *estimate, &mut bound);
            }
        }
    }
    for (place, estimate) in rest.iter().enumerate() {
        if usize::from(*estimate) <= bound {
            take(first + (blocks.len() * LOOK + place) as u32, *estimate, &mut bound);
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_chosen_is_what_the_definition_says_whatever_the_processor_can_do() {
        const WIDTH: usize = 150;
        let mut random = Random::new(8);
        let mut row = || -> Vec<f32> { (0..WIDTH).map(|_| (random.unit() - 0.5) as f32).collect() };
        let rows: Vec<Vec<f32>> = (0..1_000).map(|_| row()).collect();
        let mut signatures = Signatures::new(WIDTH);
        for (place, row) in rows.iter().enumerate() {
            signatures.write(place, row);
        }
        let (target, relevance) = (row(), vec![0.5; WIDTH]);
        let mean = target.iter().map(|value| value.abs()).sum::<f32>() / WIDTH as f32;
        let estimate = |row: &Vec<f32>| -> u32 {
            let other = |(value, target): (&f32, &f32)| {
                let weight = (target.abs() / mean + 0.5).min(WEIGHT_MAX) as u32;
                if (*value > 0.0) == (*target > 0.0) { 0 } else { weight }
            };
            row.iter().zip(&target).map(other).sum()
        };
        let mut expected: Vec<u32> = (100..900).collect();
        expected.sort_by_key(|place| (estimate(&rows[*place as usize]), 1_000 - place));
        let mut scratch = Scratch::default();
        signatures.estimate(&target, &relevance, WIDTH, &mut scratch);
        scratch.choose(100..900, 60, |place| 1_000 - place as usize);
        assert_eq!(scratch.chosen, expected[..60]);
    }
}
