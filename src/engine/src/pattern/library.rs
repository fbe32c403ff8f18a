//! The library as people look after it: what is asked of it, what becomes one, what is set aside and comes back.
//!
//! Patterns are set aside by a change that says so, or, once they have recurred, when others need their room. In the archive
//! they keep their ids and what is known of them, but nothing is compared with them: a shape that recurs meanwhile becomes a
//! new pattern. The archive is as large as the library may be, and what has the least support leaves it first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::{Patterns, Prototype, RECURS, normalise, place, resample, similarity};
use crate::answer::{LibraryChanged, LibraryPattern, MergedPatterns, PatternSummary};
use crate::entry::{LibraryChange, LibraryQuery, LibraryState};

/// Patterns in one answer.
const QUERY_MAX: u32 = 10_000;
/// Ids in one change, and in its answer.
const IDS_MAX: usize = 1_000;
/// Changes that are remembered, so that one which comes twice is made once.
const CHANGES_MAX: usize = 16;
/// Remembered pairs for each pattern that may be kept.
const PAIRS_A_PATTERN: usize = 4;
/// Patterns that are compared with each other by one change: those with the most support.
const COMPARED_MAX: usize = 4_096;
/// Comparisons of one change: some tenths of a second, in which the partition answers nobody.
const COMPARISONS_MAX: usize = COMPARED_MAX * COMPARED_MAX;

impl Prototype {
    /// Takes in what another one is; the curve becomes the mean of what has joined the two.
    fn take_in(&mut self, other: &Self) {
        let support = self.support.saturating_add(other.support);
        let share = other.support as f32 / support as f32;
        for (point, new) in self.curve.iter_mut().zip(&other.curve) {
            *point += share * (new - *point);
        }
        self.support = support;
        self.likeness += other.likeness;
        self.seen = self.seen.max(other.seen);
    }

    fn confidence(&self) -> f32 {
        (self.likeness / self.support as f64) as f32
    }
}

/// Takes those with the least support out of too many, of equals the older; the newest are spared.
fn surplus(prototypes: &mut Vec<Prototype>, max: usize, spared: usize) -> Vec<Prototype> {
    let Some(last) = prototypes.len().checked_sub(max + 1) else { return Vec::new() };
    let elders = &prototypes[..prototypes.len() - spared.min(max)];
    let mut ranks: Vec<(u64, u64)> = elders.iter().map(|prototype| (prototype.support, prototype.id)).collect();
    let (_, least, _) = ranks.select_nth_unstable(last);
    let least = *least;
    let elders = ranks.len();
    prototypes.extract_if(..elders, |prototype| (prototype.support, prototype.id) <= least).collect()
}

impl Patterns {
    /// One that has found nothing, and goes on with the ids: no id ever stands for another pattern, and a change that comes
    /// twice is still made once.
    pub fn emptied(&self) -> Self {
        Self { next_id: self.next_id, changes: self.changes.clone(), ..Self::default() }
    }

    /// What is asked for.
    pub fn query(&self, query: &LibraryQuery) -> Vec<LibraryPattern> {
        let LibraryQuery { state, level, min_support, min_confidence, from, like, limit } = query;
        let active = (*state != LibraryState::Archived).then_some(&self.prototypes);
        let archived = (*state != LibraryState::Active).then_some(&self.archive);
        let like = like.as_ref().filter(|samples| !samples.is_empty()).map(|samples| normalise(&resample(samples)));
        let wanted = |prototype: &Prototype| {
            level.is_none_or(|level| prototype.level == level)
                && prototype.support >= *min_support
                && prototype.confidence() >= *min_confidence
                && (like.is_some()
                    || from.is_none_or(|(support, id)| {
                        (Reverse(support), id) <= (Reverse(prototype.support), prototype.id)
                    }))
        };
        let found = [(active, false), (archived, true)].into_iter().flat_map(|(prototypes, is_archived)| {
            prototypes.into_iter().flatten().map(move |prototype| (prototype, is_archived))
        });
        let mut found: Vec<(f32, &Prototype, bool)> = found
            .filter(|(prototype, _)| wanted(prototype))
            .map(|(prototype, is_archived)| {
                (like.as_ref().map_or(0.0, |like| similarity(&prototype.curve, like)), prototype, is_archived)
            })
            .collect();
        found.sort_by(|(alike_a, a, _), (alike_b, b, _)| {
            alike_b.total_cmp(alike_a).then(b.support.cmp(&a.support)).then(a.id.cmp(&b.id))
        });
        found.truncate((*limit).min(QUERY_MAX) as usize);
        let told = |(alike, prototype, archived): (f32, &Prototype, bool)| LibraryPattern {
            summary: PatternSummary {
                id: prototype.id,
                level: prototype.level,
                support: prototype.support,
                confidence: prototype.confidence(),
                prototype: prototype.curve.clone(),
            },
            archived,
            unseen_for: self.signals.saturating_sub(prototype.seen),
            similarity: like.is_some().then_some(alike),
        };
        found.into_iter().map(told).collect()
    }

    /// Makes a change, unless it was made before. `max` patterns may be in the library.
    ///
    /// # Errors
    /// What a change has to be, for one that isn't so; then nothing was done.
    pub fn change(&mut self, id: &str, change: &LibraryChange, max: u32) -> Result<LibraryChanged, &'static str> {
        if let Some((_, changed)) = self.changes.iter().find(|(known, _)| known == id) {
            return Ok(LibraryChanged { duplicate: true, ..changed.clone() });
        }
        let mut changed = match change {
            LibraryChange::Merge { ids } => self.merge(&self.asked(ids)?)?,
            LibraryChange::MergeAlike { similarity } if *similarity > 0.0 && *similarity <= 1.0 => {
                self.merge_alike(*similarity)
            }
            LibraryChange::MergeAlike { .. } => return Err("a similarity above 0 and at most 1"),
            LibraryChange::Archive { ids } => self.archive(self.asked(ids)?),
            LibraryChange::ArchiveRule { support_below: None, unseen_for: None } => {
                return Err("a rule that says which patterns to archive");
            }
            LibraryChange::ArchiveRule { support_below, unseen_for } => {
                let falls = |prototype: &&Prototype| {
                    support_below.is_none_or(|below| prototype.support < below)
                        && unseen_for.is_none_or(|signals| self.signals.saturating_sub(prototype.seen) >= signals)
                };
                let known = self.prototypes.iter().filter(falls).map(|prototype| prototype.id).collect();
                self.archive(Asked { known, ..Asked::default() })
            }
            LibraryChange::Restore { ids } => self.restore(self.asked(ids)?, max),
        };
        self.limit(max);
        changed.active = self.prototypes.len() as u64;
        changed.in_archive = self.archive.len() as u64;
        for ids in [&mut changed.archived, &mut changed.restored, &mut changed.unknown] {
            ids.truncate(IDS_MAX);
        }
        self.changes.push_back((id.to_owned(), changed.clone()));
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
        }
        Ok(changed)
    }

    /// The id that a pattern has now.
    fn present(&self, mut id: u64) -> u64 {
        while let Some(into) = self.merged.get(&id) {
            id = *into;
        }
        id
    }

    fn get(&self, id: u64) -> Option<&Prototype> {
        [&self.prototypes, &self.archive].into_iter().find_map(|list| place(list, id).map(|place| &list[place]))
    }

    fn asked(&self, ids: &[u64]) -> Result<Asked, &'static str> {
        if ids.len() > IDS_MAX {
            return Err("at most 1,000 ids at once");
        }
        let mut asked = Asked::default();
        for id in ids {
            let present = self.present(*id);
            if self.get(present).is_none() {
                asked.unknown.insert(*id);
                continue;
            }
            asked.known.insert(present);
            if present != *id {
                asked.former.insert(*id);
            }
        }
        Ok(asked)
    }

    /// Makes one of those that are asked for: of those in the library, if there is one, the one with the most support.
    fn merge(&mut self, asked: &Asked) -> Result<LibraryChanged, &'static str> {
        let rank = |id: &u64| {
            let support = self.get(*id).map_or(0, |prototype| prototype.support);
            (place(&self.prototypes, *id).is_some(), support, Reverse(*id))
        };
        let level = |id: &u64| self.get(*id).map(|prototype| prototype.level);
        let into = asked.known.iter().copied().max_by_key(rank);
        if asked.known.iter().any(|id| level(id) != into.as_ref().and_then(level)) {
            return Err("patterns of one level to merge");
        }
        let mut gone = Vec::new();
        for id in &asked.known {
            if let Some(into) = into
                && *id != into
            {
                self.fold(into, *id, &mut gone);
            }
        }
        self.rewire(&mut gone);
        let mut changed = self.told(&gone, &asked.former);
        changed.unknown.extend(&asked.unknown);
        Ok(changed)
    }

    /// Makes one of those in the library that are at least so alike, until no two of them are.
    fn merge_alike(&mut self, least: f32) -> LibraryChanged {
        let mut gone = Vec::new();
        let mut left = COMPARISONS_MAX;
        let mut complete = self.prototypes.len() <= COMPARED_MAX;
        loop {
            complete &= self.fold_alike(least, &mut left, &mut gone);
            if !self.rewire(&mut gone) || left == 0 {
                break;
            }
        }
        LibraryChanged { complete: complete && left > 0, ..self.told(&gone, &BTreeSet::new()) }
    }

    /// Leader clustering until nothing changes: whether `left` comparisons were enough.
    fn fold_alike(&mut self, least: f32, left: &mut usize, gone: &mut Vec<u64>) -> bool {
        let mut places: Vec<usize> = (0..self.prototypes.len()).collect();
        loop {
            places.sort_by_key(|place| {
                let Prototype { support, id, .. } = self.prototypes[*place];
                (Reverse(support), id)
            });
            places.truncate(COMPARED_MAX);
            let mut leaders: Vec<usize> = Vec::new();
            for place in &places {
                let Some(rest) = left.checked_sub(leaders.len()) else {
                    *left = 0;
                    return false;
                };
                *left = rest;
                let one = &self.prototypes[*place];
                let mut best: Option<(usize, f32)> = None;
                for leader in &leaders {
                    let other = &self.prototypes[*leader];
                    let alike = if other.level == one.level { similarity(&other.curve, &one.curve) } else { 0.0 };
                    if alike >= least && best.is_none_or(|(_, most)| alike > most) {
                        best = Some((*leader, alike));
                    }
                }
                match best {
                    Some((leader, _)) => {
                        let (into, id) = (self.prototypes[leader].id, one.id);
                        self.fold(into, id, gone);
                    }
                    None => leaders.push(*place),
                }
            }
            if leaders.len() == places.len() {
                return true;
            }
            places = leaders;
        }
    }

    /// Has a pattern take in another, which stays where it is until [`Patterns::rewire`].
    fn fold(&mut self, into: u64, id: u64, gone: &mut Vec<u64>) {
        let Some(other) = self.get(id).cloned() else { return };
        let list = if place(&self.prototypes, into).is_some() { &mut self.prototypes } else { &mut self.archive };
        let Some(place) = place(list, into) else { return };
        list[place].take_in(&other);
        self.merged.insert(id, into);
        gone.push(id);
    }

    /// Has pairs, and the patterns that they became, follow what was merged: whether by that pairs became the same, and with
    /// them their patterns.
    fn rewire(&mut self, gone: &mut Vec<u64>) -> bool {
        let before = gone.len();
        loop {
            let mut same = Vec::new();
            for (pair, (count, id)) in mem::take(&mut self.pairs) {
                let (pair, id) = ((self.present(pair.0), self.present(pair.1)), id.map(|id| self.present(id)));
                let (known_count, known) = self.pairs.entry(pair).or_insert((0, id));
                *known_count = known_count.saturating_add(count);
                match (*known, id) {
                    (Some(known), Some(id)) if known != id => same.push((known, id)),
                    (None, Some(_)) => *known = id,
                    _ => {}
                }
            }
            if same.is_empty() {
                break;
            }
            for (one, other) in same {
                let (one, other) = (self.present(one), self.present(other));
                let rank = |id: u64| (self.get(id).map_or(0, |prototype| prototype.support), Reverse(id));
                let (into, id) = if rank(one) > rank(other) { (one, other) } else { (other, one) };
                if into != id {
                    self.fold(into, id, gone);
                }
            }
        }
        let merged = mem::take(&mut self.merged);
        for list in [&mut self.prototypes, &mut self.archive] {
            list.retain(|prototype| !merged.contains_key(&prototype.id));
        }
        self.merged = merged;
        let present = self.merged.keys().map(|id| (*id, self.present(*id))).collect();
        self.merged = present;
        for prototype in self.prototypes.iter_mut().chain(&mut self.archive) {
            if let Some((first, second)) = &mut prototype.parts {
                // One step, as every id now tells the present one.
                for part in [first, second] {
                    *part = self.merged.get(part).copied().unwrap_or(*part);
                }
            }
        }
        self.link();
        gone.len() > before
    }

    /// What was merged, and what had been before.
    fn told(&self, gone: &[u64], former: &BTreeSet<u64>) -> LibraryChanged {
        let mut groups: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let ids: BTreeSet<u64> = gone.iter().chain(former).copied().collect();
        for id in ids.iter().take(IDS_MAX) {
            groups.entry(self.present(*id)).or_default().push(*id);
        }
        LibraryChanged {
            changed: gone.len() as u64,
            merged: groups.into_iter().map(|(into, from)| MergedPatterns { into, from }).collect(),
            complete: true,
            ..LibraryChanged::default()
        }
    }

    fn archive(&mut self, asked: Asked) -> LibraryChanged {
        let before = self.archive.len();
        self.archive.extend(self.prototypes.extract_if(.., |prototype| asked.known.contains(&prototype.id)));
        let changed = (self.archive.len() - before) as u64;
        self.archive.sort_by_key(|prototype| prototype.id);
        self.unlink();
        let archived = asked.known.into_iter().collect();
        let unknown = asked.unknown.into_iter().collect();
        LibraryChanged { changed, archived, unknown, complete: true, ..LibraryChanged::default() }
    }

    /// Where there is no room for all, those with the least support give way; those that came back, too.
    fn restore(&mut self, asked: Asked, max: u32) -> LibraryChanged {
        let back = self.archive.extract_if(.., |prototype| asked.known.contains(&prototype.id));
        let back: Vec<Prototype> = back.collect();
        let active: BTreeSet<u64> = self.prototypes.iter().map(|prototype| prototype.id).collect();
        self.prototypes.extend(back);
        self.prototypes.sort_by_key(|prototype| prototype.id);
        let given_way = surplus(&mut self.prototypes, max.max(1) as usize, 0);
        let archived: Vec<u64> =
            given_way.iter().map(|prototype| prototype.id).filter(|id| active.contains(id)).collect();
        self.archive.extend(given_way);
        self.archive.sort_by_key(|prototype| prototype.id);
        self.unlink();
        self.link();
        let is_active = |id: &u64| place(&self.prototypes, *id).is_some();
        let restored: Vec<u64> = asked.known.into_iter().filter(is_active).collect();
        let came_back = restored.iter().filter(|id| !active.contains(id)).count();
        let unknown = asked.unknown.into_iter().collect();
        let changed = (came_back + archived.len()) as u64;
        LibraryChanged { changed, archived, restored, unknown, complete: true, ..LibraryChanged::default() }
    }

    /// Forgets the pairs of which one isn't in the library any more.
    fn unlink(&mut self) {
        let Self { prototypes, pairs, .. } = self;
        let active = |id: u64| place(prototypes, id).is_some();
        pairs.retain(|(first, second), (_, id)| active(*first) && active(*second) && id.is_none_or(active));
    }

    /// Has the pairs that patterns of the library are lead to them, unless they have become another one.
    fn link(&mut self) {
        for prototype in &self.prototypes {
            let Some((first, second)) = prototype.parts else { continue };
            if [first, second].iter().all(|part| place(&self.prototypes, *part).is_some()) {
                let (_, id) = self.pairs.entry((first, second)).or_insert((RECURS, None));
                id.get_or_insert(prototype.id);
            }
        }
    }

    /// Keeps the patterns with the most support; of equals the newer. The newest eighth stays in any case: in a full library a
    /// new shape could never come up to the others. What has recurred goes into the archive, which has the
    /// same bound.
    pub fn limit(&mut self, max: u32) {
        let max = max.max(1) as usize;
        let given_way = surplus(&mut self.prototypes, max, max / 8);
        if !given_way.is_empty() {
            let recurred = given_way.into_iter().filter(|prototype| prototype.support >= u64::from(RECURS));
            self.archive.extend(recurred);
            self.archive.sort_by_key(|prototype| prototype.id);
            self.unlink();
        }
        surplus(&mut self.archive, max, 0);
        let most = max * PAIRS_A_PATTERN;
        if self.pairs.len() > most {
            self.pairs.retain(|_, (_, id)| id.is_some());
        }
        // Only pairs that became patterns which were merged can be more than there are patterns.
        while self.pairs.len() > most {
            self.pairs.pop_first();
        }
        while self.merged.len() > max {
            self.merged.pop_first();
        }
    }
}

/// Ids that are asked for.
#[derive(Default)]
struct Asked {
    /// Patterns, by their present ids.
    known: BTreeSet<u64>,
    /// Ids that stand for one of them, since they were merged.
    former: BTreeSet<u64>,
    /// Ids that no pattern has.
    unknown: BTreeSet<u64>,
}
