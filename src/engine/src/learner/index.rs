//! A k-d tree over the older experiences of a memory, so that a search needn't look at most of them (Friedman, Bentley and
//! Finkel, "An Algorithm for Finding Best Matches in Logarithmic Expected Time", ACM TOMS 3, 1977).
//!
//! It is exact: what a search finds doesn't depend on it, so it is no part of the state. Made anew from time to time, it
//! leaves out the newest experiences, which are looked at one by one.

use multiversion::multiversion;

use super::memory::{BLOCK, Target, distances, lanes_within};
use crate::math::{larger, smaller};

/// Insertions between two of its makings, which take about as long as a hundred searches.
const MADE_EVERY: usize = 1_024;
/// The newest experiences that it leaves out when it is made, more than the short memory holds.
const LEFT_OUT: usize = 512;
/// Below so many a search of all is as fast.
const EXPERIENCES_MIN: usize = 2_048;
/// Rows that are looked at to find the slot that sets a part's rows furthest apart.
const SAMPLE: usize = 64;
/// An experience that isn't in a leaf.
const NOWHERE: u32 = u32::MAX;

/// The tree. Its parts are halved in whole leaves, so that each has [`BLOCK`] rows.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Insertions since it was made.
    since: usize,
    /// The newest experiences, which it has nothing of.
    newest: usize,
    width: usize,
    /// The rows of the leaves, slot by slot within a leaf.
    values: Vec<f32>,
    /// By [`BLOCK`] leaves and slot: the least values of each leaf, and then the greatest.
    boxes: Vec<f32>,
    /// By row of the leaves: its place in the ring.
    places: Vec<u32>,
    /// By place in the ring: the row.
    rows: Vec<u32>,
    /// By the first leaf of its upper part: the slot and the value at which a part is halved.
    halves: Vec<(u32, f32)>,
}

/// What it says of the memory's state is said by the ring.
impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Index {
    /// Makes the tree over all but the newest of the experiences. `rows` are those, one after another by their place in the
    /// ring, and `newest` the places from the newest back.
    pub fn make(width: usize, rows: &[f32], relevance: &[f32], newest: impl ExactSizeIterator<Item = usize>) -> Self {
        let mut index = Self { width, ..Self::default() };
        let count = newest.len();
        if count < EXPERIENCES_MIN || width == 0 {
            return index;
        }
        index.newest = LEFT_OUT + (count - LEFT_OUT) % BLOCK;
        let mut places: Vec<u32> = newest.skip(index.newest).map(|place| place as u32).collect();
        index.halves = vec![(0, 0.0); places.len() / BLOCK];
        Halving { width, rows, relevance, halves: &mut index.halves, keys: Vec::new() }.halve(&mut places, 0);
        index.rows = vec![NOWHERE; count];
        index.values = vec![0.0; places.len() * width];
        for (row, place) in places.iter().enumerate() {
            index.rows[*place as usize] = row as u32;
            for slot in 0..width {
                let at = index.at(row, slot);
                index.values[at] = rows[*place as usize * width + slot];
            }
        }
        for leaves in index.values.chunks(BLOCK * BLOCK * width) {
            for slot in 0..width {
                let rows = |lane: usize| leaves.get((lane * width + slot) * BLOCK..(lane * width + slot + 1) * BLOCK);
                let ends = |end: fn(f32, f32) -> f32| {
                    (0..BLOCK).map(move |lane| rows(lane).map_or(0.0, |rows| rows.iter().copied().fold(rows[0], end)))
                };
                index.boxes.extend(ends(smaller).chain(ends(larger)));
            }
        }
        index.places = places;
        index
    }

    /// How many of the newest experiences it has nothing of; all of `count` when it is empty.
    pub fn newest(&self, count: usize) -> usize {
        if self.places.is_empty() { count } else { self.newest }
    }

    /// Notes that an experience went in at a place of the ring; whether it is time to make the index anew.
    pub fn replaced(&mut self, place: usize) -> bool {
        if let Some(row) = self.rows.get(place).filter(|row| **row != NOWHERE) {
            // Beyond the reach of any search.
            let at = self.at(*row as usize, 0);
            self.values[at] = f32::INFINITY;
        }
        self.newest += 1;
        self.since += 1;
        self.since >= MADE_EVERY
    }

    /// Offers every experience that can be among the nearest, with its distance; `offer` says how far the next may be away.
    pub fn search(&self, query: &mut Query, offer: &mut impl FnMut(f32, usize) -> f32) {
        let leaves = self.places.len() / BLOCK;
        if leaves == 0 {
            return;
        }
        // What is in the row's own leaf makes a close bound.
        let own = self.leaf(leaves, query.slots);
        self.visit(own, query, offer);
        for (group, boxes) in self.boxes.chunks(BLOCK * 2 * self.width).enumerate() {
            let mut reaches = [0.0; BLOCK];
            box_distances(boxes, query.targets, &mut reaches);
            let mut within = lanes_within(&reaches, query.bound);
            while within != 0 {
                let lane = within.trailing_zeros() as usize;
                within &= within - 1;
                let leaf = group * BLOCK + lane;
                if reaches[lane] <= query.bound && leaf < leaves && leaf != own {
                    self.visit(leaf, query, offer);
                }
            }
        }
    }

    /// The leaf in whose part of the space a row is.
    fn leaf(&self, mut leaves: usize, slots: &[(f32, f32)]) -> usize {
        let mut first = 0;
        while leaves > 1 {
            let middle = leaves / 2;
            let (slot, value) = self.halves[first + middle];
            if slots.get(slot as usize).is_some_and(|(of_row, _)| *of_row < value) {
                leaves = middle;
            } else {
                first += middle;
                leaves -= middle;
            }
        }
        first
    }

    /// Offers what is near enough in a leaf.
    fn visit(&self, leaf: usize, query: &mut Query, offer: &mut impl FnMut(f32, usize) -> f32) {
        let from = leaf * BLOCK;
        let values = &self.values[from * self.width..(from + BLOCK) * self.width];
        let mut sums = [0.0; BLOCK];
        if !distances(values, query.targets, query.bound, &mut sums) {
            return;
        }
        let mut within = lanes_within(&sums, query.bound);
        while within != 0 {
            let row = within.trailing_zeros() as usize;
            within &= within - 1;
            if sums[row] <= query.bound && sums[row] < f32::INFINITY {
                query.bound = offer(sums[row], self.places[from + row] as usize);
            }
        }
    }

    pub fn bytes(&self) -> usize {
        (self.values.len() + self.boxes.len() + self.places.len() + self.rows.len() + self.halves.len() * 2) * 4
    }
}

/// Squared weighted distances of a row to the boxes around [`BLOCK`] leaves. They are summed as those of experiences are, so that
/// rounding, too, puts none of a leaf nearer than its box.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
fn box_distances(boxes: &[f32], targets: &[Target], distances: &mut [f32; BLOCK]) {
    let mut sums = [0.0f32; BLOCK];
    let ends = boxes.as_chunks::<BLOCK>().0;
    for target in targets {
        let Some([least, greatest]) = ends.get(target.slot * 2..target.slot * 2 + 2) else { continue };
        for lane in 0..BLOCK {
            let outside = larger(larger(least[lane] - target.value, target.value - greatest[lane]), 0.0);
            sums[lane] += outside * outside * target.relevance;
        }
    }
    *distances = sums;
}

/// What is searched for, and how far that has come.
pub struct Query<'a> {
    /// The slots in the order in which they are looked at.
    pub targets: &'a [Target],
    /// By slot: its value, and how much it counts.
    pub slots: &'a [(f32, f32)],
    /// What is further away is of no interest.
    pub bound: f32,
}

impl Index {
    fn at(&self, row: usize, slot: usize) -> usize {
        (row / BLOCK * self.width + slot) * BLOCK + row % BLOCK
    }
}

/// What the parts of a tree are made of.
struct Halving<'a> {
    width: usize,
    rows: &'a [f32],
    relevance: &'a [f32],
    halves: &'a mut [(u32, f32)],
    /// Scratch: the values of a slot as numbers in their order, each before its place.
    keys: Vec<u64>,
}

impl Halving<'_> {
    fn row(&self, place: u32) -> &[f32] {
        &self.rows[place as usize * self.width..(place as usize + 1) * self.width]
    }

    /// The slot that sets the rows of a part furthest apart, by a sample of them.
    fn widest(&self, places: &[u32]) -> usize {
        let sample = || places.iter().step_by(places.len().div_ceil(SAMPLE));
        let count = sample().len() as f32;
        let spread = |slot: usize| {
            let (sum, squares) = sample().fold((0.0, 0.0), |(sum, squares), place| {
                let value = self.row(*place)[slot];
                (sum + value, squares + value * value)
            });
            (squares - sum * sum / count) * self.relevance.get(slot).copied().unwrap_or(1.0)
        };
        let spreads = (0..self.width).map(|slot| (slot, spread(slot)));
        spreads.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(slot, _)| slot)
    }

    /// Orders the rows of a part, which begins with the leaf `first`, so that its halves are apart in one slot.
    fn halve(&mut self, places: &mut [u32], first: usize) {
        let leaves = places.len() / BLOCK;
        if leaves < 2 {
            return;
        }
        let (slot, middle) = (self.widest(places), leaves / 2);
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        keys.extend(places.iter().map(|place| u64::from(in_order(self.row(*place)[slot])) << 32 | u64::from(*place)));
        keys.select_nth_unstable(middle * BLOCK);
        for (place, key) in places.iter_mut().zip(&keys) {
            *place = *key as u32;
        }
        self.keys = keys;
        let (lower, upper) = places.split_at_mut(middle * BLOCK);
        self.halves[first + middle] = (slot as u32, self.row(upper[0])[slot]);
        self.halve(lower, first);
        self.halve(upper, first + middle);
    }
}

/// A number that is larger when the value is.
fn in_order(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}
