//! What stands out in series and rows: found where it was put, and nothing where nothing is.

use hebb_engine::{
    Answer, Entry, EntryId, Event, Input, Outcome, Partition, PartitionConfig, RowDetector, SeriesDetector,
    SignalAnomaly, Task,
};
use proptest::prelude::*;

/// A score from which an event is worth a look; noise alone rarely has one.
const NOTABLE: f32 = 0.55;

/// Numbers from 0 to 1 that look like noise.
fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 40) as f32 / (1 << 24) as f32
    })
}

/// Sums of twelve: near to a normal distribution of deviation 1.
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let numbers: Vec<f32> = noise(seed).take(count * 12).collect();
    numbers.chunks(12).map(|twelve| twelve.iter().sum::<f32>() - 6.0).collect()
}

fn watch(signal: &[f32]) -> (SeriesDetector, SignalAnomaly) {
    let mut detector = SeriesDetector::default();
    let found = detector.watch(signal);
    assert!(found.is_some(), "a signal of finite samples is judged");
    (detector, found.unwrap_or_default())
}

#[test]
fn a_constant_signal_is_never_anomalous() {
    for value in [0.0, -3.5, 1e15] {
        let (_, found) = watch(&[value; 10_000]);
        assert_eq!(found, SignalAnomaly::default(), "{value}");
    }
}

#[test]
fn a_spike_in_noise_is_found_where_it_is() {
    for seed in 1..20 {
        let (mut detector, _) = watch(&normal(seed, 5_000));
        let mut signal = normal(seed + 100, 1_000);
        signal[700] += 12.0;
        let found = detector.watch(&signal).unwrap();
        assert_eq!(found.at, 700, "{seed}: {found:?}");
        assert!(found.score > NOTABLE && found.z_score > 8.0, "{seed}: {found:?}");
        signal[700] -= 24.0;
        assert!(detector.watch(&signal[600..800]).unwrap().z_score < -8.0, "{seed}");
    }
}

#[test]
fn a_spike_is_found_after_a_sample_that_was_wrong() {
    for wrong in [1e4, 1e6, 1e15] {
        let (mut detector, _) = watch(&normal(3, 10_000));
        detector.watch(&[wrong]);
        detector.watch(&normal(4, 2_000));
        let mut signal = normal(5, 1_000);
        signal[700] += 30.0;
        let found = detector.watch(&signal).unwrap();
        assert_eq!(found.at, 700, "{wrong}: {found:?}");
        assert!(found.score > NOTABLE && found.z_score > 15.0, "{wrong}: {found:?}");
    }
}

#[test]
fn a_wrong_sample_soon_after_the_beginning_is_forgotten_within_some_hundred() {
    const SEEDS: std::ops::Range<u64> = 1..20;
    let judged = |seed: u64, wrong: Option<f32>| {
        let mut signal = normal(seed, 600);
        signal[10] = wrong.unwrap_or(signal[10]);
        watch(&signal).0.watch(&[12.0]).unwrap()
    };
    // By the mean, as one that comes soon after another has no score.
    let score = |wrong| SEEDS.map(|seed| judged(seed, wrong).score).sum::<f32>();
    for wrong in [1e2, -1e4, 1e15] {
        for seed in SEEDS {
            let (usual, found) = (judged(seed, None), judged(seed, Some(wrong)));
            assert!(found.z_score > 0.5 * usual.z_score, "{seed}, {wrong:e}: {found:?} and {usual:?}");
        }
        let (usual, found) = (score(None), score(Some(wrong)));
        assert!(found > 0.75 * usual, "{wrong:e}: {found} and {usual}");
    }
}

#[test]
fn a_range_is_followed_from_a_beginning_in_which_nothing_changes() {
    for still in [5, 50, 500] {
        let mut signal = vec![3.0; still];
        signal.extend(normal(7, 3_000).iter().map(|sample| 3.0 + 100.0 * sample));
        let found = watch(&signal).0.watch(&[3.0 + 1_200.0]).unwrap();
        assert!(found.score > NOTABLE && found.z_score > 8.0, "{still}: {found:?}");
    }
}

#[test]
fn a_shift_of_the_level_in_noise_is_found_within_a_hundred_samples() {
    for seed in 1..20 {
        let (mut detector, _) = watch(&normal(seed, 5_000));
        let mut signal = normal(seed + 100, 1_000);
        let before = detector.clone().watch(&signal).unwrap();
        signal[500..].iter_mut().for_each(|sample| *sample += 3.0);
        let found = detector.watch(&signal[..600]).unwrap();
        assert!(before.change < 0.75 && found.change > 0.8, "{seed}: {before:?} {found:?}");
        assert!((500..600).contains(&found.change_at), "{seed}: {found:?}");
    }
}

#[test]
fn a_beat_that_is_cut_short_within_the_usual_range_is_found() {
    let beat = |at: usize| (at % 50) as f32 * 0.1;
    let usual: Vec<f32> = (0..5_000).map(beat).zip(normal(3, 5_000)).map(|(beat, noise)| beat + 0.02 * noise).collect();
    let (mut detector, _) = watch(&usual);
    let before = detector.clone().watch(&usual[..1_000]).unwrap();
    let found = detector.watch(&[&usual[..520], &usual[500..980]].concat()).unwrap();
    assert!(found.at == 520 && found.score > before.score, "{before:?} {found:?}");
}

#[test]
fn a_peak_that_comes_at_its_time_is_worth_less_than_one_out_of_time() {
    let mut quiet = normal(37, 4_000);
    (1_000..2_800).step_by(288).for_each(|place| quiet[place] = 9.0);
    let peak = |place: usize| {
        let mut signal = quiet.clone();
        signal[place] = 9.0;
        let mut detector = SeriesDetector::default();
        signal.iter().map(|sample| detector.step(f64::from(*sample)).score).nth(place).unwrap()
    };
    let (in_time, out_of_time) = (peak(1_000 + 7 * 288), peak(1_000 + 7 * 288 + 150));
    assert!(out_of_time > 1.5 * in_time && in_time > 0.0, "{in_time} {out_of_time}");
}

#[test]
fn noise_alone_is_seldom_notable() {
    let (mut detector, _) = watch(&normal(7, 5_000));
    let notable = normal(8, 50_000).into_iter().filter(|sample| detector.step(f64::from(*sample)).score > 0.55).count();
    assert!(notable <= 10, "{notable} in 50,000");
}

#[test]
fn an_event_is_told_once() {
    let (mut detector, _) = watch(&normal(9, 5_000));
    let scores: Vec<f64> = [20.0_f64; 30].iter().map(|sample| detector.step(*sample).score).collect();
    assert!(scores[0] > 0.55 && scores[1..].iter().all(|score| *score == 0.0), "{scores:?}");
}

#[test]
fn the_scale_of_a_series_does_not_matter() {
    let mut signal = normal(11, 6_000);
    signal[5_500] += 10.0;
    let (_, found) = watch(&signal);
    let (_, scaled) = watch(&signal.iter().map(|sample| sample * 1024.0).collect::<Vec<_>>());
    assert_eq!(found, scaled);
}

fn at(place: usize) -> EntryId {
    EntryId { at_ms: place as u64 + 1, seq: 0 }
}

fn answer(partition: &mut Partition, place: usize, entry: Entry) -> Answer {
    match partition.apply(at(place), &entry) {
        Outcome::Answer(answer) => answer,
        other => unreachable!("{other:?}"),
    }
}

fn signal_event(place: usize, signal: &[f32]) -> Entry {
    Entry::Event(Event { id: place.to_string().into(), input: Input::Signal(signal.to_vec()), label: None })
}

#[test]
fn the_signals_of_a_partition_continue_one_another() {
    let mut signal = normal(13, 6_000);
    signal[5_650] += 12.0;
    let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
    let found: Vec<Option<SignalAnomaly>> = signal
        .chunks(100)
        .enumerate()
        .map(|(place, chunk)| answer(&mut partition, place, signal_event(place, chunk)).anomaly)
        .collect();
    let mut detector = SeriesDetector::default();
    assert_eq!(found, signal.chunks(100).map(|chunk| detector.watch(chunk)).collect::<Vec<_>>());
    let spike = found[56].unwrap();
    assert!(spike.at == 50 && spike.score > NOTABLE, "{spike:?}");
    let again = answer(&mut partition, 60, signal_event(56, &signal[5_600..5_700]));
    assert!(again.duplicate && again.anomaly.is_none());
    assert!(
        !again.patterns.is_empty() && again.patterns.iter().all(|found| !found.new),
        "a look: {:?}",
        again.patterns
    );
}

#[test]
fn a_question_judges_and_learns_nothing() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
    answer(&mut partition, 0, signal_event(0, &normal(17, 3_000)));
    let spike = [0.0, 0.1, 15.0, 0.0];
    let asked = [1, 2].map(|place| answer(&mut partition, place, Entry::Infer(Input::Signal(spike.to_vec()))).anomaly);
    let told = answer(&mut partition, 3, signal_event(3, &spike)).anomaly;
    assert!(asked == [told, told] && told.is_some_and(|told| told.at == 2), "{asked:?} {told:?}");
}

#[test]
fn memory_does_not_grow_with_what_was_seen() {
    let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
    answer(&mut partition, 0, signal_event(0, &[0.0; 2]));
    let few = SeriesDetector::default().bytes();
    let (detector, _) = watch(&normal(19, 30_000));
    assert_eq!(detector.bytes(), few);
    assert!(few < 32 * 1024 && partition.statistics().memory_bytes > few as u64, "{few}");
    let mut rows = RowDetector::default();
    rows.step(&[0.0; 9]);
    let few = rows.bytes();
    for row in normal(23, 90_000).chunks(9) {
        rows.step(row);
    }
    assert_eq!(rows.bytes(), few);
}

#[test]
fn an_unusual_row_stands_out() {
    let mut detector = RowDetector::default();
    for row in normal(29, 9 * 3_000).chunks(9) {
        detector.step(row);
    }
    let usual = normal(31, 9 * 1_000).chunks(9).map(|row| detector.step(row)).fold(0.0, f64::max);
    let mut row = [0.0; 9];
    (row[2], row[7]) = (9.0, -7.0);
    let unusual = detector.step(&row);
    assert!(unusual > usual, "{unusual} {usual}");
}

#[test]
fn an_unusual_row_stands_out_after_one_that_was_wrong() {
    for at in [10, 1_000] {
        let mut detector = RowDetector::default();
        for (place, row) in normal(37, 9 * 3_000).chunks(9).enumerate() {
            detector.step(if place == at { &[1e15; 9] } else { row });
        }
        let usual = normal(41, 9 * 1_000).chunks(9).map(|row| detector.step(row)).fold(0.0, f64::max);
        let unusual = detector.step(&[0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, -7.0, 0.0]);
        assert!(unusual > usual, "{at}: {unusual} {usual}");
    }
}

proptest! {
    #[test]
    fn scores_are_from_0_to_1_whatever_comes(
        signal in prop::collection::vec(prop_oneof![4 => -1.0f32..1.0, 1 => any::<f32>()], 0..500)
    ) {
        let mut detector = SeriesDetector::default();
        let found = detector.watch(&signal);
        prop_assert_eq!(found.is_some(), !signal.is_empty());
        if let Some(found) = found {
            prop_assert!((0.0..=1.0).contains(&found.score) && (0.0..=1.0).contains(&found.change));
            prop_assert!(found.z_score.is_finite());
            prop_assert!((found.at as usize) < signal.len() && (found.change_at as usize) < signal.len());
        }
        let mut rows = RowDetector::default();
        for row in signal.chunks(7) {
            prop_assert!((0.0..=1.0).contains(&rows.step(row)));
        }
    }
}
