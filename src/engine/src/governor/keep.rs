//! The store of a governed memory: vectors of one width, bounded by number and by bytes, with a priority each.

use serde::{Deserialize, Serialize};

/// Bytes of all vectors: a checkpoint holds them, and the log takes up to twice as much.
const BYTES_MAX: usize = 128 << 20;
/// Products that one step of consolidation spends on looking for what is alike: some milliseconds.
const PRODUCTS: usize = 1 << 23;
/// One step looks at one in so many, at most: what is little isn't forgotten sooner than what is much.
const ONE_IN: usize = 64;
/// Two vectors are the same when they are apart by this share of their length, at most.
const ALIKE: f32 = 0.1;
/// What a priority keeps with each look.
const FADE: f32 = 0.97;
/// Below this a vector goes.
const FADED: f32 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    /// The value with which it came, faded since; the vector that goes first has the least.
    priority: f32,
    /// How many vectors have become this one.
    support: u32,
}

/// Vectors of one width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keep {
    max: u32,
    width: usize,
    /// Row by row.
    values: Vec<f32>,
    items: Vec<Item>,
    /// Where consolidation goes on.
    cursor: usize,
    /// Vectors that became one with another.
    pub merged: u64,
    /// Vectors that faded.
    pub pruned: u64,
    /// Vectors that gave way in a full store.
    pub evicted: u64,
}

#[allow(clippy::len_without_is_empty, reason = "nobody asks whether there is nothing")]
impl Keep {
    /// A store of at most `max` vectors.
    pub fn new(max: u32) -> Self {
        Self { max, width: 0, values: Vec::new(), items: Vec::new(), cursor: 0, merged: 0, pruned: 0, evicted: 0 }
    }

    /// Vectors held.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// 0 before the first vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many there can be; fewer of what is wide.
    pub fn capacity(&self) -> usize {
        (self.max as usize).min(BYTES_MAX / 4 / self.width.max(1)).max(1)
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.values.len() * 4 + self.items.len() * size_of::<Item>()
    }

    /// Keeps a vector of the width of the others, with a priority of 0 to 1. In a full store the least important one goes.
    pub fn insert(&mut self, vector: &[f32], priority: f32) {
        if self.width == 0 {
            self.width = vector.len();
        }
        while self.len() >= self.capacity() {
            self.evict();
        }
        self.values.extend_from_slice(vector);
        self.items.push(Item { priority, support: 1 });
    }

    /// Takes up another bound.
    pub fn limit(&mut self, max: u32) {
        self.max = max;
        while self.len() > self.capacity() {
            self.evict();
        }
    }

    /// The least important goes; of equals the oldest place.
    fn evict(&mut self) {
        let ranked = self.items.iter().enumerate().min_by(|(_, a), (_, b)| a.priority.total_cmp(&b.priority));
        if let Some((place, _)) = ranked {
            self.remove(place);
            self.evicted += 1;
        }
    }

    /// The last one takes the place.
    fn remove(&mut self, place: usize) {
        let last = self.len() - 1;
        self.values.copy_within(last * self.width.., place * self.width);
        self.values.truncate(last * self.width);
        self.items.swap_remove(place);
    }

    fn row(&self, place: usize) -> &[f32] {
        &self.values[place * self.width..(place + 1) * self.width]
    }

    /// Looks at the next few: each fades, and becomes one with its nearest if they are alike.
    pub fn consolidate(&mut self) {
        let cost = (self.len() * self.width).max(1);
        for _ in 0..(PRODUCTS / cost).clamp(1, self.len() / ONE_IN + 1) {
            if self.items.is_empty() {
                return;
            }
            let place = self.cursor % self.len();
            let faded = self.items[place].priority * FADE;
            self.items[place].priority = faded;
            if faded < FADED {
                self.remove(place);
                self.pruned += 1;
                continue;
            }
            match self.alike(place) {
                Some(other) => self.merge(place, other),
                None => self.cursor = place + 1,
            }
        }
    }

    /// The nearest other vector, if it is alike.
    fn alike(&self, place: usize) -> Option<usize> {
        let row = self.row(place);
        let bound = row.iter().map(|value| value * value).sum::<f32>() * (ALIKE * ALIKE);
        let mut nearest = None;
        let mut reach = bound;
        for other in (0..self.len()).filter(|other| *other != place) {
            let near = distance_within(row, self.row(other), reach);
            if let Some(distance) = near.filter(|distance| nearest.is_none() || *distance < reach) {
                nearest = Some(other);
                reach = distance;
            }
        }
        nearest
    }

    /// One becomes the mean of both, by how many each stands for, and as important as both together, 1 at most.
    fn merge(&mut self, place: usize, other: usize) {
        let (one, two) = (self.items[place], self.items[other]);
        let share = two.support as f32 / (one.support as f32 + two.support as f32);
        for slot in 0..self.width {
            let (a, b) = (self.values[place * self.width + slot], self.values[other * self.width + slot]);
            self.values[place * self.width + slot] = a + share * (b - a);
        }
        self.items[place] =
            Item { priority: (one.priority + two.priority).min(1.0), support: one.support.saturating_add(two.support) };
        self.remove(other);
        self.merged += 1;
    }
}

/// Squared Euclidean distance if it is at most `reach`, in lanes that a processor adds at once; always in the same order. Most
/// vectors are soon seen to be beyond.
fn distance_within(a: &[f32], b: &[f32], reach: f32) -> Option<f32> {
    const LANES: usize = 8;
    /// Numbers between two looks.
    const LOOK_EVERY: usize = 32;
    /// What rounding may have added so far.
    const ROUNDING: f32 = 1.001;
    let mut sums = [0.0f32; LANES];
    let mut rest = 0.0;
    for (a, b) in a.chunks(LOOK_EVERY).zip(b.chunks(LOOK_EVERY)) {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                let difference = a[lane] - b[lane];
                sums[lane] += difference * difference;
            }
        }
        rest = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
        if sums.iter().sum::<f32>() > reach * ROUNDING {
            return None;
        }
    }
    Some(sums.iter().sum::<f32>() + rest).filter(|distance| *distance <= reach)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn number_and_bytes_are_bounded_and_every_vector_is_accounted_for(
            max in 1u32..40, events in prop::collection::vec((prop::collection::vec(-3.0..3.0f32, 3), 0.0..1.0f32, any::<bool>()), 0..300)
        ) {
            let mut keep = Keep::new(max);
            let mut inserted = 0;
            for (vector, priority, sleeps) in events {
                if sleeps {
                    keep.consolidate();
                } else {
                    keep.insert(&vector, priority);
                    inserted += 1;
                }
                prop_assert!(keep.len() <= max as usize);
                prop_assert_eq!(keep.values.len(), keep.len() * 3);
                prop_assert_eq!(keep.len() as u64 + keep.merged + keep.pruned + keep.evicted, inserted);
            }
        }
    }

    #[test]
    fn a_wide_vector_leaves_room_for_fewer() {
        let mut keep = Keep::new(20_000);
        assert_eq!(keep.capacity(), 20_000);
        keep.insert(&vec![1.0; 10_000], 0.5);
        assert_eq!(keep.capacity(), BYTES_MAX / 40_000);
        // The usual embeddings all fit.
        const { assert!(20_000 * 384 * 4 < BYTES_MAX) };
    }

    #[test]
    fn what_is_nearly_the_same_becomes_one_and_what_is_least_important_goes_first() {
        let mut keep = Keep::new(3);
        for (vector, priority) in [([1.0, 0.0], 0.5), ([1.01, 0.0], 0.4), ([0.0, 1.0], 0.2)] {
            keep.insert(&vector, priority);
        }
        keep.consolidate();
        assert_eq!((keep.len(), keep.merged), (2, 1));
        assert!((keep.row(0)[0] - 1.005).abs() < 1e-6 && keep.items[0].support == 2);
        keep.insert(&[5.0, 5.0], 0.9);
        keep.insert(&[9.0, 9.0], 0.9);
        assert_eq!(keep.evicted, 1);
        assert!((0..3).all(|place| keep.row(place) != [0.0, 1.0]));
    }

    #[test]
    fn what_nothing_confirms_fades_and_goes() {
        let mut keep = Keep::new(10);
        keep.insert(&[1.0], 1.0);
        let sleeps = (0..1_000).position(|_| {
            keep.consolidate();
            keep.len() == 0
        });
        assert_eq!((keep.pruned, sleeps), (1, Some(151)));
    }
}
