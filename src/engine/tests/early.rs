//! Rows that are easy leave the ensemble early: who is asked about what, and that nothing is lost by it.

#![expect(clippy::panic, reason = "the helpers of a test fail as the test does: by a panic")]

use hebb_engine::{
    Answer, Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};

/// A stream that is the same in every run, and who learns it.
struct Learning {
    partition: Partition,
    state: u64,
    number: u64,
}

impl Learning {
    fn new() -> Self {
        Self { partition: Partition::new(PartitionConfig::new(Task::Classification)), state: 7, number: 0 }
    }

    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next event: of two groups that are apart in the first of two numbers. `label` makes a class of the group and of luck.
    fn next(&mut self, label: fn(bool, f64) -> bool) -> Event {
        let group = self.unit() > 0.5;
        let mut values: Vec<f64> = (0..2).map(|_| self.unit()).collect();
        values[0] = 0.4 * values[0] + if group { 0.6 } else { 0.0 };
        let class = label(group, self.unit());
        self.number += 1;
        Event {
            id: self.number.to_string().into(),
            input: Input::Features(Features::Dense(values)),
            label: Some(Label::Class(class.to_string().into())),
        }
    }

    fn apply(&mut self, event: &Event) -> Answer {
        let at = EntryId { at_ms: self.number, seq: 0 };
        answer(self.partition.apply(at, &Entry::Event(event.clone())))
    }

    /// Learns so many events: what was answered, and whether it was right.
    fn learn(&mut self, events: usize, label: fn(bool, f64) -> bool) -> Vec<(Answer, bool)> {
        let mut step = |_| {
            let event = self.next(label);
            let answer = self.apply(&event);
            let right = answer.prediction == event.label.map(Prediction::from);
            (answer, right)
        };
        (0..events).map(&mut step).collect()
    }
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// Whether the forest spoke for all.
fn left_early((answer, _): &(Answer, bool)) -> bool {
    answer.votes.len() == 1
}

fn by_group(group: bool, _: f64) -> bool {
    group
}

#[test]
fn of_an_easy_stream_most_rows_leave_early_and_rightly() {
    let mut learning = Learning::new();
    learning.learn(4_000, by_group);
    let answers = learning.learn(4_000, by_group);
    let early: Vec<_> = answers.iter().filter(|answer| left_early(answer)).collect();
    // Every twentieth asks all in any case.
    assert!((3_000..=3_800).contains(&early.len()), "{}", early.len());
    for (answer, right) in early {
        let forest = &answer.votes[0];
        assert_eq!((forest.member.as_ref(), Some(&forest.prediction)), ("forest", answer.prediction.as_ref()));
        assert!(*right && answer.learned && answer.confidence > 0.99 && answer.confidence < 1.0, "{answer:?}");
    }
}

#[test]
fn what_leaves_early_is_read_and_replayed_as_it_was_applied() {
    let mut learning = Learning::new();
    learning.learn(4_000, by_group);
    let mut copy = Partition::restore(&learning.partition.snapshot()).unwrap();
    let mut early = 0;
    for _ in 0..500 {
        let event = learning.next(by_group);
        let read = answer(copy.peek(&Entry::Infer(event.input.clone())).unwrap());
        let live = learning.apply(&event);
        let told = |answer: &Answer| (answer.prediction.clone(), answer.confidence, answer.votes.clone());
        assert_eq!(told(&read), told(&live));
        early += usize::from(live.votes.len() == 1);
        copy.apply(EntryId { at_ms: learning.number, seq: 0 }, &Entry::Event(event));
        assert_eq!(copy.digest(), learning.partition.digest());
    }
    assert!(early > 300, "{early}");
}

#[test]
fn from_the_first_error_on_every_member_is_asked_for_a_while() {
    let mut learning = Learning::new();
    learning.learn(6_000, by_group);
    let answers = learning.learn(12_000, |group, _| !group);
    let first = answers.iter().position(|(_, right)| !right).unwrap();
    assert!(first < 3, "the classes have changed places at once");
    assert!(!answers[first + 1..=first + 30].iter().any(left_early));
    let errors = answers.iter().filter(|(_, right)| !right).count();
    assert!(errors < 200, "{errors}");
    assert!(answers[10_000..].iter().filter(|answer| left_early(answer)).count() > 1_000, "it is easy again");
}

#[test]
fn nothing_leaves_early_where_labels_are_noisy() {
    let noisy = |group: bool, luck: f64| group ^ (luck < 0.02);
    let mut learning = Learning::new();
    learning.learn(3_000, noisy);
    let answers = learning.learn(3_000, noisy);
    assert_eq!(answers.iter().filter(|answer| left_early(answer)).count(), 0);
}

#[test]
fn a_label_that_comes_later_teaches_what_left_early() {
    let mut learning = Learning::new();
    learning.learn(4_000, by_group);
    let before = learning.partition.statistics();
    for number in 0..200 {
        let event = learning.next(by_group);
        let label = event.label.clone().unwrap();
        learning.apply(&Event { label: None, ..event.clone() });
        let at = EntryId { at_ms: learning.number, seq: 1 };
        // Some labels are not what it was sure of.
        let label = if number % 50 == 49 { Label::Class("other".into()) } else { label };
        learning.partition.apply(at, &Entry::Feedback { id: event.id, label });
    }
    let after = learning.partition.statistics();
    assert_eq!(after.labels - before.labels, 200);
    assert_eq!(after.correct - before.correct, 196);
    assert_eq!(after.classes.len(), 3);
}
