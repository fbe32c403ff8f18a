//! The memory of experiences: the newest labelled rows, searched whole for the nearest.
//!
//! Two memories vote: the last [`SHORT`] experiences, which follow a drift, and all of them, which know more (after Losing,
//! Hammer and Wersing, "KNN Classifier with Self Adjusting Memory", ICDM 2016). The number of rows is bounded by the
//! configuration and by what one search may cost.

use serde::{Deserialize, Serialize};

use super::index::{Index, Query};

/// Experiences of the short memory.
const SHORT: usize = 500;
/// Neighbours that vote, as many as in that paper.
const NEIGHBOURS: usize = 5;
/// Values that one search looks at, which takes about 12 µs.
const SEARCH_VALUES: usize = 1 << 16;
/// No narrower row lets the memory hold more: what is older than this misleads more than it helps.
const WIDTH_MIN: usize = 8;
/// Experiences whose distances are summed at once: as many as the registers of the plainest x86-64 hold.
pub const BLOCK: usize = 32;
/// Slots that are summed between two looks whether the block is out of reach already.
const SLOTS_A_LOOK: usize = 4;

/// The experiences, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    max: u32,
    width: usize,
    /// A ring of experiences in blocks of [`BLOCK`]; slot by slot within a block, so that a search runs along memory.
    values: Vec<f32>,
    labels: Vec<f32>,
    /// Where the next experience goes once the ring is full.
    next: usize,
    /// Made of the rest.
    #[serde(skip)]
    index: Index,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Squared and weighted.
    pub distance: f32,
    /// Its class or target.
    pub label: f32,
    /// Experiences that came after it.
    age: usize,
}

/// What a search wants of a slot.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    slot: usize,
    value: f32,
    relevance: f32,
}

/// The nearest of both memories, nearest first.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// Among the newest 500 experiences.
    pub short: Vec<Neighbour>,
    /// Among all.
    pub long: Vec<Neighbour>,
    /// Scratch: the slots in the order in which they are looked at; in their own; and what the index keeps of them.
    targets: Vec<Target>,
    slots: Vec<(f32, f32)>,
    offsets: Vec<f32>,
}

#[allow(clippy::len_without_is_empty, reason = "nobody asks whether there is nothing")]
impl Memory {
    /// A memory of at most `max` experiences.
    pub fn new(max: u32) -> Self {
        Self { max, width: 0, values: Vec::new(), labels: Vec::new(), next: 0, index: Index::default() }
    }

    /// Experiences held.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    fn capacity(&self) -> usize {
        let affordable = SEARCH_VALUES / self.width.max(WIDTH_MIN);
        (self.max as usize).min(affordable.max(SHORT)).max(1)
    }

    /// Takes up another bound; the oldest go where it is smaller.
    pub fn limit(&mut self, max: u32) {
        self.max = max;
        self.fit();
    }

    /// Lets the oldest go that are beyond the bound, as in a memory that was stored when the bound was larger.
    pub fn fit(&mut self) {
        self.rebuild(self.width);
    }

    /// Keeps the newest that fit, oldest first, in rows of `width`.
    fn rebuild(&mut self, width: usize) {
        let mut other = Self { width, ..Self::new(self.max) };
        let count = self.len();
        let mut row = vec![0.0; width];
        for age in (0..count.min(other.capacity())).rev() {
            let place = (self.next + count - 1 - age) % count;
            let from = self.offset(place);
            for (slot, value) in row.iter_mut().take(self.width).enumerate() {
                *value = self.values[from + slot * BLOCK];
            }
            other.push(&row, self.labels[place]);
        }
        *self = other;
    }

    /// Where the first value of an experience stands; the others follow at distances of [`BLOCK`].
    fn offset(&self, place: usize) -> usize {
        place / BLOCK * BLOCK * self.width + place % BLOCK
    }

    fn push(&mut self, row: &[f32], label: f32) {
        let place = self.len();
        self.labels.push(label);
        self.values.resize(self.labels.len().div_ceil(BLOCK) * BLOCK * self.width, 0.0);
        self.write(place, row);
    }

    fn write(&mut self, place: usize, row: &[f32]) {
        let from = self.offset(place);
        for slot in 0..self.width {
            self.values[from + slot * BLOCK] = row.get(slot).copied().unwrap_or(0.0);
        }
    }

    /// Remembers a row; the oldest goes when the memory is full. `relevance` is what searches count with about now.
    pub fn insert(&mut self, row: &[f32], label: f32, relevance: &[f32]) {
        if row.len() > self.width {
            self.rebuild(row.len());
        }
        let place = if self.len() < self.capacity() {
            self.push(row, label);
            self.len() - 1
        } else {
            let place = self.next;
            self.write(place, row);
            self.labels[place] = label;
            self.next = (place + 1) % self.len();
            place
        };
        if self.index.replaced(place) {
            let count = self.len();
            let newest = (0..count).map(|age| (self.next + count - 1 - age) % count);
            let value = |place: usize, slot: usize| self.values[self.offset(place) + slot * BLOCK];
            self.index = Index::make(self.width, count, relevance, newest, value);
        }
    }

    /// The nearest to a row; of equally near ones the newer. Each slot counts as much as `relevance` says, 1 where it says
    /// nothing.
    pub fn search(&self, row: &[f32], relevance: &[f32], found: &mut Neighbours) {
        let Neighbours { short, long, targets, slots, offsets } = found;
        short.clear();
        long.clear();
        let count = self.len();
        if self.width == 0 {
            return;
        }
        slots.clear();
        slots.extend(row.iter().take(self.width).enumerate().map(|(slot, value)| {
            let relevance = relevance.get(slot).copied().unwrap_or(1.0);
            (*value, relevance)
        }));
        targets.clear();
        let by_slot = slots.iter().enumerate();
        targets.extend(by_slot.map(|(slot, (value, relevance))| Target { slot, value: *value, relevance: *relevance }));
        // The slots that set experiences apart most, as values have a variance of 1, come first: a block is out of reach soon.
        let apart = |target: &Target| target.relevance * (1.0 + target.value * target.value);
        targets.sort_by(|a, b| apart(b).total_cmp(&apart(a)));
        let age = |place: usize| if place < self.next { self.next - 1 - place } else { self.next + count - 1 - place };
        let (mut short_bound, mut long_bound) = (f32::INFINITY, f32::INFINITY);
        // First the newest, which the index has nothing of: what is near is often recent, and a close bound leaves most out.
        let newest = self.index.newest(count);
        let blocks = count.div_ceil(BLOCK);
        let last = (self.next + count - 1) % count.max(1) / BLOCK;
        // Two may be newest in part only, and the last of the ring needn't be full.
        let looked_at = (0..=last).rev().chain((last + 1..blocks).rev()).take(newest / BLOCK + 3);
        for block in looked_at {
            let first = block * BLOCK;
            let end = (first + BLOCK).min(count);
            let has_short = age(first) < SHORT || age(end - 1) < SHORT;
            let values = &self.values[first * self.width..(first + BLOCK) * self.width];
            let bound = if has_short { short_bound } else { long_bound };
            let Some(distances) = distances(values, targets, bound) else { continue };
            for place in (first..end).rev() {
                let distance = distances[place - first];
                let age = age(place);
                let neighbour = Neighbour { distance, label: self.labels[place], age };
                if distance <= long_bound && age < newest {
                    long_bound = keep(long, neighbour);
                }
                if distance <= short_bound && age < SHORT {
                    short_bound = keep(short, neighbour);
                }
            }
        }
        let mut query = Query { targets, slots, offsets, bound: long_bound };
        self.index.search(&mut query, &mut |distance, place| {
            keep(long, Neighbour { distance, label: self.labels[place], age: age(place) })
        });
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        (self.values.len() + self.labels.len()) * 4 + self.index.bytes()
    }
}

/// Squared weighted Euclidean distances of a row to the experiences of a block; none when all are beyond `bound`.
#[inline]
pub fn distances(values: &[f32], targets: &[Target], bound: f32) -> Option<[f32; BLOCK]> {
    let mut sums = [0.0f32; BLOCK];
    let slots = values.as_chunks::<BLOCK>().0;
    for targets in targets.chunks(SLOTS_A_LOOK) {
        for target in targets {
            let Some(slot) = slots.get(target.slot) else { continue };
            for lane in 0..BLOCK {
                let difference = slot[lane] - target.value;
                sums[lane] += difference * difference * target.relevance;
            }
        }
        if nearest_of(&sums) > bound {
            return None;
        }
    }
    Some(sums)
}

#[inline]
fn nearest_of(distances: &[f32; BLOCK]) -> f32 {
    let mut least = [f32::INFINITY; 4];
    for four in distances.as_chunks::<4>().0 {
        for lane in 0..4 {
            // Not `f32::min`: nothing here is NaN, and the comparison is one instruction.
            least[lane] = if four[lane] < least[lane] { four[lane] } else { least[lane] };
        }
    }
    least.into_iter().fold(f32::INFINITY, f32::min)
}

/// Takes a neighbour among the nearest, if it is; the distance that the next one may have.
fn keep(nearest: &mut Vec<Neighbour>, neighbour: Neighbour) -> f32 {
    nearest.push(neighbour);
    // By hand: so few are moved that a call would cost more.
    let mut place = nearest.len() - 1;
    let is_behind = |other: &Neighbour| {
        other.distance > neighbour.distance || (other.distance == neighbour.distance && other.age > neighbour.age)
    };
    while place > 0 && is_behind(&nearest[place - 1]) {
        nearest.swap(place - 1, place);
        place -= 1;
    }
    nearest.truncate(NEIGHBOURS);
    if nearest.len() < NEIGHBOURS { f32::INFINITY } else { nearest[NEIGHBOURS - 1].distance }
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
            memory.insert(&[number as f32, 1.0], number as f32, &[]);
        }
        assert_eq!(memory.len(), 100);
        let mut found = Neighbours::default();
        memory.search(&[0.0, 1.0], &[], &mut found);
        assert_eq!(found.long[0].label, 900.0);
        memory.limit(10);
        memory.search(&[0.0, 1.0], &[], &mut found);
        assert_eq!((memory.len(), found.long[0].label), (10, 990.0));
    }

    #[test]
    fn the_search_finds_what_a_sort_finds() {
        let mut random = crate::random::Random::new(5);
        let mut memory = Memory::new(2_000);
        let rows: Vec<[f32; 3]> =
            (0..1_500).map(|_| [random.unit() as f32, random.unit() as f32, random.unit() as f32]).collect();
        for (place, row) in rows.iter().enumerate() {
            memory.insert(row, place as f32, &[]);
        }
        let target = [0.5, 0.5, 0.5];
        let mut sorted: Vec<(f32, usize)> = rows
            .iter()
            .enumerate()
            .map(|(place, row)| (row.iter().zip(target).map(|(a, b)| (a - b) * (a - b)).sum(), place))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut found = Neighbours::default();
        memory.search(&target, &[], &mut found);
        let expected: Vec<f32> = sorted[..NEIGHBOURS].iter().map(|(_, place)| *place as f32).collect();
        assert_eq!(found.long.iter().map(|neighbour| neighbour.label).collect::<Vec<_>>(), expected);
        assert!(found.short.iter().all(|neighbour| neighbour.label >= 1_000.0));
    }

    #[test]
    fn what_a_search_finds_does_not_depend_on_the_index() {
        let mut random = crate::random::Random::new(6);
        let relevance = [1.0, 0.3, 0.1, 0.8];
        // More than fit, with many that are equally far; now and then read again, as after a crash.
        let mut memory = Memory::new(5_000);
        let mut without = Neighbours::default();
        let mut with = Neighbours::default();
        let mut indexed = 0;
        for number in 0..14_000 {
            let mut value = || (random.unit() * 12.0).floor() as f32 / 4.0;
            let row = [value(), value(), value(), value()];
            memory.search(&row, &relevance, &mut with);
            if number % 37 == 0 {
                indexed += usize::from(memory.index.newest(memory.len()) < memory.len());
                let read: Memory = postcard::from_bytes(&postcard::to_stdvec(&memory).unwrap()).unwrap();
                read.search(&row, &relevance, &mut without);
                assert_eq!((&with.short, &with.long), (&without.short, &without.long), "at {number}");
            }
            if number == 9_000 {
                memory = postcard::from_bytes(&postcard::to_stdvec(&memory).unwrap()).unwrap();
            }
            memory.insert(&row, number as f32, &relevance);
        }
        assert!(indexed > 200, "{indexed}");
    }
}
