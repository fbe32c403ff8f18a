//! The memory of experiences: the newest labelled rows, searched for the nearest.
//!
//! Two memories vote: the last [`SHORT`] experiences, which follow a drift, and all of them, which know more (after Losing,
//! Hammer and Wersing, "KNN Classifier with Self Adjusting Memory", ICDM 2016). The number of rows is bounded by the
//! configuration and by what one search may cost: narrow rows are searched whole, of wide ones those whose signatures are
//! alike.

use std::ops::Range;

use multiversion::multiversion;
use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};

use super::index::{Index, Query};
use super::signature::{Scratch, Signatures};
use crate::math::{larger, smaller};
use crate::schema::SLOTS_MAX;

/// Experiences of the short memory.
const SHORT: usize = 500;
/// Neighbours that vote, as many as in that paper.
const NEIGHBOURS: usize = 5;
/// Values that one search of narrow rows looks at, which takes about 12 µs.
const SEARCH_VALUES: usize = 1 << 16;
/// From this width on rows have signatures.
const WIDE: usize = 128;
/// Values of all wide rows: 32 MiB in each checkpoint, and signatures of 1 MiB that one search compares.
const WIDE_VALUES_MAX: usize = 1 << 23;
/// Wide rows have room for a multiple of so many values: those of a word of their signatures.
const ROOM: usize = 64;
/// Of wide rows, distances are computed of so many at most whose signatures are most alike, among all and among the newest.
const CANDIDATES: usize = 128;
const CANDIDATES_SHORT: usize = 48;
/// So many at once, until none of them is nearer than what was found before.
const CANDIDATES_AT_ONCE: usize = 20;
/// No narrower row lets the memory hold more: what is older than this misleads more than it helps.
const WIDTH_MIN: usize = 8;
/// Experiences whose distances are summed at once: as many as the registers of the plainest x86-64 hold.
pub const BLOCK: usize = 32;
/// Slots that are summed between two looks whether the block is out of reach already.
const SLOTS_A_LOOK: usize = 4;

/// The experiences, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Memory {
    max: u32,
    width: usize,
    /// A ring of experiences. Narrow ones are in blocks of [`BLOCK`], slot by slot within a block, so that a search runs along
    /// memory; wide ones row by row, so that one is soon read.
    values: Vec<f32>,
    labels: Vec<f32>,
    /// Where the next experience goes once the ring is full.
    next: usize,
    /// Made of the rest, of narrow rows.
    index: Index,
    /// Made of the rest, of wide rows.
    signatures: Signatures,
}

/// A memory as it is stored: the ring is in blocks, whatever the width.
#[derive(Deserialize)]
struct Stored {
    max: u32,
    width: usize,
    values: Vec<f32>,
    labels: Vec<f32>,
    next: usize,
}

impl TryFrom<Stored> for Memory {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { max, width, values, labels, next } = stored;
        let rows = labels.len().next_multiple_of(BLOCK);
        if width > SLOTS_MAX || values.len() != rows * width || next > labels.len() {
            return Err("a memory's rows don't fit each other");
        }
        let mut memory = Self { width, signatures: Signatures::new(width), ..Self::new(max) };
        if memory.is_wide() {
            let mut row = vec![0.0; width];
            for (place, label) in labels.into_iter().enumerate() {
                for (slot, value) in row.iter_mut().enumerate() {
                    *value = values.get(in_block(place, slot, width)).copied().unwrap_or(0.0);
                }
                memory.push(&row, label);
            }
        } else {
            memory.values = values;
            memory.labels = labels;
        }
        memory.next = next;
        // Stored when a search afforded fewer: what comes next goes behind the newest.
        if next > 0 && memory.len() < memory.capacity() {
            memory.fit();
        }
        Ok(memory)
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stored = serializer.serialize_struct("Memory", 5)?;
        stored.serialize_field("max", &self.max)?;
        stored.serialize_field("width", &self.width)?;
        if self.is_wide() {
            stored.serialize_field("values", &InBlocks(self))?;
        } else {
            stored.serialize_field("values", &self.values)?;
        }
        stored.serialize_field("labels", &self.labels)?;
        stored.serialize_field("next", &self.next)?;
        stored.end()
    }
}

/// Wide rows as narrow ones are kept.
struct InBlocks<'a>(&'a Memory);

impl Serialize for InBlocks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(memory) = self;
        let blocks = memory.len().div_ceil(BLOCK);
        let mut values = serializer.serialize_seq(Some(blocks * BLOCK * memory.width))?;
        for block in 0..blocks {
            for slot in 0..memory.width {
                for place in block * BLOCK..(block + 1) * BLOCK {
                    let value = memory.values.get(place * memory.width + slot).copied().unwrap_or(0.0);
                    values.serialize_element(&value)?;
                }
            }
        }
        values.end()
    }
}

/// The width of a memory of rows so wide. Wide ones have room for more: each new category makes a slot, and to make the
/// memory anew for every one takes longer than all the rest.
fn room(width: usize) -> usize {
    if width < WIDE { width } else { width.next_multiple_of(ROOM).min(SLOTS_MAX) }
}

/// Where a value stands in blocks of [`BLOCK`] rows, slot by slot.
fn in_block(place: usize, slot: usize, width: usize) -> usize {
    (place / BLOCK * width + slot) * BLOCK + place % BLOCK
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
    pub slot: usize,
    pub value: f32,
    pub relevance: f32,
}

/// The nearest of both memories, nearest first.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// How many of each are looked for.
    wanted: usize,
    /// Among the newest 500 experiences.
    pub short: Vec<Neighbour>,
    /// Among all.
    pub long: Vec<Neighbour>,
    /// Scratch: the slots in the order in which they are looked at, and in their own.
    targets: Vec<Target>,
    slots: Vec<(f32, f32)>,
    /// And the distances of the newest, a block after another, each with its first place.
    distances: Vec<(usize, [f32; BLOCK])>,
    wide: Wide,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self::of(NEIGHBOURS)
    }
}

impl Neighbours {
    /// Room for so many neighbours.
    pub fn of(wanted: usize) -> Self {
        Self {
            wanted: wanted.max(1),
            short: Vec::new(),
            long: Vec::new(),
            targets: Vec::new(),
            slots: Vec::new(),
            distances: Vec::new(),
            wide: Wide::default(),
        }
    }
}

/// Scratch of a search among wide rows: the row with a value and a relevance in every slot, and what signatures need.
#[derive(Clone, Debug, Default)]
struct Wide {
    row: Vec<f32>,
    relevance: Vec<f32>,
    distances: Vec<f32>,
    scratch: Scratch,
}

#[allow(clippy::len_without_is_empty, reason = "nobody asks whether there is nothing")]
impl Memory {
    /// A memory of at most `max` experiences.
    pub fn new(max: u32) -> Self {
        let (index, signatures) = (Index::default(), Signatures::default());
        Self { max, width: 0, values: Vec::new(), labels: Vec::new(), next: 0, index, signatures }
    }

    /// Experiences held.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    fn is_wide(&self) -> bool {
        self.width >= WIDE
    }

    fn capacity(&self) -> usize {
        let values = if self.is_wide() { WIDE_VALUES_MAX } else { SEARCH_VALUES };
        let affordable = values / self.width.max(WIDTH_MIN);
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
        let mut other = Self { width, signatures: Signatures::new(width), ..Self::new(self.max) };
        let count = self.len();
        let mut row = vec![0.0; width];
        for age in (0..count.min(other.capacity())).rev() {
            let place = (self.next + count - 1 - age) % count;
            for (slot, value) in row.iter_mut().take(self.width).enumerate() {
                *value = self.values[self.at(place, slot)];
            }
            other.push(&row, self.labels[place]);
        }
        *self = other;
    }

    /// Where a value stands.
    fn at(&self, place: usize, slot: usize) -> usize {
        if self.is_wide() { place * self.width + slot } else { in_block(place, slot, self.width) }
    }

    fn push(&mut self, row: &[f32], label: f32) {
        let place = self.len();
        self.labels.push(label);
        let rows = if self.is_wide() { self.len() } else { self.len().next_multiple_of(BLOCK) };
        self.values.resize(rows * self.width, 0.0);
        self.write(place, row);
    }

    fn write(&mut self, place: usize, row: &[f32]) {
        for slot in 0..self.width {
            let at = self.at(place, slot);
            self.values[at] = row.get(slot).copied().unwrap_or(0.0);
        }
        if self.is_wide() {
            self.signatures.write(place, &self.values[place * self.width..(place + 1) * self.width]);
        }
    }

    /// Remembers a row; the oldest goes when the memory is full. `relevance` is what searches count with about now.
    pub fn insert(&mut self, row: &[f32], label: f32, relevance: &[f32]) {
        if row.len() > self.width {
            self.rebuild(room(row.len()));
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
        if self.width > 0 && !self.is_wide() && self.index.replaced(place) {
            let count = self.len();
            let mut rows = vec![0.0; count * self.width];
            for (place, row) in rows.chunks_exact_mut(self.width).enumerate() {
                for (slot, value) in row.iter_mut().enumerate() {
                    *value = self.values[self.at(place, slot)];
                }
            }
            let newest = (0..count).map(|age| (self.next + count - 1 - age) % count);
            self.index = Index::make(self.width, &rows, relevance, newest);
        }
    }

    /// The nearest to a row; of equally near ones the newer. Each slot counts as much as `relevance` says, 1 where it says
    /// nothing. Of wide rows, those that are seldom miss one.
    pub fn search(&self, row: &[f32], relevance: &[f32], found: &mut Neighbours) {
        found.short.clear();
        found.long.clear();
        if self.is_wide() {
            self.search_wide(row, relevance, found);
        } else if self.width > 0 {
            self.search_narrow(row, relevance, found);
        }
    }

    /// Experiences that came after the one at a place.
    fn age(&self, place: usize) -> usize {
        let newest = if place < self.next { self.next } else { self.next + self.len() };
        newest - 1 - place
    }

    /// Where those of some ages stand: up to two stretches of the ring, that of the newer ones first.
    fn places(&self, ages: Range<usize>) -> [Range<usize>; 2] {
        let end = if self.next == 0 { self.len() } else { self.next };
        let beyond = |age: usize| self.len() - age.saturating_sub(end);
        [end - ages.end.min(end)..end - ages.start.min(end), beyond(ages.end)..beyond(ages.start)]
    }

    fn search_wide(&self, row: &[f32], relevance: &[f32], found: &mut Neighbours) {
        let Neighbours { wanted, short, long, wide, .. } = found;
        let wanted = *wanted;
        let present = row.len().min(self.width);
        wide.row.clear();
        wide.row.extend(&row[..present]);
        wide.relevance.clear();
        wide.relevance.extend((0..present).map(|slot| relevance.get(slot).copied().unwrap_or(1.0)));
        // A slot that the row doesn't have counts for nothing.
        wide.row.resize(self.width, 0.0);
        wide.relevance.resize(self.width, 0.0);
        self.signatures.estimate(&wide.row, &wide.relevance, present, &mut wide.scratch);
        let count = self.len();
        self.compare(0..count, CANDIDATES, wide, wanted, long);
        for places in self.places(0..SHORT.min(count)) {
            self.compare(places, CANDIDATES_SHORT, wide, wanted, short);
        }
    }

    /// Takes among the nearest those of the wide rows at some places that are, but for what their signatures hide.
    fn compare(
        &self,
        places: Range<usize>,
        candidates: usize,
        wide: &mut Wide,
        wanted: usize,
        nearest: &mut Vec<Neighbour>,
    ) {
        let Wide { row, relevance, distances, scratch } = wide;
        scratch.choose(places, candidates, |place| self.age(place as usize));
        let mut bound = f32::INFINITY;
        for places in scratch.chosen.chunks(CANDIDATES_AT_ONCE) {
            wide_distances(&self.values, places, row, relevance, distances);
            let mut is_nearer = nearest.len() < wanted;
            for (place, distance) in places.iter().zip(&*distances) {
                if *distance < bound {
                    let place = *place as usize;
                    let neighbour = Neighbour { distance: *distance, label: self.labels[place], age: self.age(place) };
                    bound = keep(nearest, neighbour, wanted);
                    is_nearer = true;
                }
            }
            // What is less alike still is hardly nearer.
            if !is_nearer {
                break;
            }
        }
    }

    fn search_narrow(&self, row: &[f32], relevance: &[f32], found: &mut Neighbours) {
        let Neighbours { wanted, short, long, targets, slots, distances, .. } = found;
        let wanted = *wanted;
        let count = self.len();
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
        let bound = self.scan_newest(targets, wanted, distances, short);
        long.clone_from(short);
        let mut query = Query { targets, slots, bound };
        self.index.search(&mut query, &mut |distance, place| {
            keep(long, Neighbour { distance, label: self.labels[place], age: self.age(place) }, wanted)
        });
        // The index has found the nearest of most: a close bound, which leaves out most of the rest.
        let mut bound = query.bound;
        for places in self.places(SHORT.min(count)..self.index.newest(count)) {
            bound = self.scan(places, targets, bound, wanted, long);
        }
    }

    /// Takes the nearest of the short memory's narrow rows; how far others may be away. All distances come first: they tell
    /// about how far the last of the nearest is, so that next to none is taken that isn't among them.
    fn scan_newest(
        &self,
        targets: &[Target],
        wanted: usize,
        blocks: &mut Vec<(usize, [f32; BLOCK])>,
        nearest: &mut Vec<Neighbour>,
    ) -> f32 {
        blocks.clear();
        let mut least = [f32::INFINITY; BLOCK];
        for places in self.places(0..SHORT.min(self.len())) {
            for block in (places.start / BLOCK..places.end.div_ceil(BLOCK)).rev() {
                let (first, mut sums) = (block * BLOCK, [0.0; BLOCK]);
                let values = &self.values[first * self.width..(first + BLOCK) * self.width];
                distances(values, targets, f32::INFINITY, &mut sums);
                if first < places.start || first + BLOCK > places.end {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        *sum = if places.contains(&(first + lane)) { *sum } else { f32::INFINITY };
                    }
                }
                for lane in 0..BLOCK {
                    least[lane] = smaller(least[lane], sums[lane]);
                }
                blocks.push((first, sums));
            }
        }
        let mut bound = bound_of(&least, wanted);
        for (first, sums) in blocks {
            let mut within = lanes_within(sums, bound);
            while within != 0 {
                let lane = within.ilog2();
                within ^= 1 << lane;
                let (place, distance) = (*first + lane as usize, sums[lane as usize]);
                if distance <= bound && distance < f32::INFINITY {
                    let neighbour = Neighbour { distance, label: self.labels[place], age: self.age(place) };
                    bound = smaller(bound, keep(nearest, neighbour, wanted));
                }
            }
        }
        nearest.get(wanted - 1).map_or(f32::INFINITY, |last| last.distance)
    }

    /// Takes among the nearest those of the narrow rows at some places that are; the newest are looked at first. `bound` is how
    /// far the next may be away, as what it returns.
    fn scan(
        &self,
        places: Range<usize>,
        targets: &[Target],
        mut bound: f32,
        wanted: usize,
        nearest: &mut Vec<Neighbour>,
    ) -> f32 {
        let mut sums = [0.0; BLOCK];
        for block in (places.start / BLOCK..places.end.div_ceil(BLOCK)).rev() {
            let first = block * BLOCK;
            let values = &self.values[first * self.width..(first + BLOCK) * self.width];
            if !distances(values, targets, bound, &mut sums) {
                continue;
            }
            let mut within = lanes_within(&sums, bound);
            while within != 0 {
                let lane = within.ilog2();
                within ^= 1 << lane;
                let (place, distance) = (first + lane as usize, sums[lane as usize]);
                if distance <= bound && places.contains(&place) {
                    let neighbour = Neighbour { distance, label: self.labels[place], age: self.age(place) };
                    bound = keep(nearest, neighbour, wanted);
                }
            }
        }
        bound
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        (self.values.len() + self.labels.len()) * 4 + self.index.bytes() + self.signatures.bytes()
    }
}

/// Squared weighted Euclidean distances of a row to the experiences of a block; false when all are beyond `bound`.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
pub fn distances(values: &[f32], targets: &[Target], bound: f32, distances: &mut [f32; BLOCK]) -> bool {
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
        // As a fold, which becomes one comparison of all lanes.
        if !sums.iter().fold(false, |any, sum| any | (*sum <= bound)) {
            return false;
        }
    }
    *distances = sums;
    true
}

/// Squared weighted Euclidean distances of some of the rows to another. Whatever the processor can do, sums are made in the same
/// order.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512f+avx512vl", "x86_64+avx2"))]
fn wide_distances(rows: &[f32], places: &[u32], target: &[f32], relevance: &[f32], distances: &mut Vec<f32>) {
    const LANES: usize = 32;
    let width = target.len();
    let (target, target_rest) = target.as_chunks::<LANES>();
    let (relevance, relevance_rest) = relevance.as_chunks::<LANES>();
    distances.clear();
    for place in places {
        let (row, rest) = rows[*place as usize * width..(*place as usize + 1) * width].as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for ((row, target), relevance) in row.iter().zip(target).zip(relevance) {
            for lane in 0..LANES {
                let difference = row[lane] - target[lane];
                sums[lane] += difference * difference * relevance[lane];
            }
        }
        let rest = rest.iter().zip(target_rest).zip(relevance_rest);
        let rest: f32 = rest.map(|((value, target), relevance)| (value - target) * (value - target) * relevance).sum();
        distances.push(sums.iter().sum::<f32>() + rest);
    }
}

/// A distance within which `wanted` are, given the least of each lane: so many groups of lanes have one.
fn bound_of(least: &[f32; BLOCK], wanted: usize) -> f32 {
    const GROUPS: usize = BLOCK / 2;
    if wanted > GROUPS {
        return f32::INFINITY;
    }
    let groups: [f32; GROUPS] = std::array::from_fn(|group| smaller(least[group], least[group + GROUPS]));
    let is_among = |least: &f32| groups.iter().filter(|other| *other < least).count() < wanted;
    groups.into_iter().filter(is_among).fold(0.0, larger)
}

/// A bit for each of the distances that is within `bound`.
#[inline]
pub fn lanes_within(distances: &[f32; BLOCK], bound: f32) -> u32 {
    let mut within = 0;
    for (lane, distance) in distances.iter().enumerate() {
        within |= u32::from(*distance <= bound) << lane;
    }
    within
}

/// Takes a neighbour among the `wanted` nearest, if it is; the distance that the next one may have.
fn keep(nearest: &mut Vec<Neighbour>, neighbour: Neighbour, wanted: usize) -> f32 {
    let is_behind = |other: &Neighbour| {
        other.distance > neighbour.distance || (other.distance == neighbour.distance && other.age > neighbour.age)
    };
    if nearest.len() < wanted {
        nearest.push(neighbour);
    } else if !is_behind(&nearest[wanted - 1]) {
        return nearest[wanted - 1].distance;
    }
    // By hand: so few are moved that a call would cost more.
    let mut place = nearest.len() - 1;
    while place > 0 && is_behind(&nearest[place - 1]) {
        nearest[place] = nearest[place - 1];
        place -= 1;
    }
    nearest[place] = neighbour;
    if nearest.len() < wanted { f32::INFINITY } else { nearest[wanted - 1].distance }
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
    fn a_stored_memory_whose_rows_do_not_fit_is_refused() {
        let stored = |width: usize, values: usize, labels: usize, next: usize| {
            let parts = (100u32, width, vec![0.5_f32; values], vec![1.0_f32; labels], next);
            postcard::from_bytes::<Memory>(&postcard::to_stdvec(&parts).unwrap())
        };
        assert!(stored(2, 2 * BLOCK, 3, 0).is_ok());
        for (width, values, labels, next) in
            [(3, 2 * BLOCK, 3, 0), (1 << 60, 2 * BLOCK, 3, 0), (2, 2 * BLOCK, BLOCK + 1, 0), (2, 2 * BLOCK, 3, 4)]
        {
            assert!(stored(width, values, labels, next).is_err(), "{width} {values} {labels} {next}");
        }
    }

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
        // The ring begins anew in the middle of a block; many are equally far.
        let mut memory = Memory::new(1_490);
        let rows: Vec<[f32; 3]> =
            (0..4_000).map(|_| std::array::from_fn(|_| (random.unit() * 40.0).floor() as f32 / 8.0)).collect();
        let mut found = Neighbours::default();
        for (number, row) in rows.iter().enumerate() {
            memory.search(row, &[], &mut found);
            let mut sorted: Vec<(f32, usize)> = (number.saturating_sub(1_490)..number)
                .map(|place| (rows[place].iter().zip(row).map(|(a, b)| (a - b) * (a - b)).sum(), number - 1 - place))
                .collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let nearest = |among: usize| sorted.iter().filter(move |(_, age)| *age < among).take(NEIGHBOURS);
            for (found, among) in [(&found.short, SHORT), (&found.long, 1_490)] {
                let found = found.iter().map(|one| (one.distance, one.age, one.label as usize));
                let expected = nearest(among).map(|(distance, age)| (*distance, *age, number - 1 - age));
                assert!(found.eq(expected), "at {number} among {among}");
            }
            memory.insert(row, number as f32, &[]);
        }
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

    /// Rows of 130 features around some centres, some slots of which say nothing.
    fn wide_rows(count: usize) -> Vec<Vec<f32>> {
        let mut random = crate::random::Random::new(7);
        let mut row = |scale: f64| -> Vec<f32> {
            (0..130).map(|_| ((random.unit() + random.unit() + random.unit() - 1.5) * scale) as f32).collect()
        };
        let centres: Vec<Vec<f32>> = (0..20).map(|_| row(2.0)).collect();
        let around =
            |(number, row): (usize, Vec<f32>)| centres[number % 20].iter().zip(row).map(|(a, b)| a + b).collect();
        (0..count).map(|_| row(1.2)).enumerate().map(around).collect()
    }

    #[test]
    fn of_wide_rows_few_of_the_nearest_are_missed() {
        let relevance: Vec<f32> = (0..130).map(|slot| if slot % 4 == 0 { 0.1 } else { 1.0 }).collect();
        let rows = wide_rows(3_100);
        let mut memory = Memory::new(2_500);
        let mut found = Neighbours::of(10);
        let mut hits = [0, 0];
        for (number, row) in rows.iter().enumerate() {
            // Once the ring has begun anew, with the newest on both sides of its end.
            if number >= 2_800 {
                memory.search(row, &relevance, &mut found);
                let age = |place: usize| number - 1 - place;
                let mut sorted: Vec<(f32, usize)> = (number - 2_500..number)
                    .map(|place| {
                        let slots = rows[place].iter().zip(row).zip(&relevance);
                        (slots.map(|((a, b), relevance)| (a - b) * (a - b) * relevance).sum(), place)
                    })
                    .collect();
                sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
                let long = sorted.iter().take(10);
                let short = sorted.iter().filter(|(_, place)| age(*place) < SHORT).take(10);
                for (hits, (found, truth)) in
                    hits.iter_mut().zip([(&found.long, long.collect::<Vec<_>>()), (&found.short, short.collect())])
                {
                    *hits +=
                        truth.iter().filter(|(_, place)| found.iter().any(|near| near.label == *place as f32)).count();
                }
                assert!(
                    found.short.iter().all(|near| near.age < SHORT && near.label as usize == number - 1 - near.age)
                );
            }
            memory.insert(row, number as f32, &relevance);
        }
        assert_eq!(memory.len(), 2_500);
        assert!(hits.iter().all(|hits| *hits >= 2_700), "{hits:?} of 3,000");
    }

    #[test]
    fn wide_rows_are_the_same_after_they_were_stored() {
        let mut memory = Memory::new(100);
        for (number, row) in wide_rows(130).iter().enumerate() {
            memory.insert(row, number as f32, &[]);
            let bytes = postcard::to_stdvec(&memory).unwrap();
            let read: Memory = postcard::from_bytes(&bytes).unwrap();
            assert!(read == memory && postcard::to_stdvec(&read).unwrap() == bytes, "at {number}");
        }
    }

    #[test]
    fn a_memory_that_was_full_when_it_held_fewer_goes_on_behind_its_newest() {
        let (mut memory, rows) = (Memory::new(40), wide_rows(70));
        for (number, row) in rows.iter().take(60).enumerate() {
            memory.insert(row, number as f32, &[]);
        }
        // The bound is what begins a stored memory.
        let bytes =
            [postcard::to_stdvec(&1_000u32).unwrap(), postcard::to_stdvec(&memory).unwrap()[1..].to_vec()].concat();
        let mut memory: Memory = postcard::from_bytes(&bytes).unwrap();
        for (number, row) in rows.iter().enumerate().skip(60) {
            memory.insert(row, number as f32, &[]);
        }
        assert_eq!(memory.labels, (20..70).map(|number| number as f32).collect::<Vec<_>>());
    }
}
