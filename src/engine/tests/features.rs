//! Features as they come: late, in small units, none at all.

use hebb_engine::{Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Task, Value};

fn apply(partition: &mut Partition, number: u64, features: Vec<(String, Value)>, label: Label) {
    let input = Input::Features(Features::Named(features));
    let event = Event { id: number.to_string().into(), input, label: Some(label) };
    let outcome = partition.apply(EntryId { at_ms: number + 1, seq: 0 }, &Entry::Event(event));
    assert!(matches!(outcome, Outcome::Answer(_)), "{number}: {outcome:?}");
}

#[test]
fn events_whose_features_are_all_missing_are_learned_without_end() {
    for task in [Task::Classification, Task::Regression] {
        let mut partition = Partition::new(PartitionConfig::new(task));
        // More than the index of the memory takes before it is made anew.
        for number in 0..3_000u64 {
            let side = number % 2;
            let label = match task {
                Task::Regression => Label::Number(side as f64),
                _ => Label::Class(side.to_string().into()),
            };
            apply(&mut partition, number, vec![("a".to_owned(), Value::Missing)], label);
        }
    }
}

/// How well a chessboard on two of eight features is learned; the units are those of the features, and the first event may
/// have another feature only.
fn chessboard(unit: f64, late: bool) -> f64 {
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut seed = 3u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1u64 << 31) as f64
    };
    if late {
        let first = vec![("version".to_owned(), Value::Number(1.0))];
        apply(&mut partition, 0, first, Label::Class("even".into()));
    }
    for number in 1..=6_000 {
        let values: Vec<f64> = (0..8).map(|_| random()).collect();
        let label =
            if ((values[0] * 3.0) as u64 + (values[1] * 3.0) as u64).is_multiple_of(2) { "even" } else { "odd" };
        let mut features = vec![("version".to_owned(), Value::Number(1.0))];
        features
            .extend(values.iter().enumerate().map(|(place, value)| (format!("x{place}"), Value::Number(value * unit))));
        apply(&mut partition, number, features, Label::Class(label.into()));
    }
    partition.statistics().accuracy
}

#[test]
fn features_that_come_later_are_learned_as_well() {
    let (at_once, late) = (chessboard(1.0, false), chessboard(1.0, true));
    assert!(late > at_once - 0.03, "{late} and {at_once}");
}

#[test]
fn the_units_of_features_do_not_matter() {
    let usual = chessboard(1.0, false);
    for unit in [1e-12, 1e-6, 1e6] {
        let other = chessboard(unit, false);
        // Rounding makes other trees; without any it is 0.67.
        assert!(other > usual - 0.08, "{unit:e}: {other} and {usual}");
    }
}

#[test]
fn a_regression_weighs_its_members_again_after_a_time_in_which_nothing_changed() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Regression));
    let mut seed = 5u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut errors = Vec::new();
    for number in 0..20_000u64 {
        let row = vec![random(), random()];
        let target = if number < 18_000 { 20.5 } else { 100.5 + 50.0 * row[0] - 30.0 * row[1] + random() };
        let input = Input::Features(Features::Dense(row));
        let event = Event { id: number.to_string().into(), input, label: Some(Label::Number(target)) };
        let outcome = partition.apply(EntryId { at_ms: number + 1, seq: 0 }, &Entry::Event(event));
        if let Outcome::Answer(answer) = outcome
            && let Some(hebb_engine::Prediction::Number(predicted)) = answer.prediction
        {
            errors.push((predicted - target).abs());
        }
    }
    let last: f64 = errors.iter().rev().take(500).sum::<f64>() / 500.0;
    assert!(last < 4.0, "{last}");
}
