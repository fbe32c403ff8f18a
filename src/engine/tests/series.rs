//! Events that are a series: a class may be about how a row is beside those before it.

#![expect(clippy::panic, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::VecDeque;

use hebb_engine::{
    Answer, Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};

/// Readings of a level that moves, and whether each is above the mean of the last eight.
fn above_the_recent_mean() -> impl Iterator<Item = (Vec<f64>, bool)> {
    let (mut noise, mut level, mut last) = (1u64, 0.0, VecDeque::from([0.0]));
    let mut shock = move || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    };
    (0..).map(move |number| {
        level += shock() + 0.02 * ((f64::from(number) / 70.0).sin() * 20.0 - level);
        let reading = level + 2.0 * shock();
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        last.push_back(reading);
        if last.len() > 8 {
            last.pop_front();
        }
        (vec![reading], reading > mean)
    })
}

struct Domain(Partition, u64);

impl Domain {
    fn new() -> Self {
        Self(Partition::new(PartitionConfig::new(Task::Classification)), 0)
    }

    fn apply(&mut self, entry: &Entry) -> Outcome {
        self.1 += 1;
        self.0.apply(EntryId { at_ms: self.1, seq: 0 }, entry)
    }

    fn event(&mut self, number: usize, row: &[f64], label: Option<Label>) -> Answer {
        let event =
            Event { id: number.to_string().into(), input: Input::Features(Features::Dense(row.to_vec())), label };
        match self.apply(&Entry::Event(event)) {
            Outcome::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn class(above: bool) -> Label {
    Label::Class(above.to_string().into())
}

/// Right answers to the last 3,000 of 5,000 events, of which one may be wrong.
fn right(wrong: Option<usize>) -> usize {
    let mut domain = Domain::new();
    let mut right = 0;
    for (number, (row, above)) in above_the_recent_mean().take(5_000).enumerate() {
        let row = if wrong == Some(number) { vec![1e12] } else { row };
        let answer = domain.event(number, &row, Some(class(above)));
        right += usize::from(number >= 2_000 && answer.prediction == Some(Prediction::from(class(above))));
    }
    right
}

#[test]
fn a_class_that_is_about_the_rows_before_is_learned() {
    let right = right(None);
    // By the row and the last label alone it would be 1,985.
    assert!(right > 2_700, "{right} of 3,000");
}

#[test]
fn one_wrong_number_in_a_series_is_soon_forgotten() {
    let (without, with) = (right(None), right(Some(2_500)));
    assert!(with + 60 > without, "{with} instead of {without} of 3,000");
}

#[test]
fn a_series_goes_on_where_it_stood_and_asking_foretells_the_answer() {
    let mut domain = Domain::new();
    for (number, (row, above)) in above_the_recent_mean().take(600).enumerate() {
        if number % 100 == 7 {
            let restored = Partition::restore(&domain.0.snapshot()).unwrap();
            assert_eq!(restored.digest(), domain.0.digest(), "at {number}");
            domain.0 = restored;
            let before = domain.0.digest();
            let input = Input::Features(Features::Dense(row.clone()));
            let mut asked = Partition::restore(&domain.0.snapshot()).unwrap();
            let Outcome::Answer(foretold) = asked.apply(domain.0.position(), &Entry::Infer(input)) else {
                panic!("an answer")
            };
            let answer = domain.event(number, &row, Some(class(above)));
            assert_eq!((foretold.prediction, foretold.confidence), (answer.prediction, answer.confidence));
            assert_ne!(before, domain.0.digest());
        } else {
            domain.event(number, &row, (number % 5 != 0).then(|| class(above)));
        }
    }
}

/// When a label comes, other rows came since; so it teaches nothing about the rows before, and what is said is about the row.
#[test]
fn labels_that_come_late_teach_the_level() {
    const LATE: usize = 20;
    let mut domain = Domain::new();
    let mut right = 0;
    let mut waiting = VecDeque::new();
    for (number, (row, _)) in above_the_recent_mean().take(4_000).enumerate() {
        let label = class(row[0] > 2.0);
        let answer = domain.event(number, &row, None);
        right += usize::from(number >= 1_000 && answer.prediction == Some(Prediction::from(label.clone())));
        waiting.push_back((number, label));
        if number >= LATE {
            let (number, label) = waiting.pop_front().unwrap();
            domain.apply(&Entry::Feedback { id: number.to_string().into(), label });
        }
    }
    assert!(right > 2_900, "{right} of 3,000");
}
