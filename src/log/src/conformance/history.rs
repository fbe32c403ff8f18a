//! What every history has to do, as functions that take a history and the directory that its terms are of, both new.

use super::LONG;
use crate::{Batch, Directory, History, LogError, MAX_HISTORY_BYTES, MAX_SERIES_BYTES, Samples, Tier};

/// Calls a macro with the name of every function of the suite.
#[macro_export]
macro_rules! history_suite {
    ($with:ident) => {
        $with! {
            what_was_measured_comes_back, a_span_is_kept_as_it_was_told_last, a_series_is_read_alone,
            tiers_are_apart, what_is_old_is_pruned, a_leader_of_the_past_records_nothing,
            a_batch_has_its_bounds, a_week_is_kept_and_no_more_is_asked_for,
        }
    };
}

/// A Saturday in 2026; a whole number of spans of either length.
const START: u32 = 1_795_824_000;

fn samples(value: f32) -> Samples {
    Samples { count: 3, min: value - 1.0, max: value + 1.5, sum: value * 3.0 }
}

fn batch(at: u32, series: &[(&str, f32)]) -> Batch {
    Batch { at, series: series.iter().map(|(name, value)| ((*name).to_owned(), samples(*value))).collect() }
}

async fn term(directory: &impl Directory) -> Result<u64, LogError> {
    Ok(directory.campaign("coordinator-0", "127.0.0.1:8000", LONG).await?.term)
}

/// Bit by bit, in the order of time, and within the time that was asked for.
pub async fn what_was_measured_comes_back(history: &impl History, directory: &impl Directory) -> Result<(), LogError> {
    let term = term(directory).await?;
    assert_eq!(history.read(Tier::Fine, None, 0, u32::MAX).await?, []);
    let batches = [
        batch(START, &[("cluster/lag", 0.1), ("domain/a/accuracy", 1.0 / 3.0)]),
        batch(START + 10, &[("cluster/lag", -0.0)]),
        batch(START + 30, &[("cluster/lag", f32::MAX), ("domain/b/accuracy", f32::MIN_POSITIVE)]),
    ];
    for one in [1, 0, 2] {
        history.record(term, Tier::Fine, &batches[one]).await?;
    }
    assert_eq!(history.read(Tier::Fine, None, START, START + 30).await?, batches);
    assert_eq!(history.read(Tier::Fine, None, START + 1, START + 29).await?, batches[1..2]);
    assert_eq!(history.read(Tier::Fine, None, START + 11, START + 29).await?, []);
    assert_eq!(history.read(Tier::Fine, None, START + 20, START).await?, []);
    Ok(())
}

/// A second word about a span takes the place of the first.
pub async fn a_span_is_kept_as_it_was_told_last(
    history: &impl History,
    directory: &impl Directory,
) -> Result<(), LogError> {
    let term = term(directory).await?;
    history.record(term, Tier::Fine, &batch(START, &[("a", 1.0), ("b", 2.0)])).await?;
    let last = batch(START, &[("b", 3.0), ("c", 4.0)]);
    history.record(term, Tier::Fine, &last).await?;
    history.record(term, Tier::Fine, &last).await?;
    assert_eq!(history.read(Tier::Fine, None, START, START).await?, [last]);
    Ok(())
}

/// Without the others, and without the spans in which it wasn't measured.
pub async fn a_series_is_read_alone(history: &impl History, directory: &impl Directory) -> Result<(), LogError> {
    let term = term(directory).await?;
    history.record(term, Tier::Coarse, &batch(START, &[("a", 1.0), ("b", 2.0)])).await?;
    history.record(term, Tier::Coarse, &batch(START + 300, &[("a", 3.0)])).await?;
    history.record(term, Tier::Coarse, &batch(START + 600, &[("a", 4.0), ("b", 5.0)])).await?;
    let alone = [batch(START, &[("b", 2.0)]), batch(START + 600, &[("b", 5.0)])];
    assert_eq!(history.read(Tier::Coarse, Some("b"), START, START + 600).await?, alone);
    assert_eq!(history.read(Tier::Coarse, Some("c"), START, START + 600).await?, []);
    Ok(())
}

/// Five minutes aren't ten seconds.
pub async fn tiers_are_apart(history: &impl History, directory: &impl Directory) -> Result<(), LogError> {
    let term = term(directory).await?;
    history.record(term, Tier::Fine, &batch(START, &[("a", 1.0)])).await?;
    history.record(term, Tier::Coarse, &batch(START, &[("a", 2.0)])).await?;
    assert_eq!(history.prune(term, Tier::Fine, START + 1).await?, 1);
    assert_eq!(history.read(Tier::Fine, None, 0, START).await?, []);
    assert_eq!(history.read(Tier::Coarse, None, START, START).await?, [batch(START, &[("a", 2.0)])]);
    Ok(())
}

/// What began before, and nothing else.
pub async fn what_is_old_is_pruned(history: &impl History, directory: &impl Directory) -> Result<(), LogError> {
    let term = term(directory).await?;
    for number in 0..5 {
        history.record(term, Tier::Fine, &batch(START + number * 10, &[("a", 1.0), ("b", 2.0)])).await?;
    }
    assert_eq!(history.prune(term, Tier::Fine, START + 30).await?, 3);
    assert_eq!(history.prune(term, Tier::Fine, START + 30).await?, 0);
    let left = history.read(Tier::Fine, None, START, START + 100).await?;
    assert_eq!(left.iter().map(|batch| batch.at).collect::<Vec<_>>(), [START + 30, START + 40]);
    Ok(())
}

/// One writes.
pub async fn a_leader_of_the_past_records_nothing(
    history: &impl History,
    directory: &impl Directory,
) -> Result<(), LogError> {
    let first = term(directory).await?;
    let kept = batch(START, &[("a", 1.0)]);
    history.record(first, Tier::Fine, &kept).await?;
    directory.resign("coordinator-0").await?;
    let second = directory.campaign("coordinator-1", "127.0.0.1:8001", LONG).await?.term;
    let newer = batch(START + 10, &[("a", 2.0)]);
    history.record(second, Tier::Fine, &newer).await?;
    let late = history.record(first, Tier::Fine, &batch(START, &[("a", 9.0)])).await;
    assert!(matches!(late, Err(LogError::Fenced)));
    assert!(matches!(history.prune(first, Tier::Fine, u32::MAX).await, Err(LogError::Fenced)));
    assert_eq!(history.read(Tier::Fine, None, START, START + 10).await?, [kept, newer]);
    Ok(())
}

/// What is too much, too long, or begins at no span's beginning is refused.
pub async fn a_batch_has_its_bounds(history: &impl History, directory: &impl Directory) -> Result<(), LogError> {
    let term = term(directory).await?;
    let name = "n".repeat(MAX_SERIES_BYTES - 3);
    let count = MAX_HISTORY_BYTES / Batch::bytes_of(&name);
    let many = |count: usize| Batch {
        at: START,
        series: (0..count).map(|number| (format!("{}{number:03}", &name[3..]), samples(1.0))).collect(),
    };
    history.record(term, Tier::Coarse, &many(count)).await?;
    assert_eq!(history.read(Tier::Coarse, None, START, START).await?, [many(count)]);
    let long = "n".repeat(MAX_SERIES_BYTES + 1);
    for refused in
        [many(count + 1), batch(START + 1, &[("a", 1.0)]), batch(START, &[(&long, 1.0)]), batch(START, &[("", 1.0)])]
    {
        assert!(matches!(history.record(term, Tier::Coarse, &refused).await, Err(LogError::Invalid(_))));
    }
    Ok(())
}

/// What a tier keeps is there to the last span.
pub async fn a_week_is_kept_and_no_more_is_asked_for(
    history: &impl History,
    directory: &impl Directory,
) -> Result<(), LogError> {
    let term = term(directory).await?;
    let tier = Tier::Coarse;
    let at = |number: u32| START + number * tier.length();
    for number in 0..=tier.kept() {
        history.record(term, tier, &batch(at(number), &[("a", number as f32)])).await?;
    }
    history.prune(term, tier, at(1)).await?;
    let week = history.read(tier, Some("a"), 0, at(tier.kept())).await?;
    assert_eq!(week.len(), tier.kept() as usize);
    assert_eq!(week.first().map(|batch| batch.at), Some(at(1)));
    assert_eq!(week.last(), Some(&batch(at(tier.kept()), &[("a", tier.kept() as f32)])));
    Ok(())
}
