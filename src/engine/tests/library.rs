//! What people do to a library of patterns: it keeps its bounds, loses no support, and comes to the same when it is done twice.

#![expect(clippy::panic, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;

use hebb_engine::{
    Answer, Control, Entry, EntryId, Event, Hyperparameters, Input, LibraryChange, LibraryChanged, LibraryPattern,
    LibraryQuery, LibraryState, Outcome, Partition, PartitionConfig, Query, Rejection, Task,
};
use proptest::prelude::*;

/// A partition, and how many entries it has got.
struct Library(Partition, u64);

impl Library {
    fn new(max_local_patterns: u32) -> Self {
        Self::with(Hyperparameters { max_local_patterns, ..Hyperparameters::default() })
    }

    fn with(hyperparameters: Hyperparameters) -> Self {
        Self(Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Patterns) }), 0)
    }

    fn apply(&mut self, entry: &Entry) -> Outcome {
        self.1 += 1;
        self.0.apply(EntryId { at_ms: self.1, seq: 0 }, entry)
    }

    fn perceive(&mut self, signal: &[f32]) -> Answer {
        let event = Event { id: self.1.to_string().into(), input: Input::Signal(signal.to_vec()), label: None };
        let Outcome::Answer(answer) = self.apply(&Entry::Event(event)) else { panic!("an answer") };
        answer
    }

    fn change(&mut self, change: LibraryChange) -> LibraryChanged {
        let id = self.1.to_string();
        let outcome = self.apply(&Entry::Control(Control::Library { id: id.into(), change }));
        let Outcome::LibraryChanged(changed) = outcome else { panic!("{outcome:?}") };
        *changed
    }

    fn query(&mut self, query: LibraryQuery) -> Vec<LibraryPattern> {
        let Outcome::Library(found) = self.apply(&Entry::Query(Query::Library(query))) else { panic!("patterns") };
        found
    }

    fn all(&mut self) -> Vec<LibraryPattern> {
        self.query(LibraryQuery { state: LibraryState::All, limit: 10_000, ..LibraryQuery::default() })
    }

    fn support(&mut self) -> u64 {
        self.all().iter().map(|pattern| pattern.summary.support).sum()
    }
}

/// Teeth of these heights and widths, one after the other.
fn teeth(teeth: &[(f32, usize, usize)]) -> Vec<f32> {
    let tooth = |(height, up, down): &(f32, usize, usize)| {
        let (height, up, down) = (*height, *up, *down);
        let rise = (0..up).map(move |step| height * step as f32 / up as f32);
        rise.chain((0..down).map(move |step| height * (1.0 - step as f32 / down as f32)))
    };
    teeth.iter().flat_map(tooth).chain([0.0]).collect()
}

/// A slow rise with a sudden fall, and the other way round.
fn rises_and_falls() -> (Vec<f32>, Vec<f32>) {
    (teeth(&[(1.0, 20, 2); 8]), teeth(&[(1.0, 2, 20); 8]))
}

fn signal() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((0.3f32..1.0, 2usize..16, 2usize..16), 1..8).prop_map(|shapes| teeth(&shapes))
}

fn change() -> impl Strategy<Value = LibraryChange> {
    let ids = || prop::collection::vec(0u64..40, 0..8);
    prop_oneof![
        ids().prop_map(|ids| LibraryChange::Merge { ids }),
        (0.6f32..1.0).prop_map(|similarity| LibraryChange::MergeAlike { similarity }),
        ids().prop_map(|ids| LibraryChange::Archive { ids }),
        (1u64..4).prop_map(|below| LibraryChange::ArchiveRule { support_below: Some(below), unseen_for: None }),
        (1u64..9).prop_map(|signals| LibraryChange::ArchiveRule { support_below: None, unseen_for: Some(signals) }),
        ids().prop_map(|ids| LibraryChange::Restore { ids }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_done_bounds_hold_no_support_is_lost_and_doing_it_again_does_nothing(
        steps in prop::collection::vec((signal(), prop::option::of(change())), 1..40), max in 4u32..40
    ) {
        let mut library = Library::new(max);
        for (signal, change) in steps {
            let perceived = library.perceive(&signal);
            let present: BTreeSet<u64> = library.all().iter().map(|pattern| pattern.summary.id).collect();
            let gone = perceived.patterns.iter().filter(|found| !present.contains(&found.id)).count();
            prop_assert!(gone == 0 || present.len() >= max as usize, "only what gave way isn't there");
            let Some(change) = change else { continue };
            let before = library.support();
            let outcome = library.apply(&Entry::Control(Control::Library { id: format!("once{}", library.1).into(), change: change.clone() }));
            let changed = match outcome {
                Outcome::LibraryChanged(changed) => changed,
                Outcome::Rejected(Rejection::WrongInput { .. }) => continue,
                other => panic!("{other:?}"),
            };
            let all = library.all();
            let archived = all.iter().filter(|pattern| pattern.archived).count();
            prop_assert!(archived <= max as usize && all.len() - archived <= max as usize);
            prop_assert_eq!((changed.active, changed.in_archive), ((all.len() - archived) as u64, archived as u64));
            let ids: BTreeSet<u64> = all.iter().map(|pattern| pattern.summary.id).collect();
            prop_assert_eq!(ids.len(), all.len(), "an id is one pattern's");
            if archived < max as usize {
                prop_assert_eq!(library.support(), before, "{:?}", change);
            }
            for merged in &changed.merged {
                prop_assert!(ids.contains(&merged.into) && merged.from.iter().all(|id| !ids.contains(id)));
            }
            // The same again under another id: it finds nothing left to do.
            let again = library.change(change.clone());
            if !matches!(change, LibraryChange::Restore { .. }) {
                prop_assert_eq!(again.changed, 0, "{:?} {:?}", change, again);
                prop_assert_eq!(library.all(), all);
            }
        }
    }

    #[test]
    fn patterns_that_are_merged_are_told_by_the_one_that_is_left(
        signals in prop::collection::vec(signal(), 4..20), similarity in 0.75f32..0.95
    ) {
        let mut library = Library::new(1_000);
        for signal in &signals {
            library.perceive(signal);
        }
        let changed = library.change(LibraryChange::MergeAlike { similarity });
        prop_assert!(changed.complete);
        let gone: BTreeSet<u64> = changed.merged.iter().flat_map(|merged| merged.from.clone()).collect();
        prop_assert_eq!(gone.len() as u64, changed.changed);
        for signal in &signals {
            let found = library.perceive(signal).patterns;
            prop_assert!(found.iter().all(|found| !gone.contains(&found.id)));
        }
    }

    #[test]
    fn pages_have_every_pattern_once_and_in_order(signals in prop::collection::vec(signal(), 1..20), limit in 1u32..6) {
        let mut library = Library::new(1_000);
        for signal in &signals {
            library.perceive(signal);
        }
        let mut pages = Vec::new();
        let mut from = None;
        loop {
            let query = LibraryQuery { state: LibraryState::All, limit, from, ..LibraryQuery::default() };
            let page = library.query(query);
            let Some(last) = page.last() else { break };
            from = Some((last.summary.support, last.summary.id + 1));
            pages.extend(page);
        }
        prop_assert_eq!(pages, library.all());
    }
}

#[test]
fn a_pattern_in_the_archive_is_kept_and_not_found_and_found_again_when_it_is_back() {
    let (rising, falling) = rises_and_falls();
    let mut library = Library::new(100);
    library.perceive(&rising);
    let id = library.perceive(&rising).patterns[0].id;
    let other = library.perceive(&falling).patterns.last().map(|found| found.id).unwrap();
    assert_ne!(id, other);
    let before = library.all();

    let changed = library.change(LibraryChange::Archive { ids: vec![id, 999] });
    assert_eq!((changed.changed, &changed.archived, &changed.unknown), (1, &vec![id], &vec![999]));
    let archived = library.query(LibraryQuery { state: LibraryState::Archived, limit: 9, ..LibraryQuery::default() });
    assert_eq!(archived.iter().map(|pattern| pattern.summary.id).collect::<Vec<_>>(), [id]);
    let Outcome::Answer(asked) = library.apply(&Entry::Infer(Input::Signal(rising.clone()))) else {
        panic!("an answer")
    };
    assert!(asked.patterns.iter().all(|found| found.id != id), "{:?}", asked.patterns);

    let changed = library.change(LibraryChange::Restore { ids: vec![id] });
    assert_eq!((changed.changed, changed.restored), (1, vec![id]));
    assert_eq!(library.all(), before);
    let found = library.perceive(&rising).patterns;
    assert!(found.iter().any(|found| found.id == id && !found.new));
    // Pairs of it are known again, too.
    assert!(found.iter().any(|found| found.level > 0 && !found.new), "{found:?}");
}

#[test]
fn merged_pairs_are_one_pattern_of_the_next_level_with_the_support_of_both() {
    // Narrow enough to tell apart what has a mean that is like both.
    let narrow = Hyperparameters { cluster_threshold: 0.85, exploration_rate: 1.0, ..Hyperparameters::default() };
    let mut library = Library::with(narrow);
    let (late, early) = ((1.0, 20, 2), (1.0, 15, 7));
    let both = teeth(&[late, late, early, early, late, late, early]);
    for _ in 0..6 {
        library.perceive(&both);
    }
    let before = library.all();
    let of_level = |patterns: &[LibraryPattern], level: u8| -> Vec<(u64, u64)> {
        let of = patterns.iter().filter(|pattern| pattern.summary.level == level);
        of.map(|pattern| (pattern.summary.id, pattern.summary.support)).collect()
    };
    let (ground, pairs) = (of_level(&before, 0), of_level(&before, 1));
    assert!(ground.len() >= 2 && pairs.len() >= 2, "{ground:?} {pairs:?}");
    let ids: Vec<u64> = ground.iter().map(|(id, _)| *id).collect();
    let changed = library.change(LibraryChange::Merge { ids: ids.clone() });
    let after = library.all();
    assert_eq!(of_level(&after, 0), [(ids[0], ground.iter().map(|(_, support)| support).sum())]);
    // What were different pairs are now the same one.
    assert_eq!(of_level(&after, 1), [(pairs[0].0, pairs.iter().map(|(_, support)| support).sum())]);
    assert!(changed.changed >= 2);
    let found = library.perceive(&both).patterns;
    assert!(found.iter().all(|found| found.level > 1 || [ids[0], pairs[0].0].contains(&found.id)), "{found:?}");
    // A former id stands for the one that is left.
    let changed = library.change(LibraryChange::Archive { ids: vec![ids[1]] });
    assert_eq!(changed.archived, [ids[0]]);
}

#[test]
fn a_change_that_comes_twice_is_made_once_and_answered_as_the_first_time() {
    let (rising, _) = rises_and_falls();
    let mut library = Library::new(100);
    library.perceive(&rising);
    let archive = Entry::Control(Control::Library {
        id: "change".into(),
        change: LibraryChange::ArchiveRule { support_below: Some(u64::MAX), unseen_for: None },
    });
    let Outcome::LibraryChanged(first) = library.apply(&archive) else { panic!("a change") };
    assert!(first.changed > 0 && first.active == 0);
    library.change(LibraryChange::Restore { ids: first.archived.clone() });
    let before = library.all();
    let Outcome::LibraryChanged(again) = library.apply(&archive) else { panic!("a change") };
    assert!(again.duplicate && !first.duplicate);
    assert_eq!(LibraryChanged { duplicate: false, ..*again }, *first);
    assert_eq!(library.all(), before);
}

#[test]
fn what_has_recurred_goes_into_the_archive_when_others_need_its_room() {
    let mut library = Library::new(2);
    let (rising, falling) = rises_and_falls();
    library.perceive(&rising[..65]);
    let first = library.all();
    for _ in 0..40 {
        library.perceive(&falling);
    }
    let all = library.all();
    let archived: BTreeSet<u64> =
        all.iter().filter(|pattern| pattern.archived).map(|pattern| pattern.summary.id).collect();
    let recurred = first.iter().filter(|pattern| pattern.summary.support > 1).map(|pattern| pattern.summary.id);
    assert!(recurred.clone().count() > 0 && recurred.into_iter().any(|id| archived.contains(&id)), "{all:?}");
    assert!(all.iter().filter(|pattern| pattern.archived).all(|pattern| pattern.summary.support > 1));
}

#[test]
fn a_shape_finds_the_patterns_that_are_like_it() {
    let (rising, falling) = rises_and_falls();
    let mut library = Library::new(100);
    library.perceive(&rising);
    library.perceive(&falling);
    let like = |library: &mut Library, shape: &[f32]| {
        library.query(LibraryQuery { like: Some(shape.to_vec()), level: Some(0), limit: 1, ..LibraryQuery::default() })
    };
    let (a, b) = (like(&mut library, &rising[..23]), like(&mut library, &falling[..23]));
    assert!(a[0].similarity > Some(0.9) && b[0].similarity > Some(0.9));
    assert_ne!(a[0].summary.id, b[0].summary.id);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (rising, _) = rises_and_falls();
    let mut library = Library::new(100);
    library.perceive(&rising);
    library.perceive(&rising);
    let before = library.all();
    let levels: Vec<u64> = before.iter().map(|pattern| pattern.summary.id).collect();
    assert!(before.iter().any(|pattern| pattern.summary.level > 0));
    for change in [
        LibraryChange::Merge { ids: levels },
        LibraryChange::MergeAlike { similarity: 0.0 },
        LibraryChange::MergeAlike { similarity: f32::NAN },
        LibraryChange::ArchiveRule { support_below: None, unseen_for: None },
        LibraryChange::Archive { ids: (0..2_000).collect() },
    ] {
        let outcome = library.apply(&Entry::Control(Control::Library { id: "x".into(), change }));
        assert!(matches!(outcome, Outcome::Rejected(Rejection::WrongInput { .. })), "{outcome:?}");
    }
    assert_eq!(library.all(), before);
}

#[test]
fn a_full_library_knows_a_new_shape_when_it_has_come_often() {
    let settings = Hyperparameters {
        max_local_patterns: 400,
        cluster_threshold: 0.95,
        exploration_rate: 0.0,
        ..Hyperparameters::default()
    };
    let mut library = Library::with(settings);
    let mut seed = 1u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    };
    for _ in 0..40 {
        let signal: Vec<f32> = (0..4_000).map(|_| noise() + noise() + noise()).collect();
        library.perceive(&signal);
    }
    let everything = LibraryQuery { limit: 1_000, ..LibraryQuery::default() };
    let recur = library.query(everything).iter().filter(|pattern| pattern.summary.support > 1).count();
    assert!(recur >= 300, "{recur} of 400 recur");
    let beat: Vec<f32> = (0..46u8)
        .map(|place| {
            let x = (f32::from(place) - 3.0) / 40.0;
            let bump = |at: f32, width: f32| (-((x - at) / width).powi(2)).exp();
            3.0 * bump(0.3, 0.05) - 1.5 * bump(0.45, 0.03) + 0.8 * bump(0.75, 0.1)
        })
        .collect();
    let new: Vec<usize> =
        (0..20).map(|_| library.perceive(&beat).patterns.iter().filter(|pattern| pattern.new).count()).collect();
    assert!(new.iter().any(|new| *new > 0) && new[10..].iter().all(|new| *new == 0), "{new:?}");
}
