//! What meta-learning gains.

use hebb_engine::{
    Control, Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};

/// Numbers in [0, 1), the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 31)
    }
}

/// A stream that is told by its features for 80 events and by the label before for the next 80, in turn; the share that is
/// predicted right, with a cycle every so many events.
fn accuracy(seed: u64, cycle_every: Option<u64>) -> f64 {
    const EVENTS: u64 = 20_000;
    let (mut partition, mut numbers) = (Partition::new(PartitionConfig::new(Task::Classification)), Numbers(seed));
    let (mut last, mut right) = (false, 0);
    for number in 0..EVENTS {
        let row = [numbers.next(), numbers.next(), numbers.next(), numbers.next()];
        let stays = numbers.next() < 0.95;
        let label = if number / 80 % 2 == 0 { row[0] + row[1] > 1.0 } else { last == stays };
        last = label;
        let event = Event {
            id: number.to_string().into(),
            input: Input::Features(Features::Dense(row.to_vec())),
            label: Some(Label::Class(label.to_string().into())),
        };
        let at = |seq| EntryId { at_ms: number + 1, seq };
        if let Outcome::Answer(answer) = partition.apply(at(0), &Entry::Event(event)) {
            right += u64::from(answer.prediction == Some(Prediction::Class(label.to_string().into())));
        }
        if cycle_every.is_some_and(|every| number % every == every - 1) {
            partition.apply(at(1), &Entry::Control(Control::Cycle));
        }
    }
    right as f64 / EVENTS as f64
}

#[test]
fn cycles_follow_a_stream_that_changes_faster_than_the_defaults_do() {
    for seed in 1..=3 {
        let (off, on) = (accuracy(seed, None), accuracy(seed, Some(500)));
        assert!(on > off + 0.04, "{off} without cycles, {on} with them");
    }
}
