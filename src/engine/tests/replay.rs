//! What everything else rests on: a state after a crash, restored and replayed, equals the state without one, byte by byte.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use hebb_engine::{
    Control, Entry, EntryId, Event, Features, FeedbackOutcome, GateMode, Governance, Hyperparameters, Input, Label,
    LibraryChange, LibraryQuery, LibraryState, NUMBER_MAX, Outcome, Partition, PartitionConfig, Prediction, Query,
    Rhythm, SnapshotError, Task, Thresholds, Value, event_digest,
};
use proptest::prelude::*;

/// Small numbers, and large ones that vary by little.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -10.0f64..10.0, 2 => 1.7e12f64..1.7e12 + 1e5]
}

fn label(task: Task) -> BoxedStrategy<Label> {
    match task {
        Task::Regression => number().prop_map(Label::Number).boxed(),
        Task::Governed => (-0.1f64..1.1).prop_map(Label::Number).boxed(),
        _ => {
            prop_oneof![9 => (0u8..4).prop_map(|class| Label::Class(class.to_string().into())), 1 => Just(Label::Number(1.0))]
                .boxed()
        }
    }
}

fn input(task: Task) -> BoxedStrategy<Input> {
    let value = prop_oneof![
        6 => number().prop_map(Value::Number),
        2 => "[a-c]".prop_map(Value::Text),
        1 => Just(Value::Missing),
        1 => Just(Value::Number(f64::NAN)),
    ];
    let features = prop_oneof![
        prop::collection::vec(number(), 1..6).prop_map(Features::Dense),
        prop::collection::vec(("[p-s]", value), 1..5).prop_map(Features::Named),
    ];
    let signal = prop::collection::vec(-1.0f32..1.0, 0..80).prop_map(Input::Signal);
    match task {
        Task::Governed => {
            let vector = prop::collection::vec((-3i8..3).prop_map(f64::from), 2..=2);
            let vector = vector.prop_map(|values| Input::Features(Features::Dense(values)));
            prop_oneof![1 => signal, 2 => features.prop_map(Input::Features), 17 => vector].boxed()
        }
        Task::Patterns => prop_oneof![9 => signal, 1 => features.prop_map(Input::Features)].boxed(),
        Task::TimeSeriesClassification => {
            let channels = (1usize..4, 1usize..60)
                .prop_flat_map(|(count, length)| {
                    let channel = prop::collection::vec(-1.0f32..1.0, length..=length);
                    prop::collection::vec(channel, count..=count)
                })
                .prop_map(Input::Channels);
            prop_oneof![16 => signal, 3 => channels, 1 => features.prop_map(Input::Features)].boxed()
        }
        _ => prop_oneof![1 => signal, 19 => features.prop_map(Input::Features)].boxed(),
    }
}

/// A change of the library, sometimes one that isn't possible or was made before.
fn library_change() -> impl Strategy<Value = Entry> {
    let ids = || prop::collection::vec(0u64..30, 0..6);
    let change = prop_oneof![
        3 => ids().prop_map(|ids| LibraryChange::Merge { ids }),
        2 => (-0.1f32..1.1).prop_map(|similarity| LibraryChange::MergeAlike { similarity }),
        3 => ids().prop_map(|ids| LibraryChange::Archive { ids }),
        2 => (prop::option::of(0u64..5), prop::option::of(0u64..30))
            .prop_map(|(support_below, unseen_for)| LibraryChange::ArchiveRule { support_below, unseen_for }),
        3 => ids().prop_map(|ids| LibraryChange::Restore { ids }),
    ];
    (0u8..40, change).prop_map(|(id, change)| Entry::Control(Control::Library { id: id.to_string().into(), change }))
}

/// Rhythms and thresholds, some of which can't be.
fn governance() -> impl Strategy<Value = Entry> {
    (0u8..4, 0u8..4, prop::array::uniform4(-0.1f64..1.0)).prop_map(|(wake, sleep, [least, initial, room, target])| {
        let admission = Thresholds {
            initial_threshold: initial,
            min_threshold: initial.min(least),
            max_threshold: (initial + room).min(1.0),
            target_acceptance: target,
        };
        Entry::Control(Control::Govern(Governance { rhythm: Rhythm { wake, sleep }, admission }))
    })
}

fn entry(task: Task) -> impl Strategy<Value = Entry> {
    let id = (0u16..60).prop_map(|number| number.to_string());
    let parameters = (1u32..40, 1u32..60, 0u8..3).prop_map(move |(memory, horizon, gate)| {
        let gate_mode = [GateMode::Always, GateMode::Uncertain, GateMode::Confident][usize::from(gate)];
        let hyperparameters = Hyperparameters {
            memory_max_vectors: memory,
            horizon_events: horizon,
            cold_start_experiences: 10,
            max_local_patterns: memory,
            gate_mode,
            ..Hyperparameters::default()
        };
        Entry::Control(Control::Configure(PartitionConfig { task, hyperparameters, seed: 1 }))
    });
    prop_oneof![
        20 => (id.clone(), input(task), prop::option::of(label(task)))
            .prop_map(|(id, input, label)| Entry::Event(Event { id: id.into(), input, label })),
        5 => (id.clone(), label(task)).prop_map(|(id, label)| Entry::Feedback { id: id.into(), label }),
        2 => input(task).prop_map(Entry::Infer),
        1 => Just(Entry::Query(Query::Statistics)),
        1 => Just(Entry::Query(Query::Governor)),
        1 => Just(Entry::Query(Query::Library(LibraryQuery {
            state: LibraryState::All, limit: 50, like: Some(vec![0.0, 1.0, 0.0]), ..LibraryQuery::default()
        }))),
        if task == Task::Patterns { 6 } else { 1 } => library_change(),
        if task == Task::Governed { 3 } else { 1 } => governance(),
        1 => id.prop_map(|id| Entry::Query(Query::Event { id: id.into() })),
        1 => parameters,
        1 => Just(Entry::Control(Control::Reset)),
        3 => Just(Entry::Control(Control::Cycle)),
        1 => (0u32..30).prop_map(|cycles| Entry::Control(Control::Boost { cycles })),
        1 => Just(Entry::Control(Control::ResetMeta)),
        1 => Just(Entry::Control(Control::Configure(PartitionConfig::new(Task::Regression)))),
    ]
}

fn at(place: usize) -> EntryId {
    EntryId { at_ms: place as u64 + 1, seq: 0 }
}

fn check(task: Task, entries: &[Entry], crashes: &[prop::sample::Index], checkpoints: &[prop::sample::Index]) {
    let mut steady = Partition::new(PartitionConfig::new(task));
    let outcomes: Vec<Outcome> =
        entries.iter().enumerate().map(|(place, entry)| steady.apply(at(place), entry)).collect();

    let crashes: Vec<usize> = crashes.iter().map(|index| index.index(entries.len())).collect();
    let checkpoints: Vec<usize> = checkpoints.iter().map(|index| index.index(entries.len())).collect();
    let mut partition = Partition::new(PartitionConfig::new(task));
    let mut stored = (0, partition.snapshot());
    for place in 0..entries.len() {
        // The entry passes through the log as bytes.
        let entry = Entry::decode(&entries[place].encode()).unwrap();
        assert_eq!(format!("{:?}", partition.apply(at(place), &entry)), format!("{:?}", outcomes[place]));
        if checkpoints.contains(&place) {
            stored = (place + 1, partition.snapshot());
        }
        if crashes.contains(&place) {
            partition = Partition::restore(&stored.1).unwrap();
            assert_eq!(partition.snapshot(), stored.1);
            for (replayed, entry) in entries.iter().enumerate().take(place + 1).skip(stored.0) {
                let outcome = partition.apply(at(replayed), entry);
                assert_eq!(format!("{outcome:?}"), format!("{:?}", outcomes[replayed]));
            }
        }
    }
    assert!(partition.snapshot() == steady.snapshot(), "the replayed state differs");
}

/// What a copy answers beside the log is what the log would have had answered, and leaves no trace.
fn check_peeks(task: Task, entries: &[Entry]) {
    let mut partition = Partition::new(PartitionConfig::new(task));
    for (place, entry) in entries.iter().enumerate() {
        let before = partition.snapshot();
        let peeked = partition.peek(entry);
        assert!(partition.snapshot() == before, "{entry:?} left a trace");
        let Some(peeked) = peeked else {
            partition.apply(at(place), entry);
            continue;
        };
        let mut logged = partition.clone();
        let logged = logged.apply(at(place), entry);
        // The position and the count of entries are all that a read in the log changes.
        if !matches!(logged, Outcome::Statistics(_)) {
            assert_eq!(format!("{peeked:?}"), format!("{logged:?}"));
        }
        partition.apply(at(place), entry);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_classification_replays_byte_for_byte(
        entries in prop::collection::vec(entry(Task::Classification), 1..250),
        crashes in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        checkpoints in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(Task::Classification, &entries, &crashes, &checkpoints);
    }

    #[test]
    fn a_regression_replays_byte_for_byte(
        entries in prop::collection::vec(entry(Task::Regression), 1..200),
        crashes in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        checkpoints in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(Task::Regression, &entries, &crashes, &checkpoints);
    }

    #[test]
    fn patterns_replay_byte_for_byte(
        entries in prop::collection::vec(entry(Task::Patterns), 1..120),
        crashes in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        checkpoints in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(Task::Patterns, &entries, &crashes, &checkpoints);
    }

    #[test]
    fn a_governed_memory_replays_byte_for_byte(
        entries in prop::collection::vec(entry(Task::Governed), 1..250),
        crashes in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        checkpoints in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(Task::Governed, &entries, &crashes, &checkpoints);
    }

    #[test]
    fn a_classification_of_signals_replays_byte_for_byte(
        entries in prop::collection::vec(entry(Task::TimeSeriesClassification), 1..140),
        crashes in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        checkpoints in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(Task::TimeSeriesClassification, &entries, &crashes, &checkpoints);
    }

    #[test]
    fn a_read_beside_the_log_is_answered_as_in_it_and_leaves_no_trace(
        classes in prop::collection::vec(entry(Task::Classification), 1..80),
        numbers in prop::collection::vec(entry(Task::Regression), 1..80),
        signals in prop::collection::vec(entry(Task::Patterns), 1..60),
        vectors in prop::collection::vec(entry(Task::Governed), 1..80),
        whole in prop::collection::vec(entry(Task::TimeSeriesClassification), 1..40),
    ) {
        check_peeks(Task::Classification, &classes);
        check_peeks(Task::Regression, &numbers);
        check_peeks(Task::Patterns, &signals);
        check_peeks(Task::Governed, &vectors);
        check_peeks(Task::TimeSeriesClassification, &whole);
    }

    #[test]
    fn a_damaged_snapshot_is_refused(place in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>()) {
        let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
        for number in 0..200usize {
            partition.apply(at(number), &labelled(number, number as f64 % 7.0));
        }
        let snapshot = partition.snapshot();
        let mut damaged = snapshot.clone();
        damaged[place.index(snapshot.len())] ^= flip;
        prop_assert!(Partition::restore(&damaged).is_err());
        prop_assert!(Partition::restore(&snapshot[..cut.index(snapshot.len())]).is_err());
    }

    #[test]
    fn the_digest_is_that_of_the_distinct_ids_in_any_order(mut ids in prop::collection::vec("[a-f]{1,3}", 1..60)) {
        let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
        for (place, id) in ids.iter().enumerate() {
            let event = Event { id: id.clone().into(), input: Input::Features(Features::Dense(vec![1.0])), label: None };
            partition.apply(at(place), &Entry::Event(event));
        }
        let sent = ids.len();
        ids.sort();
        ids.dedup();
        let expected = ids.iter().fold(0u64, |sum, id| sum.wrapping_add(event_digest(id)));
        let statistics = partition.statistics();
        prop_assert_eq!(statistics.applied_digest, expected);
        prop_assert_eq!((statistics.events, statistics.duplicates), (ids.len() as u64, (sent - ids.len()) as u64));
    }
}

fn labelled(number: usize, x: f64) -> Entry {
    Entry::Event(Event {
        id: number.to_string().into(),
        input: Input::Features(Features::Dense(vec![x, 1.0])),
        label: Some(Label::Class(if x > 3.0 { "high" } else { "low" }.into())),
    })
}

#[test]
fn a_future_version_is_refused_by_its_number() {
    let mut snapshot = Partition::new(PartitionConfig::new(Task::Classification)).snapshot();
    snapshot[4] = 9;
    let error = Partition::restore(&snapshot).unwrap_err();
    assert!(matches!(error, SnapshotError::Version { found: 9, supported: 5 }), "{error}");
}

#[test]
fn a_retry_is_answered_as_the_first_time_and_not_learned_twice() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    for number in 0..50usize {
        partition.apply(at(number), &labelled(number, number as f64 % 7.0));
    }
    let Outcome::Answer(first) = partition.apply(at(50), &labelled(50, 6.0)) else { panic!("an answer") };
    let before = partition.statistics();
    let Outcome::Answer(again) = partition.apply(at(51), &labelled(50, 6.0)) else { panic!("an answer") };
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.prediction, again.confidence), (first.prediction, first.confidence));
    let after = partition.statistics();
    assert_eq!(
        (after.events, after.labels, after.updates, after.duplicates),
        (before.events, before.labels, before.updates, 1)
    );
}

#[test]
fn a_label_that_comes_later_is_learned_once() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let event = Event { id: "e".into(), input: Input::Features(Features::Dense(vec![1.0])), label: None };
    partition.apply(at(0), &Entry::Event(event));
    let feedback = |id: &str| Entry::Feedback { id: id.into(), label: Label::Class("up".into()) };
    assert_eq!(partition.apply(at(1), &feedback("e")), Outcome::Feedback(FeedbackOutcome::Joined));
    assert_eq!(partition.apply(at(2), &feedback("e")), Outcome::Feedback(FeedbackOutcome::AlreadyLabelled));
    assert_eq!(partition.apply(at(3), &feedback("x")), Outcome::Feedback(FeedbackOutcome::Unknown));
    assert_eq!((partition.statistics().labels, partition.statistics().updates), (1, 1));
}

#[test]
fn quality_is_counted_of_labels_of_all_ways_and_is_no_part_of_the_state() {
    let quality = |partition: &mut Partition| {
        let Outcome::Quality(quality) = partition.apply(at(99), &Entry::Query(Query::Quality)) else {
            panic!("a quality")
        };
        *quality
    };
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    for number in 0..50usize {
        partition.apply(at(number), &labelled(number, number as f64 % 7.0));
    }
    let Entry::Event(event) = labelled(50, 6.0) else { panic!("an event") };
    let Some(label) = event.label.clone() else { panic!("a label") };
    partition.apply(at(50), &Entry::Event(Event { label: None, ..event.clone() }));
    partition.apply(at(51), &Entry::Feedback { id: event.id.clone(), label });
    partition.apply(at(52), &Entry::Event(event));
    let seen = quality(&mut partition);
    // The first label came before anything was predicted.
    assert_eq!((partition.statistics().labels, seen.labels), (51, 50));
    assert_eq!(seen.confusion.iter().map(|one| one.right).sum::<u64>(), partition.statistics().correct);
    assert_eq!(seen.bins.iter().map(|bin| bin.count).sum::<u64>(), seen.labels);
    let mut restored = Partition::restore(&partition.snapshot()).unwrap();
    assert_eq!(restored.snapshot(), partition.snapshot());
    assert_eq!(quality(&mut restored).labels, 0, "a new owner counts anew");
    partition.apply(at(100), &Entry::Control(Control::Reset));
    assert_eq!(quality(&mut partition).labels, 0);
}

#[test]
fn a_rejected_entry_leaves_what_was_learned_as_it_was() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    for number in 0..50usize {
        partition.apply(at(number), &labelled(number, number as f64 % 7.0));
    }
    let before = partition.statistics();
    let bad = |input| Entry::Event(Event { id: "bad".into(), input, label: None });
    for entry in [
        bad(Input::Signal(vec![1.0])),
        bad(Input::Features(Features::Dense(vec![f64::INFINITY]))),
        bad(Input::Features(Features::Dense(vec![0.0; 5_000]))),
    ] {
        assert!(matches!(partition.apply(at(60), &entry), Outcome::Rejected(_)));
    }
    let after = partition.statistics();
    assert_eq!((after.events, after.features, after.rejected), (before.events, before.features, 3));
    let label = Label::Class("x".repeat(257).into());
    let outcome = partition.apply(at(60), &Entry::Feedback { id: "1".into(), label });
    let Outcome::Rejected(why) = outcome else { panic!("a name that is too long is taken") };
    assert!(why.to_string().contains("a class of at most 256 bytes"), "{why}");
    assert!(matches!(partition.apply(at(61), &Entry::Query(Query::Event { id: "bad".into() })), Outcome::Event(None)));
}

#[test]
fn a_signal_out_of_bounds_is_refused_and_one_of_any_length_is_not() {
    let mut partition = Partition::new(PartitionConfig::new(Task::TimeSeriesClassification));
    let mut apply = |number: usize, input: Input| {
        let label = Some(Label::Class((number % 3).to_string().into()));
        partition.apply(at(number), &Entry::Event(Event { id: number.to_string().into(), input, label }))
    };
    for number in 0..50 {
        let length = [1, 2, 9, 65_536, 300][number % 5];
        let signal = match number % 3 {
            0 => vec![7.5; length],
            1 => (0..length).map(|place| (place % 5) as f32).collect(),
            _ => (0..length).map(|place| if place % 2 == 0 { 1e15 } else { -1e15 }).collect(),
        };
        let Outcome::Answer(answer) = apply(number, Input::Signal(signal)) else { panic!("an answer") };
        assert!(answer.learned && (0.0..=1.0).contains(&answer.confidence), "{number}: {answer:?}");
    }
    for (input, why) in [
        (Input::Signal(vec![]), "equally long"),
        (Input::Channels(vec![]), "equally long"),
        (Input::Channels(vec![vec![1.0], vec![]]), "equally long"),
        (Input::Signal(vec![0.0; 65_537]), "65536 samples at most"),
        (Input::Channels(vec![vec![0.0]; 65]), "1 to 64 channels"),
        (Input::Channels(vec![vec![0.0]; 2]), "1 channels, as the first had"),
        (Input::Signal(vec![0.0, f32::NAN]), "sample 1 of channel 0"),
        (Input::Signal(vec![1.1e16]), "sample 0 of channel 0"),
        (Input::Features(Features::Dense(vec![1.0])), "a signal"),
    ] {
        let Outcome::Rejected(rejection) = apply(60, input) else { panic!("not refused: {why}") };
        assert!(rejection.to_string().contains(why), "{rejection}");
    }
    let statistics = partition.statistics();
    assert_eq!((statistics.events, statistics.labels, statistics.rejected), (50, 50, 9));
    assert!(statistics.log_loss.is_finite() && statistics.memory_bytes < 8 << 20, "{statistics:?}");
    let restored = Partition::restore(&partition.snapshot()).unwrap();
    assert_eq!(restored.digest(), partition.digest());
}

#[test]
fn signals_that_wait_for_labels_are_kept_within_their_bound() {
    let mut partition = Partition::new(PartitionConfig::new(Task::TimeSeriesClassification));
    for number in 0..100 {
        let input = Input::Signal(vec![number as f32; 65_536]);
        partition.apply(at(number), &Entry::Event(Event { id: number.to_string().into(), input, label: None }));
    }
    assert!(partition.snapshot().len() < 17 << 20);
    let mut feedback = |id: usize| {
        let label = Label::Class("a".into());
        partition.apply(at(100 + id), &Entry::Feedback { id: id.to_string().into(), label })
    };
    for _ in 0..2 {
        assert_eq!(feedback(10), Outcome::Feedback(FeedbackOutcome::Unknown), "as often as it is asked");
    }
    assert_eq!(feedback(99), Outcome::Feedback(FeedbackOutcome::Joined));
    // A reset forgets how many channels there were, and what waits for its label.
    partition.apply(at(300), &Entry::Control(Control::Reset));
    assert!(partition.snapshot().len() < 1 << 16);
    let input = Input::Channels(vec![vec![1.0, 2.0]; 2]);
    partition.apply(at(301), &Entry::Event(Event { id: "two".into(), input, label: None }));
    let mut feedback =
        |id: &str| partition.apply(at(302), &Entry::Feedback { id: id.into(), label: Label::Class("a".into()) });
    assert_eq!(feedback("98"), Outcome::Feedback(FeedbackOutcome::AlreadyLabelled));
    assert_eq!(feedback("two"), Outcome::Feedback(FeedbackOutcome::Joined));
    assert_eq!(partition.statistics().labels, 1);
}

#[test]
fn a_reset_forgets_what_was_learned_and_scored_and_knows_what_was_applied() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    for number in 0..200usize {
        partition.apply(at(number), &labelled(number, number as f64 % 7.0));
    }
    let waiting =
        |id: &str| Event { id: id.into(), input: Input::Features(Features::Dense(vec![6.0, 1.0])), label: None };
    partition.apply(at(200), &Entry::Event(waiting("before")));
    let before = partition.statistics();
    assert!(before.labels == 200 && before.accuracy > 0.5 && before.kappa > 0.0 && before.log_loss > 0.0, "{before:?}");
    assert_eq!(partition.apply(at(201), &Entry::Control(Control::Reset)), Outcome::Done);
    let after = partition.statistics();
    let scored = (after.labels, after.correct, after.accuracy, after.recent_accuracy, after.kappa, after.log_loss);
    assert_eq!(scored, (0, 0, 0.0, 0.0, 0.0, 0.0));
    assert!((after.experiences, after.features) == (0, 0) && after.classes.is_empty(), "{after:?}");
    let applied = |told: &hebb_engine::Statistics| {
        (told.events, told.applied_digest, told.duplicates, told.updates, told.rejected, told.drifts)
    };
    assert_eq!(applied(&after), applied(&before));

    let Outcome::Answer(retry) = partition.apply(at(202), &labelled(199, 3.0)) else { panic!("an answer") };
    assert!(retry.duplicate && !retry.learned && retry.prediction.is_some(), "{retry:?}");
    let feedback = |id: &str| Entry::Feedback { id: id.into(), label: Label::Class("high".into()) };
    assert_eq!(partition.apply(at(203), &feedback("before")), Outcome::Feedback(FeedbackOutcome::AlreadyLabelled));
    assert_eq!(partition.statistics().labels, 0);
    partition.apply(at(204), &Entry::Event(waiting("after")));
    assert_eq!(partition.apply(at(205), &feedback("after")), Outcome::Feedback(FeedbackOutcome::Joined));
    assert_eq!((partition.statistics().labels, partition.statistics().classes), (1, vec!["high".to_owned()]));
}

#[test]
fn a_reset_empties_a_library_and_its_ids_and_its_changes_go_on() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
    let signal = |number: usize| {
        let input = Input::Signal((0..60).map(|step| ((step * step + number) % 11) as f32).collect());
        Entry::Event(Event { id: number.to_string().into(), input, label: None })
    };
    let library = |partition: &mut Partition| {
        let all = LibraryQuery { state: LibraryState::All, limit: 1_000, ..LibraryQuery::default() };
        let Outcome::Library(found) = partition.apply(at(99), &Entry::Query(Query::Library(all))) else {
            panic!("a library")
        };
        found.into_iter().map(|pattern| pattern.summary.id).collect::<Vec<_>>()
    };
    for number in 0..20 {
        partition.apply(at(number), &signal(number));
    }
    let rule = LibraryChange::ArchiveRule { support_below: Some(u64::MAX), unseen_for: None };
    let archive = Entry::Control(Control::Library { id: "tidy".into(), change: rule });
    partition.apply(at(20), &archive);
    let known = library(&mut partition).into_iter().max().unwrap();
    partition.apply(at(21), &Entry::Control(Control::Reset));
    assert!(library(&mut partition).is_empty());
    partition.apply(at(22), &signal(20));
    let anew = library(&mut partition);
    assert!(!anew.is_empty() && anew.iter().all(|id| *id > known), "{anew:?} after {known}");
    let Outcome::LibraryChanged(again) = partition.apply(at(23), &archive) else { panic!("a change") };
    assert!(again.duplicate);
    assert_eq!(library(&mut partition), anew, "a change that comes again is made once");
}

#[test]
fn the_largest_numbers_leave_every_answer_a_number_and_larger_ones_are_refused() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Regression));
    let event = |number: usize, feature: f64, label: f64| {
        let input = Input::Features(Features::Dense(vec![feature, 1.0]));
        Entry::Event(Event { id: number.to_string().into(), input, label: Some(Label::Number(label)) })
    };
    for number in 0..600usize {
        let sign = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let (feature, label) = match number {
            200..240 => (sign * NUMBER_MAX, 1.0),
            240..280 => (1.0, sign * NUMBER_MAX),
            _ => (number as f64 % 7.0, number as f64 % 5.0),
        };
        let Outcome::Answer(answer) = partition.apply(at(number), &event(number, feature, label)) else {
            panic!("an answer")
        };
        let numbers = answer.votes.iter().map(|vote| vote.prediction.clone()).chain(answer.prediction);
        for prediction in numbers {
            assert!(matches!(prediction, Prediction::Number(number) if number.is_finite()), "{number}: {prediction:?}");
        }
        assert!(answer.confidence.is_finite(), "{number}");
    }
    for (feature, label) in [(1.1 * NUMBER_MAX, 1.0), (1.0, -1.1 * NUMBER_MAX), (1.0, f64::NAN)] {
        assert!(matches!(partition.apply(at(600), &event(600, feature, label)), Outcome::Rejected(_)));
    }
}

#[test]
fn an_abrupt_drift_is_followed_within_a_few_hundred_events() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut state = 1u64;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut right_after = 0;
    for number in 0..4_000usize {
        let row = [unit() * 10.0, unit() * 10.0, unit() * 10.0];
        let threshold = if number < 2_000 { 8.0 } else { 13.0 };
        let class = if row[0] + row[1] > threshold { "above" } else { "below" };
        let event = Event {
            id: number.to_string().into(),
            input: Input::Features(Features::Dense(row.to_vec())),
            label: Some(Label::Class(class.into())),
        };
        let Outcome::Answer(answer) = partition.apply(at(number), &Entry::Event(event)) else { panic!("an answer") };
        let right = matches!(&answer.prediction, Some(Prediction::Class(name)) if name == class);
        right_after += usize::from(number >= 2_400 && right);
    }
    assert!(right_after > 1_600 * 92 / 100, "{right_after} of 1600");
    // What is told is a drift of the stream, not what its trees make of it.
    assert!((1..=2).contains(&partition.statistics().drifts), "{}", partition.statistics().drifts);
}

#[test]
fn the_uncertain_gate_saves_updates_and_keeps_most_of_the_accuracy() {
    let run = |gate_mode| {
        let hyperparameters = Hyperparameters { gate_mode, ..Hyperparameters::default() };
        let mut partition =
            Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Classification) });
        for number in 0..3_000usize {
            partition.apply(at(number), &labelled(number, (number * 37 % 70) as f64 / 10.0));
        }
        partition.statistics()
    };
    let (always, uncertain) = (run(GateMode::Always), run(GateMode::Uncertain));
    assert_eq!(always.updates, 3_000);
    assert!(uncertain.updates < 2_000, "{}", uncertain.updates);
    assert!(uncertain.accuracy > always.accuracy - 0.02);
}

#[test]
fn what_is_learned_is_counted_as_the_task_learns() {
    let hyperparameters = Hyperparameters { gate_mode: GateMode::Uncertain, ..Hyperparameters::default() };
    let mut classes = Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Classification) });
    for number in 0..1_000usize {
        classes.apply(at(number), &labelled(number, (number * 37 % 70) as f64 / 10.0));
    }
    assert_eq!(classes.learned(), classes.statistics().updates);
    assert!(classes.learned() < classes.statistics().labels, "the gate lets nothing through of the rest");

    let mut patterns = Partition::new(PartitionConfig::new(Task::Patterns));
    for number in 0..3usize {
        let input = Input::Signal((0..64).map(|place| (place as f32 * 0.4).sin()).collect());
        patterns.apply(at(number), &Entry::Infer(input.clone()));
        patterns.apply(at(number), &Entry::Event(Event { id: number.to_string().into(), input, label: None }));
    }
    assert_eq!((patterns.learned(), patterns.statistics().labels), (3, 0), "signals, and no questions");

    let mut governed = Partition::new(PartitionConfig::new(Task::Governed));
    for (number, worth) in [1.0, 0.0, 1.0, 0.0, 0.0].into_iter().enumerate() {
        let input = Input::Features(Features::Dense(vec![number as f64, 1.0]));
        let event = Event { id: number.to_string().into(), input, label: Some(Label::Number(worth)) };
        governed.apply(at(number), &Entry::Event(event));
    }
    assert_eq!(governed.learned(), 2, "what was accepted");
}

/// However many events came in between, a minute long; what is older is new again.
#[test]
fn a_retry_that_others_have_overtaken_is_learned_once() {
    let hyperparameters = Hyperparameters { horizon_events: 10, ..Hyperparameters::default() };
    let mut partition =
        Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Classification) });
    // One a second.
    let at = |second: usize| EntryId { at_ms: second as u64 * 1_000, seq: 0 };
    for second in 0..100 {
        partition.apply(at(second), &labelled(second, (second % 7) as f64));
    }
    let mut partition = Partition::restore(&partition.snapshot()).unwrap();
    let before = partition.statistics();
    for again in 41..100 {
        let outcome = partition.apply(at(100), &labelled(again, (again % 7) as f64));
        let Outcome::Answer(answer) = outcome else { panic!("{outcome:?}") };
        assert!(answer.duplicate && answer.prediction.is_some() && !answer.learned, "{again}: {answer:?}");
    }
    let after = partition.statistics();
    assert_eq!((after.events, after.duplicates, after.updates), (before.events, 59, before.updates));
    assert_eq!(after.applied_digest, before.applied_digest);
    let outcome = partition.apply(at(101), &labelled(30, 2.0));
    assert!(matches!(outcome, Outcome::Answer(answer) if !answer.duplicate));
}

/// A memory that admits says of a vector what it said before.
#[test]
fn a_retry_of_a_vector_beyond_the_horizon_is_told_whether_it_was_accepted() {
    let hyperparameters = Hyperparameters { horizon_events: 1, ..Hyperparameters::default() };
    let mut partition = Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Governed) });
    let vector = |number: usize| {
        let (input, worth) = (vec![number as f64, 1.0], (number * 29 % 100) as f64 / 100.0);
        let input = Input::Features(Features::Dense(input));
        Entry::Event(Event { id: number.to_string().into(), input, label: Some(Label::Number(worth)) })
    };
    let told = |outcome| match outcome {
        Outcome::Admission(admission) => (admission.duplicate, admission.accepted),
        other => panic!("{other:?}"),
    };
    let first: Vec<_> = (0..100).map(|number| told(partition.apply(at(number), &vector(number)))).collect();
    assert!(first.contains(&(false, true)) && first.contains(&(false, false)));
    for (number, (_, accepted)) in first.into_iter().enumerate() {
        assert_eq!(told(partition.apply(at(100), &vector(number))), (true, accepted), "{number}");
    }
}

/// Written by versions 1 to 4 after 150 events each: a class by a threshold, twice the first feature, a sawtooth, and vectors.
#[test]
fn a_snapshot_of_an_earlier_version_goes_on_where_it_stood() {
    let tasks = [
        (Task::Classification, "classification"),
        (Task::Regression, "regression"),
        (Task::Patterns, "patterns"),
        (Task::Governed, "governed"),
    ];
    // Version 1 had no governed memory.
    let before_3 = tasks[..3].iter().map(|task| (1, task)).chain(tasks.iter().map(|task| (2, task)));
    let since_3 = (3..=4).flat_map(|version| tasks.iter().map(move |task| (version, task)));
    for (version, (task, name)) in before_3.chain(since_3) {
        let file = format!("{}/tests/version{version}/{name}.snapshot", env!("CARGO_MANIFEST_DIR"));
        let stored = std::fs::read(&file).unwrap();
        let mut partition = Partition::restore(&stored).unwrap();
        let statistics = partition.statistics();
        assert_eq!((partition.config().task, statistics.events, partition.position()), (*task, 150, at(149)), "{file}");
        let mut apply = |place: usize, entry: Entry| partition.apply(at(place), &entry);
        let features = |x: f64| Input::Features(Features::Dense(vec![x, 1.0]));
        let seen = Event { id: "149".into(), input: features(0.0), label: None };
        match task {
            Task::Classification => {
                let Outcome::Answer(answer) = apply(150, Entry::Event(seen)) else { panic!("an answer") };
                assert!(answer.duplicate, "what it has seen is known");
                let Outcome::Answer(answer) = apply(151, Entry::Infer(features(6.0))) else { panic!("an answer") };
                assert_eq!(answer.prediction, Some(hebb_engine::Prediction::Class("high".into())));
            }
            Task::Regression => {
                let Outcome::Answer(answer) = apply(150, Entry::Infer(features(5.0))) else { panic!("an answer") };
                let Some(hebb_engine::Prediction::Number(number)) = answer.prediction else { panic!("a number") };
                assert!((number - 10.0).abs() < 1.0, "{number}");
            }
            Task::Patterns => {
                let everything = LibraryQuery { state: LibraryState::All, limit: 9, ..LibraryQuery::default() };
                let Outcome::Library(found) = apply(150, Entry::Query(Query::Library(everything))) else {
                    panic!("patterns")
                };
                assert!(found[0].summary.support > 100 && !found[0].archived && found[0].unseen_for == 0);
            }
            Task::Governed => {
                let Outcome::Governor(state) = apply(150, Entry::Query(Query::Governor)) else { panic!("a state") };
                assert_eq!((state.accepted + state.rejected, state.rhythm), (150, Rhythm { wake: 8, sleep: 3 }));
            }
            Task::TimeSeriesClassification => unreachable!("there are no bytes of it"),
        }
        // Since version 2 every other one of the last ten waits for its label.
        if version >= 2 && matches!(task, Task::Classification | Task::Regression) {
            let label = if *task == Task::Regression { Label::Number(2.0) } else { Label::Class("low".into()) };
            let feedback = |id: &str| Entry::Feedback { id: id.into(), label: label.clone() };
            assert_eq!(apply(151, feedback("148")), Outcome::Feedback(FeedbackOutcome::Joined));
            assert_eq!(apply(152, feedback("149")), Outcome::Feedback(FeedbackOutcome::AlreadyLabelled));
        }
        apply(153, Entry::Control(Control::Cycle));
        let anew = Partition::restore(&partition.snapshot()).unwrap();
        assert_eq!(anew.digest(), partition.digest(), "{file}");
        assert_eq!((anew.snapshot()[4], stored[4]), (5, version), "{file}");
    }
}

/// Mean log-loss so far, times the labels.
fn loss(partition: &Partition) -> f64 {
    let statistics = partition.statistics();
    statistics.log_loss * statistics.labels as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_label_is_scored_by_what_was_said_of_its_event_however_late_it_comes(
        events in prop::collection::vec((0u8..8, 0usize..40, any::<bool>()), 1..200)
    ) {
        let hyperparameters = Hyperparameters { cold_start_experiences: 0, ..Hyperparameters::default() };
        let mut partition =
            Partition::new(PartitionConfig { hyperparameters, ..PartitionConfig::new(Task::Classification) });
        // Both classes are known, so that what isn't given to the one is given to the other.
        for number in 0..2usize {
            partition.apply(at(number), &labelled(number, number as f64 * 7.0));
        }
        let mut late: Vec<(usize, String, Label, f64)> = Vec::new();
        for (number, (x, delay, odd)) in events.into_iter().enumerate() {
            let class = if (x > 3) != odd { "high" } else { "low" };
            let (id, label) = (format!("e{number}"), Label::Class(class.into()));
            let input = Input::Features(Features::Dense(vec![f64::from(x), 1.0]));
            let at_once = (delay == 0).then(|| label.clone());
            let before = loss(&partition);
            let event = Event { id: id.clone().into(), input, label: at_once };
            let Outcome::Answer(answer) = partition.apply(at(number), &Entry::Event(event)) else { panic!("an answer") };
            let right = answer.prediction == Some(hebb_engine::Prediction::Class(class.into()));
            let share = if right { f64::from(answer.confidence) } else { 1.0 - f64::from(answer.confidence) };
            // Of a share this small, 32 bits of the other one tell little.
            prop_assume!(share > 1e-4);
            let said = -share.ln();
            if delay == 0 {
                prop_assert!((loss(&partition) - before - said).abs() < 2e-3, "at once");
            } else {
                late.push((number + delay, id, label, said));
            }
            for (_, id, label, said) in late.extract_if(.., |(due, ..)| *due <= number + 1) {
                let before = loss(&partition);
                partition.apply(at(number), &Entry::Feedback { id: id.into(), label });
                prop_assert!((loss(&partition) - before - said).abs() < 2e-3, "late");
            }
        }
    }

    #[test]
    fn a_label_scores_the_same_at_once_and_next(events in prop::collection::vec((0u8..8, "[a-d]"), 1..150)) {
        let mut partitions = [(); 2].map(|()| Partition::new(PartitionConfig::new(Task::Classification)));
        for (number, (x, class)) in events.into_iter().enumerate() {
            let id = number.to_string();
            let (input, label) = (Input::Features(Features::Dense(vec![f64::from(x)])), Label::Class(class.into()));
            let event = |label| Entry::Event(Event { id: id.clone().into(), input: input.clone(), label });
            partitions[0].apply(at(number), &event(Some(label.clone())));
            partitions[1].apply(at(number), &event(None));
            partitions[1].apply(at(number), &Entry::Feedback { id: id.clone().into(), label });
            prop_assert_eq!(partitions[0].statistics().log_loss, partitions[1].statistics().log_loss);
        }
    }
}
