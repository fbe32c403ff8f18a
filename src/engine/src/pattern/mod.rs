//! Discovers recurring shapes in signals: normalise → edges → segments → nearest prototype, then pairs of prototypes, and
//! pairs of pairs, until nothing more is compressed.
//!
//! An edge is a turn of the signal by more than a share of its range (a zigzag, as in piecewise approximation of time
//! series: Keogh et al., ICDM 2001). A segment goes over two edges and is compared, with equal length and variance, to
//! prototypes that move towards what joins them (leader clustering). Pairs that recur become one pattern of the next level
//! (Nevill-Manning and Witten, "Identifying Hierarchical Structure in Sequences", JAIR 7, 1997).

mod library;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::answer::{LibraryChanged, PatternMatch};
use crate::config::Hyperparameters;
use crate::math::{larger, smaller};
use crate::random::Random;

/// Points of a prototype.
const POINTS: usize = 16;
/// Levels above the samples.
const LEVELS_MAX: u8 = 8;
/// Matches in one answer.
const MATCHES_MAX: usize = 1_024;
/// How often a pair is seen before it is a pattern of its own.
const RECURS: u32 = 2;
/// A segment this much below the threshold is still just below it.
const NEAR: f32 = 0.85;
/// The range comes so much nearer to that of each signal within it.
const FADE: f32 = 0.01;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Prototype {
    id: u64,
    level: u8,
    support: u64,
    likeness: f64,
    curve: Vec<f32>,
    /// The pair that it is, from level 1 on.
    parts: Option<(u64, u64)>,
    /// The number of the signal in which it was found last.
    seen: u64,
}

/// How often a pair was seen, and the pattern that it became.
type Pairs = BTreeMap<(u64, u64), (u32, Option<u64>)>;

/// The library of a partition, its archive, and the range of its signals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patterns {
    /// By id.
    prototypes: Vec<Prototype>,
    /// Of patterns in the library only.
    pairs: Pairs,
    next_id: u64,
    range: Option<(f32, f32)>,
    /// Patterns that are kept and not found, by id.
    archive: Vec<Prototype>,
    /// What merged patterns have become.
    merged: BTreeMap<u64, u64>,
    /// Signals learned.
    signals: u64,
    /// The latest changes by their ids, oldest first.
    changes: VecDeque<(String, LibraryChanged)>,
}

/// A library of versions 1 and 2 of the snapshot, which had no archive.
#[derive(Deserialize)]
pub struct PatternsOf2 {
    prototypes: Vec<PrototypeOf2>,
    pairs: Pairs,
    next_id: u64,
    range: Option<(f32, f32)>,
}

#[derive(Deserialize)]
struct PrototypeOf2 {
    id: u64,
    level: u8,
    support: u64,
    likeness: f64,
    curve: Vec<f32>,
}

impl From<PatternsOf2> for Patterns {
    fn from(old: PatternsOf2) -> Self {
        let PatternsOf2 { prototypes, pairs, next_id, range } = old;
        let parts: BTreeMap<u64, (u64, u64)> =
            pairs.iter().filter_map(|(pair, (_, id))| id.map(|id| (id, *pair))).collect();
        let prototype = |PrototypeOf2 { id, level, support, likeness, curve }| Prototype {
            id,
            level,
            support,
            likeness,
            curve,
            parts: parts.get(&id).copied(),
            seen: 0,
        };
        let prototypes = prototypes.into_iter().map(prototype).collect();
        Self { prototypes, pairs, next_id, range, ..Self::default() }
    }
}

/// A pattern found at a place.
#[derive(Clone, Copy)]
struct Found {
    id: u64,
    start: usize,
    length: usize,
}

impl Patterns {
    /// Patterns in the library.
    pub fn len(&self) -> usize {
        self.prototypes.len()
    }

    /// Finds and learns the patterns of a signal.
    pub fn perceive(
        &mut self,
        signal: &[f32],
        parameters: &Hyperparameters,
        random: &mut Random,
        learn: bool,
    ) -> Vec<PatternMatch> {
        let mut matches = Vec::new();
        self.signals += u64::from(learn);
        let range = self.widen(signal, learn);
        let mut sequence = Vec::new();
        for (start, end) in segments(signal, parameters.edge_threshold * range) {
            let curve = normalise(&resample(&signal[start..end]));
            let Some((id, similarity, new)) = self.join(&curve, parameters, random, learn) else { continue };
            let (start, length) = (start, end - start);
            sequence.push(Found { id, start, length });
            push(
                &mut matches,
                PatternMatch { id, level: 0, start: start as u32, length: length as u32, similarity, new },
            );
        }
        for level in 1..=LEVELS_MAX {
            sequence = self.compress(&sequence, level, learn, &mut matches);
            if sequence.len() < 2 {
                break;
            }
        }
        self.limit(parameters.max_local_patterns);
        matches
    }

    /// The width of the range of the signals up to this one. It fades, and no signal more than doubles it: a single sample
    /// that is far out would hide every edge of the others.
    fn widen(&mut self, signal: &[f32], learn: bool) -> f32 {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for sample in signal {
            (low, high) = (smaller(low, *sample), larger(high, *sample));
        }
        if let Some(known) = self.range {
            let width = known.1 - known.0;
            let room = if width > 0.0 { width / 2.0 } else { f32::INFINITY };
            low = larger(smaller(low, known.0 + FADE * (low - known.0)), known.0 - room);
            high = smaller(larger(high, known.1 + FADE * (high - known.1)), known.1 + room);
        }
        if learn && low <= high {
            self.range = Some((low, high));
        }
        (high - low).max(f32::MIN_POSITIVE)
    }

    /// The prototype that a curve belongs to, how alike they are, and whether it was founded just now.
    fn join(
        &mut self,
        curve: &[f32],
        parameters: &Hyperparameters,
        random: &mut Random,
        learn: bool,
    ) -> Option<(u64, f32, bool)> {
        let mut best: Option<(usize, f32)> = None;
        for (place, prototype) in self.prototypes.iter().enumerate().filter(|(_, prototype)| prototype.level == 0) {
            let alike = similarity(&prototype.curve, curve);
            if best.is_none_or(|(_, most)| alike > most) {
                best = Some((place, alike));
            }
        }
        let threshold = parameters.cluster_threshold;
        match best {
            Some((place, alike)) if alike >= threshold => {
                let prototype = &mut self.prototypes[place];
                if learn {
                    prototype.support += 1;
                    prototype.likeness += f64::from(alike);
                    prototype.seen = self.signals;
                    for (point, new) in prototype.curve.iter_mut().zip(curve) {
                        *point += parameters.learning_rate * (new - *point);
                    }
                }
                Some((prototype.id, alike, false))
            }
            Some((place, alike))
                if alike >= threshold * NEAR && (!learn || random.unit() >= f64::from(parameters.exploration_rate)) =>
            {
                let prototype = &mut self.prototypes[place];
                if learn {
                    prototype.seen = self.signals;
                }
                Some((prototype.id, alike, false))
            }
            _ if learn => Some((self.found(0, curve.to_vec(), None), 1.0, true)),
            _ => None,
        }
    }

    fn found(&mut self, level: u8, curve: Vec<f32>, parts: Option<(u64, u64)>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.prototypes.push(Prototype { id, level, support: 1, likeness: 1.0, curve, parts, seen: self.signals });
        id
    }

    /// Replaces pairs that recur by patterns of `level`; the sequence of those.
    fn compress(&mut self, sequence: &[Found], level: u8, learn: bool, matches: &mut Vec<PatternMatch>) -> Vec<Found> {
        let mut next = Vec::new();
        let mut at = 0;
        while at + 1 < sequence.len() {
            let (first, second) = (sequence[at], sequence[at + 1]);
            let (id, new) = self.pair(first.id, second.id, level, learn);
            let Some(id) = id else {
                at += 1;
                continue;
            };
            let length = second.start + second.length - first.start;
            next.push(Found { id, start: first.start, length });
            push(
                matches,
                PatternMatch { id, level, start: first.start as u32, length: length as u32, similarity: 1.0, new },
            );
            at += 2;
        }
        next
    }

    fn pair(&mut self, first: u64, second: u64, level: u8, learn: bool) -> (Option<u64>, bool) {
        if !learn {
            return (self.pairs.get(&(first, second)).and_then(|(_, id)| *id), false);
        }
        let (count, known) = self.pairs.entry((first, second)).or_insert((0, None));
        *count = count.saturating_add(1);
        let (count, known) = (*count, *known);
        if let Some(id) = known {
            if let Some(place) = place(&self.prototypes, id) {
                let prototype = &mut self.prototypes[place];
                prototype.support += 1;
                prototype.likeness += 1.0;
                prototype.seen = self.signals;
            }
            return (Some(id), false);
        }
        if count < RECURS {
            return (None, false);
        }
        let half = |id: u64| -> Vec<f32> {
            let curve = place(&self.prototypes, id).map(|place| &self.prototypes[place].curve);
            curve.map(|curve| curve.iter().step_by(2).copied().collect()).unwrap_or_default()
        };
        let curve = [half(first), half(second)].concat();
        let id = self.found(level, curve, Some((first, second)));
        self.pairs.insert((first, second), (count, Some(id)));
        (Some(id), true)
    }

    pub fn bytes(&self) -> usize {
        (self.prototypes.len() + self.archive.len()) * (size_of::<Prototype>() + POINTS * 4)
            + (self.pairs.len() + self.merged.len()) * 40
    }
}

/// The place of an id among prototypes that are ordered by it.
fn place(prototypes: &[Prototype], id: u64) -> Option<usize> {
    prototypes.binary_search_by_key(&id, |prototype| prototype.id).ok()
}

fn push(matches: &mut Vec<PatternMatch>, found: PatternMatch) {
    if matches.len() < MATCHES_MAX {
        matches.push(found);
    }
}

/// Stretches over two turns each, a turn being a reversal by more than `edge`.
fn segments(signal: &[f32], edge: f32) -> Vec<(usize, usize)> {
    let mut turns = vec![0];
    let (mut low, mut high) = (0, 0);
    let mut rising: Option<bool> = None;
    for (place, sample) in signal.iter().enumerate() {
        if *sample > signal[high] {
            high = place;
        }
        if *sample < signal[low] {
            low = place;
        }
        if rising != Some(false) && signal[high] - sample > edge {
            if rising.is_some() || high > 0 {
                turns.push(high);
            }
            (rising, low, high) = (Some(false), place, place);
        } else if rising != Some(true) && sample - signal[low] > edge {
            if rising.is_some() || low > 0 {
                turns.push(low);
            }
            (rising, low, high) = (Some(true), place, place);
        }
    }
    turns.push(signal.len().saturating_sub(1));
    turns.dedup();
    turns.windows(3).step_by(2).map(|turn| (turn[0], turn[2] + 1)).filter(|(start, end)| end - start >= 3).collect()
}

/// The same curve with [`POINTS`] points.
fn resample(samples: &[f32]) -> Vec<f32> {
    let last = samples.len() - 1;
    (0..POINTS)
        .map(|point| {
            let place = point as f32 * last as f32 / (POINTS - 1) as f32;
            let (below, share) = (place as usize, place.fract());
            samples[below] + share * (samples[(below + 1).min(last)] - samples[below])
        })
        .collect()
}

/// Mean 0 and deviation 1; a flat curve stays flat.
fn normalise(curve: &[f32]) -> Vec<f32> {
    let mean = curve.iter().sum::<f32>() / curve.len() as f32;
    let deviation =
        (curve.iter().map(|point| (point - mean) * (point - mean)).sum::<f32>() / curve.len() as f32).sqrt();
    curve.iter().map(|point| if deviation > 0.0 { (point - mean) / deviation } else { 0.0 }).collect()
}

/// Correlation, 0 where it is negative.
fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let (mut product, mut left, mut right) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        product += a * b;
        left += a * a;
        right += b * b;
    }
    let norm = (left * right).sqrt();
    if norm > 0.0 { (product / norm).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::LibraryQuery;

    /// Noise with a saw-tooth planted at known places.
    fn planted(seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut random = Random::new(seed);
        let mut signal = Vec::new();
        let mut places = Vec::new();
        for _ in 0..30 {
            signal.extend((0..10 + random.below(10)).map(|_| random.unit() as f32 * 0.3));
            places.push(signal.len());
            signal.extend(
                (0..24).map(|step| if step < 20 { step as f32 / 2.0 } else { 10.0 - (step - 20) as f32 * 2.5 }),
            );
        }
        (signal, places)
    }

    #[test]
    fn a_planted_shape_becomes_one_pattern_that_is_found_again() {
        let mut patterns = Patterns::default();
        let mut random = Random::new(1);
        let parameters = Hyperparameters::default();
        patterns.perceive(&planted(2).0, &parameters, &mut random, true);
        let (signal, places) = planted(3);
        let found = patterns.perceive(&signal, &parameters, &mut random, true);
        let most = patterns.query(&LibraryQuery { limit: 1, ..LibraryQuery::default() })[0].summary.clone();
        let hits = places.iter().filter(|place| {
            found.iter().any(|hit| hit.id == most.id && (hit.start..hit.start + hit.length).contains(&(**place as u32)))
        });
        assert!(hits.count() >= 24, "{found:?}");
        assert!(most.support >= 48);
    }

    #[test]
    fn pairs_that_recur_are_patterns_of_the_next_level() {
        let mut patterns = Patterns::default();
        let (signal, _) = planted(4);
        let found = patterns.perceive(&signal, &Hyperparameters::default(), &mut Random::new(1), true);
        assert!(found.iter().any(|hit| hit.level > 0));
    }

    #[test]
    fn the_library_keeps_its_bound() {
        let mut patterns = Patterns::default();
        let mut random = Random::new(9);
        let parameters = Hyperparameters { max_local_patterns: 20, ..Hyperparameters::default() };
        for _ in 0..50 {
            let signal: Vec<f32> = (0..400).map(|_| random.unit() as f32).collect();
            patterns.perceive(&signal, &parameters, &mut random, true);
            assert!(patterns.len() <= 20 && patterns.pairs.len() <= 80 + 400);
        }
    }

    #[test]
    fn odd_signals_do_no_harm() {
        let mut patterns = Patterns::default();
        for signal in [vec![], vec![1.0], vec![1.0; 100], vec![f32::MAX, f32::MIN, f32::MAX]] {
            patterns.perceive(&signal, &Hyperparameters::default(), &mut Random::new(1), true);
        }
    }
}
