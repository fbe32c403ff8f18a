//! One wrong number among many right ones is soon forgotten, however wrong it is.

use hebb_engine::{
    Answer, Entry, EntryId, Event, Features, Input, Label, NUMBER_MAX, Outcome, Partition, PartitionConfig, Prediction,
    Task,
};

/// Numbers that look random, -1 to 1, and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 30) as f64 - 1.0
    }

    fn row(&mut self) -> Vec<f64> {
        (0..4).map(|_| self.next() + self.next() + self.next()).collect()
    }
}

fn apply(partition: &mut Partition, number: u64, input: Input, label: Option<Label>) -> Option<Answer> {
    let id = EntryId { at_ms: number + 1, seq: 0 };
    match partition.apply(id, &Entry::Event(Event { id: number.to_string().into(), input, label })) {
        Outcome::Answer(answer) => Some(answer),
        _ => None,
    }
}

/// How far a predicted number is off, and whether a predicted class is wrong.
fn error(label: &Label, prediction: &Prediction) -> f64 {
    match (label, prediction) {
        (Label::Number(target), Prediction::Number(predicted)) => (target - predicted).abs(),
        (label, prediction) => f64::from(u8::from(Prediction::from(label.clone()) != *prediction)),
    }
}

/// The event in the midst of the others that something is wrong with.
const WRONG: u64 = 3_000;

/// The mean error from a thousand events after the wrong one on, for a thousand events.
fn error_after(task: Task, event: impl Fn(u64, &mut Noise) -> (Vec<f64>, Label)) -> f64 {
    let mut partition = Partition::new(PartitionConfig::new(task));
    let mut noise = Noise(7);
    let mut sum = 0.0;
    for number in 0..WRONG + 2_000 {
        let (row, label) = event(number, &mut noise);
        let answer = apply(&mut partition, number, Input::Features(Features::Dense(row)), Some(label.clone()));
        if number >= WRONG + 1_000 {
            sum += answer.and_then(|answer| answer.prediction).map_or(1.0, |prediction| error(&label, &prediction));
        }
    }
    sum / 1_000.0
}

/// Changes a row where something is wrong with it.
type Harm = fn(&mut Vec<f64>);
const HARMS: [(&str, Harm); 3] = [
    ("every feature is as large as can be", |row| row.fill(NUMBER_MAX)),
    ("every feature is a million", |row| row.fill(1e6)),
    ("a feature says 9999 for missing", |row| row[0] = 9_999.0),
];

#[test]
fn numbers_are_predicted_as_well_after_one_that_was_wrong() {
    let right = |noise: &mut Noise| {
        let row = noise.row();
        let target = 50.0 + 2.0 * row[0] - row[1] + 0.5 * row[2] + 0.3 * noise.next();
        (row, target)
    };
    let usual = error_after(Task::Regression, |_, noise| {
        let (row, target) = right(noise);
        (row, Label::Number(target))
    });
    for (what, harm) in HARMS {
        let event = |number, noise: &mut Noise| {
            let (mut row, target) = right(noise);
            if number == WRONG {
                harm(&mut row);
            }
            (row, Label::Number(target))
        };
        let after = error_after(Task::Regression, event);
        assert!(after < 1.5 * usual, "{what}: {after} and otherwise {usual}");
    }
    for wrong in [NUMBER_MAX, -1e6, 9_999.0] {
        let event = |number, noise: &mut Noise| {
            let (row, target) = right(noise);
            (row, Label::Number(if number == WRONG { wrong } else { target }))
        };
        let after = error_after(Task::Regression, event);
        assert!(after < 1.5 * usual, "a target of {wrong}: {after} and otherwise {usual}");
    }
}

#[test]
fn classes_are_told_apart_as_well_after_a_row_that_was_wrong() {
    let right = |noise: &mut Noise| {
        let row = noise.row();
        let sum = row[0] - row[1] + 0.7 * row[2] + 0.4 * row[3] + 0.3 * noise.next();
        (row, Label::Class(if sum > 0.0 { "above" } else { "below" }.into()))
    };
    let usual = error_after(Task::Classification, |_, noise| right(noise));
    for (what, harm) in HARMS {
        let event = |number, noise: &mut Noise| {
            let (mut row, label) = right(noise);
            if number == WRONG {
                harm(&mut row);
            }
            (row, label)
        };
        let after = error_after(Task::Classification, event);
        assert!(after < usual + 0.01, "{what}: {after} and otherwise {usual}");
    }
}

#[test]
fn a_new_range_is_followed_however_much_wider_it_is() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Regression));
    let mut noise = Noise(9);
    let mut sum = 0.0;
    for number in 0..4_000 {
        let row = noise.row();
        let scale = if number < 2_000 { 1.0 } else { 1e6 };
        let target = scale * (row[0] + row[1]);
        let wide = row.iter().map(|value| scale * value).collect();
        let answer = apply(&mut partition, number, Input::Features(Features::Dense(wide)), Some(Label::Number(target)));
        if number >= 3_000 {
            sum += answer
                .and_then(|answer| answer.prediction)
                .map_or(1.0, |found| error(&Label::Number(target), &found) / scale);
        }
    }
    assert!(sum / 1_000.0 < 0.3, "{}", sum / 1_000.0);
}

#[test]
fn patterns_are_found_after_a_sample_that_was_wrong() {
    for wrong in [110.0, 1e3, 1e15] {
        let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
        let mut noise = Noise(5);
        let mut found = [0; 3];
        for number in 0..150 {
            let tooth = |place: usize| if place % 25 < 12 { (place % 25) as f32 } else { 0.0 };
            let mut signal: Vec<f32> = (0..250).map(|place| tooth(place) + 0.2 * noise.next() as f32).collect();
            if number == 50 {
                signal[100] = wrong;
            }
            let answer = apply(&mut partition, number, Input::Signal(signal), None);
            let patterns = answer.map_or(Vec::new(), |answer| answer.patterns);
            found[number as usize / 50] += patterns.iter().filter(|found| found.level == 0).count();
        }
        assert!(found[0] > 200, "nothing to be found: {found:?}");
        assert!(found[1] > found[0] / 2 && found[2] * 10 > found[0] * 9, "{wrong}: {found:?}");
    }
}
