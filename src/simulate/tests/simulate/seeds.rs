//! Many seeds, each a minute of more faults than any cluster has; and that a seed is all that it takes to repeat a run.

use std::time::Duration;

use hebb_simulate::{Profile, Report, Wall, simulate};

/// Together they take less than a minute of one processor.
const SEEDS: u64 = 200;

fn run(seed: u64) -> Report {
    simulate(&Profile::Chaos.settings(seed), |_| {}).unwrap()
}

/// What was not kept, and how to see it again.
fn failures(report: &Report) -> Vec<String> {
    let broken = report.checks.iter().filter(|check| !check.kept);
    let said = broken.map(|check| format!("{}: {}", check.name, check.found)).chain(report.troubles.iter().cloned());
    said.map(|what| format!("seed {}: {what}", report.seed)).collect()
}

#[test]
fn whatever_goes_wrong_every_promise_is_kept() {
    let reports: Vec<Report> = (0..SEEDS).map(run).collect();
    let failures: Vec<String> = reports.iter().flat_map(failures).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // Nothing is proven by faults that didn't happen.
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    assert!(sum(|report| report.faults.worker_crashes) > SEEDS);
    assert!(sum(|report| report.faults.coordinator_crashes) > SEEDS);
    assert!(sum(|report| report.faults.gateway_crashes) > SEEDS / 2);
    assert!(sum(|report| report.faults.store_away) > SEEDS / 4);
    assert!(sum(|report| report.faults.clock_jumps) > SEEDS);
    assert!(sum(|report| report.store.calls_doubled) > SEEDS * 10);
    assert!(sum(|report| report.store.checkpoints) > SEEDS * 10);
}

#[test]
fn a_seed_repeats_a_run_and_another_seed_does_not() {
    let once = |seed| Report { wall: Wall::default(), ..run(seed) };
    let (first, again, other) = (once(7), once(7), once(8));
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&again).unwrap());
    assert_ne!(first.store.calls, other.store.calls);
}

#[test]
fn the_profile_of_every_day_keeps_what_is_promised_of_answers_too() {
    let settings = hebb_simulate::Settings { duration: Duration::from_secs(300), ..Profile::Standard.settings(1) };
    let report = simulate(&settings, |_| {}).unwrap();
    assert!(failures(&report).is_empty(), "{}", failures(&report).join("\n"));
    assert!(report.checks.iter().any(|check| check.name == "more_than_99_percent_succeed"));
}
