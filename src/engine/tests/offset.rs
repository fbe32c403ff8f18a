//! Numbers that are large beside what they vary by, such as times in milliseconds, are learned as well as small ones.

use hebb_engine::{
    Answer, Control, Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction,
    SeriesDetector, Task, Value,
};

/// Milliseconds since 1970, in 2023.
const EPOCH_MS: f64 = 1.7e12;
const EVENTS: u64 = 3_000;

/// Numbers that look random, 0 to 1, and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }
}

fn apply(partition: &mut Partition, number: u64, entry: &Entry) -> Option<Answer> {
    match partition.apply(EntryId { at_ms: number + 1, seq: 0 }, entry) {
        Outcome::Answer(answer) => Some(answer),
        _ => None,
    }
}

fn event(number: u64, row: Vec<f64>, label: Label) -> Entry {
    let input = Input::Features(Features::Dense(row));
    Entry::Event(Event { id: number.to_string().into(), input, label: Some(label) })
}

/// A class by two features, one of which is `unit` times as wide and begins at `offset`; after these first values of it.
fn classes(offset: f64, unit: f64, first: &[f64]) -> Partition {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut noise = Noise(3);
    for number in 0..EVENTS {
        let (x, y) = (noise.next(), noise.next());
        let class = if (x > 0.5) == (y > 0.3) { "even" } else { "odd" };
        let large = first.get(number as usize).copied().unwrap_or(offset + unit * x);
        let event = event(number, vec![large, y], Label::Class(class.into()));
        assert!(apply(&mut partition, number, &event).is_some());
    }
    partition
}

#[test]
fn a_feature_is_learned_as_well_wherever_it_begins() {
    // Each varies by what 32 bits hold little or nothing of.
    for (offset, unit) in [(EPOCH_MS, 60_000.0), (1.7e9, 60.0), (-1.7e9, 60.0), (5_000_000.0, 0.5), (1e15, 1e6)] {
        let (usual, found) = (classes(0.0, unit, &[]).statistics(), classes(offset, unit, &[]).statistics());
        assert!(usual.accuracy > 0.85, "{unit}: {}", usual.accuracy);
        assert!(found.accuracy > usual.accuracy - 0.01, "{offset:e}: {} and {}", found.accuracy, usual.accuracy);
    }
}

#[test]
fn first_values_that_are_wrong_do_no_harm() {
    let usual = classes(0.0, 60_000.0, &[]).statistics().accuracy;
    for (offset, first) in [
        (5.0, vec![1e15]),
        (5.0, vec![1e15; 20]),
        (5.0, vec![EPOCH_MS, EPOCH_MS + 1.0]),
        (EPOCH_MS, vec![1e15]),
        (EPOCH_MS, vec![0.0]),
        (EPOCH_MS, vec![EPOCH_MS, 0.0]),
    ] {
        let found = classes(offset, 60_000.0, &first).statistics().accuracy;
        assert!(found > usual - 0.03, "{offset:e} after {first:?}: {found} and {usual}");
    }
}

/// The mean error of the last thousand of targets that begin at `offset`, after these first ones.
fn error(offset: f64, first: &[f64]) -> f64 {
    let mut partition = Partition::new(PartitionConfig::new(Task::Regression));
    let mut noise = Noise(5);
    let mut sum = 0.0;
    for number in 0..EVENTS {
        let (x, y) = (noise.next(), noise.next());
        let target = first.get(number as usize).copied().unwrap_or(offset + 20.0 * x - 7.0 * y);
        let answer = apply(&mut partition, number, &event(number, vec![x, y], Label::Number(target)));
        if number >= EVENTS - 1_000 {
            sum += match answer.and_then(|answer| answer.prediction) {
                Some(Prediction::Number(predicted)) => (predicted - target).abs(),
                _ => f64::INFINITY,
            };
        }
    }
    sum / 1_000.0
}

#[test]
fn a_target_is_learned_as_well_wherever_it_begins() {
    let usual = error(0.0, &[]);
    assert!(usual < 1.0, "{usual}");
    for (offset, first) in
        [(EPOCH_MS, vec![]), (5_000_000.0, vec![]), (5.0, vec![1e15]), (EPOCH_MS, vec![1e15]), (EPOCH_MS, vec![0.0])]
    {
        let found = error(offset, &first);
        assert!(found < 1.1 * usual, "{offset:e} after {first:?}: {found} and {usual}");
    }
}

#[test]
fn a_question_about_a_large_number_is_answered_as_an_event_with_it() {
    let mut partition = classes(EPOCH_MS, 60_000.0, &[]);
    let mut noise = Noise(11);
    for number in EVENTS..EVENTS + 200 {
        let row = vec![EPOCH_MS + 60_000.0 * noise.next(), noise.next()];
        let input = Input::Features(Features::Dense(row));
        let Some(Outcome::Answer(asked)) = partition.peek(&Entry::Infer(input.clone())) else { panic!("an answer") };
        let event = Entry::Event(Event { id: number.to_string().into(), input, label: None });
        let Some(told) = apply(&mut partition, number, &event) else { panic!("an answer") };
        assert_eq!((asked.prediction, asked.confidence), (told.prediction, told.confidence));
    }
}

#[test]
fn a_reset_decides_anew_where_numbers_are_counted_from() {
    let learn = |partition: &mut Partition, offset: f64| {
        let mut noise = Noise(7);
        for number in 0..EVENTS {
            let x = noise.next();
            let features = vec![("at".to_owned(), Value::Number(offset + 1e3 * x)), ("gap".to_owned(), Value::Missing)];
            let class = Label::Class(if x > 0.5 { "late" } else { "early" }.into());
            let (id, input) = (format!("{offset}-{number}").into(), Input::Features(Features::Named(features)));
            assert!(apply(partition, number, &Entry::Event(Event { id, input, label: Some(class) })).is_some());
        }
        partition.statistics().accuracy
    };
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let before = learn(&mut partition, EPOCH_MS);
    partition.apply(EntryId { at_ms: EVENTS + 1, seq: 0 }, &Entry::Control(Control::Reset));
    let after = learn(&mut partition, 2.0 * EPOCH_MS);
    assert!(before > 0.97 && after > 0.97, "{before} and {after}");
}

#[test]
fn a_series_is_judged_the_same_wherever_it_begins() {
    let spike = |offset: f64| {
        let (mut detector, mut noise) = (SeriesDetector::default(), Noise(9));
        for _ in 0..5_000 {
            detector.step(offset + noise.next() + noise.next() + noise.next());
        }
        detector.step(offset + 9.0)
    };
    let (usual, found) = (spike(0.0), spike(1e9));
    assert!(usual.score > 0.8 && (found.score - usual.score).abs() < 0.01, "{found:?} and {usual:?}");
    assert!((found.z_score - usual.z_score).abs() < 0.01, "{found:?} and {usual:?}");
}
