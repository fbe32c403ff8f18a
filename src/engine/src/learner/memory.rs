//! The memory of experiences: the newest labelled rows, searched whole for the nearest.
//!
//! Two memories vote: the last [`SHORT`] experiences, which follow a drift, and all of them, which know more (after Losing,
//! Hammer and Wersing, "KNN Classifier with Self Adjusting Memory", ICDM 2016). The number of rows is bounded by the
//! configuration and by what one search may cost.

use serde::{Deserialize, Serialize};

/// Experiences of the short memory.
const SHORT: usize = 500;
/// Neighbours that vote.
const NEIGHBOURS: usize = 7;
/// Values that one search looks at, which takes about 50 µs.
const SEARCH_VALUES: usize = 1 << 17;
/// Rows are as wide as a multiple of this, so that the search runs on whole registers.
const LANES: usize = 8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    max: u32,
    width: usize,
    /// Row by row, in a ring.
    values: Vec<f32>,
    labels: Vec<f32>,
    /// Where the next experience goes once the ring is full.
    next: usize,
}

/// One neighbour: its distance, and its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    pub distance: f32,
    pub label: f32,
}

/// The nearest of both memories, nearest first.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    pub short: Vec<Neighbour>,
    pub long: Vec<Neighbour>,
}

impl Memory {
    pub fn new(max: u32) -> Self {
        Self { max, width: 0, values: Vec::new(), labels: Vec::new(), next: 0 }
    }

    /// Experiences held.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    fn capacity(&self) -> usize {
        let affordable = SEARCH_VALUES / self.width.max(LANES);
        (self.max as usize).min(affordable.max(SHORT)).max(1)
    }

    /// Takes up another bound; the oldest go where it is smaller.
    pub fn limit(&mut self, max: u32) {
        self.max = max;
        self.rebuild(self.width);
    }

    /// Keeps the newest that fit, oldest first, in rows of `width`.
    fn rebuild(&mut self, width: usize) {
        let old_width = self.width;
        let order: Vec<usize> = (0..self.len()).map(|place| (self.next + place) % self.len().max(1)).collect();
        self.width = width;
        let kept = &order[order.len().saturating_sub(self.capacity())..];
        let mut values = Vec::with_capacity(kept.len() * width);
        for place in kept {
            let row = &self.values[place * old_width..(place + 1) * old_width];
            values.extend(row.iter().copied().chain(std::iter::repeat(0.0)).take(width));
        }
        self.labels = kept.iter().map(|place| self.labels[*place]).collect();
        self.values = values;
        self.next = 0;
    }

    /// Remembers a row; the oldest goes when the memory is full.
    pub fn insert(&mut self, row: &[f32], label: f32) {
        let width = row.len().div_ceil(LANES) * LANES;
        if width > self.width {
            self.rebuild(width);
        }
        let padded = row.iter().copied().chain(std::iter::repeat(0.0)).take(self.width);
        if self.len() < self.capacity() {
            self.values.extend(padded);
            self.labels.push(label);
            return;
        }
        let at = self.next;
        for (value, new) in self.values[at * self.width..(at + 1) * self.width].iter_mut().zip(padded) {
            *value = new;
        }
        self.labels[at] = label;
        self.next = (at + 1) % self.len();
    }

    /// The nearest to a row.
    pub fn search(&self, row: &[f32], found: &mut Neighbours) {
        found.short.clear();
        found.long.clear();
        if self.width == 0 {
            return;
        }
        let mut padded = row.to_vec();
        padded.resize(self.width, 0.0);
        let count = self.len();
        // Ages: 0 is the newest.
        let newest = (self.next + count - 1) % count.max(1);
        for (place, stored) in self.values.chunks_exact(self.width).enumerate() {
            let distance = distance(stored, &padded);
            let neighbour = Neighbour { distance, label: self.labels[place] };
            let age = (newest + count - place) % count;
            if age < SHORT {
                keep(&mut found.short, neighbour);
            }
            keep(&mut found.long, neighbour);
        }
    }

    pub fn bytes(&self) -> usize {
        (self.values.len() + self.labels.len()) * 4
    }
}

/// Squared Euclidean distance, summed in eight lanes.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            lanes[lane] += difference * difference;
        }
    }
    (lanes[0] + lanes[4]) + (lanes[1] + lanes[5]) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

fn keep(nearest: &mut Vec<Neighbour>, neighbour: Neighbour) {
    if nearest.len() == NEIGHBOURS {
        if nearest.last().is_some_and(|last| last.distance <= neighbour.distance) {
            return;
        }
        nearest.pop();
    }
    let place = nearest.partition_point(|known| known.distance <= neighbour.distance);
    nearest.insert(place, neighbour);
}

/// Shares over classes: each neighbour counts by how near it is.
pub fn shares(nearest: &[Neighbour], classes: usize, shares: &mut Vec<f64>) {
    shares.clear();
    shares.resize(classes, 0.05 / classes.max(1) as f64);
    let mut sum = 0.05;
    let scale = nearest.last().map_or(1.0, |last| f64::from(last.distance)).max(1e-9);
    for neighbour in nearest {
        let weight = 1.0 / (0.1 + f64::from(neighbour.distance) / scale);
        if let Some(share) = shares.get_mut(neighbour.label as usize) {
            *share += weight;
            sum += weight;
        }
    }
    for share in shares.iter_mut() {
        *share /= sum;
    }
}

/// Mean label by nearness; none without neighbours.
pub fn mean(nearest: &[Neighbour]) -> Option<f64> {
    let scale = nearest.last().map_or(1.0, |last| f64::from(last.distance)).max(1e-9);
    let (mut sum, mut weights) = (0.0, 0.0);
    for neighbour in nearest {
        let weight = 1.0 / (0.1 + f64::from(neighbour.distance) / scale);
        sum += weight * f64::from(neighbour.label);
        weights += weight;
    }
    (weights > 0.0).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_bound_holds() {
        let mut memory = Memory::new(100);
        for number in 0..1_000 {
            memory.insert(&[number as f32, 1.0], number as f32);
        }
        assert_eq!(memory.len(), 100);
        let mut found = Neighbours::default();
        memory.search(&[0.0, 1.0], &mut found);
        assert_eq!(found.long[0].label, 900.0);
        memory.limit(10);
        memory.search(&[0.0, 1.0], &mut found);
        assert_eq!((memory.len(), found.long[0].label), (10, 990.0));
    }

    #[test]
    fn the_search_finds_what_a_sort_finds() {
        let mut random = crate::random::Random::new(5);
        let mut memory = Memory::new(2_000);
        let rows: Vec<[f32; 3]> =
            (0..1_500).map(|_| [random.unit() as f32, random.unit() as f32, random.unit() as f32]).collect();
        for (place, row) in rows.iter().enumerate() {
            memory.insert(row, place as f32);
        }
        let target = [0.5, 0.5, 0.5];
        let mut sorted: Vec<(f32, usize)> = rows
            .iter()
            .enumerate()
            .map(|(place, row)| (row.iter().zip(target).map(|(a, b)| (a - b) * (a - b)).sum(), place))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut found = Neighbours::default();
        memory.search(&target, &mut found);
        let expected: Vec<f32> = sorted[..NEIGHBOURS].iter().map(|(_, place)| *place as f32).collect();
        assert_eq!(found.long.iter().map(|neighbour| neighbour.label).collect::<Vec<_>>(), expected);
        assert!(found.short.iter().all(|neighbour| neighbour.label >= 1_000.0));
    }
}
