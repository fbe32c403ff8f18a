//! Owns one partition: claims it, replays what follows its checkpoint, applies, answers, checkpoints, gives it up.
//!
//! Its life is here, from the claim to the leave; each part of it has a file: [`takeover`], [`reading`], [`turn`],
//! [`checkpoints`], [`controls`], [`reports`], and [`failures`] for what ends a life early.
//!
//! An answer leaves only while the lease can't have expired: the local deadline counts from before the renewal was sent.
//! When the store is away the state stays in memory, and ownership resumes without a reload if nobody else claimed since.

mod checkpoints;
mod controls;
mod failures;
mod reading;
mod reports;
mod takeover;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hebb_engine::{EntryId, Governance, Partition, PartitionConfig};
use hebb_log::{Claim, Claimed, Domain, LogError, PartitionKey, Record, Reply};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use self::checkpoints::{Storing, arrived, settle, snapshot};
use self::controls::tell_changes;
pub use self::failures::RESTART_AFTER;
use self::failures::{Failures, WELL_AFTER, message};
use self::reading::{Reading, SMALL_BATCH, read, read_on};
use self::reports::{PROGRESS_WITHIN, READ_WAIT, answer, progress, report};
use self::takeover::{claim, load_until};
pub use self::turn::TURN;
use self::turn::take_turn;
use super::fallback::Fallback;
use super::pace::{SinceCheckpoint, is_due};
use super::{Board, WorkerMetrics};
use crate::stop::Stop;
use crate::store::Store;
use crate::stored::StoredError;

/// How long a claim lasts unless it is renewed: a dead owner is replaced this long after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(3);
/// Three tries fit in a lease, so one lost call costs nothing.
const RENEW_EVERY: Duration = Duration::from_millis(900);
/// The owner stops answering this long before the lease ends, for clocks of different speed and for the way back.
const LEASE_MARGIN: Duration = Duration::from_millis(300);
/// Failures in a row from which on the worker isn't ready.
const FAILURES_TOLD: u32 = 3;
/// Wait after a failed call to the store.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What an owner works with.
#[derive(Clone)]
pub struct OwnerContext {
    pub store: Store,
    pub worker: String,
    pub board: Arc<Board>,
    pub metrics: WorkerMetrics,
    pub checkpoint_interval: Duration,
    pub governance: Governance,
    pub skip_unreadable: bool,
    /// Entries after which the store is told how far a partition is.
    pub progress_every: u64,
    /// How long entries are applied before what has come of them is answered.
    pub turn: Duration,
    /// Wait after the first failure of a partition.
    pub restart_after: Duration,
}

/// A state in memory and the right to it.
struct Owned {
    claim: Claim,
    partition: Partition,
    /// Until when answers may leave.
    valid_until: Instant,
    renewed_at: Instant,
    checkpointed_at: Instant,
    checkpoint_cost: Duration,
    state_bytes: u64,
    since: SinceCheckpoint,
    /// The checkpoint of an older layout that is kept for a while, if any.
    fallback: Option<Fallback>,
    storing: Option<Storing>,
    /// What comes after the entries that were applied last, where there were many.
    reading: Option<Reading>,
    /// What was read and isn't applied yet: a turn ended before it.
    unapplied: VecDeque<(EntryId, Record)>,
    /// How many entries the store was told of that aren't in its checkpoint, and when. Nothing since it has another one.
    progress: (Option<u64>, Instant),
    /// Outcomes that haven't left yet, by gateway.
    outcomes: BTreeMap<String, Vec<Reply>>,
    /// What one of the entries cost that were applied last.
    entry_cost: Duration,
    /// The configuration that was last appended, so that it is appended once.
    asked_config: Option<PartitionConfig>,
    /// The same of a governed memory's rhythm and thresholds.
    asked_governance: Option<Governance>,
}

enum Ended {
    Stopped,
    Superseded,
    /// The stored state can't be read.
    Unreadable(String),
    /// It panicked, and with what.
    Failed(String),
}

/// Owns `key` until the stop.
pub async fn own(context: Arc<OwnerContext>, key: PartitionKey, domain: watch::Receiver<Domain>, stop: Stop) {
    let mut failures = Failures::new(context.restart_after);
    while !stop.is_asked() {
        let begun_at = Instant::now();
        // What it held goes with it: the next life begins with what is stored.
        let ended = AssertUnwindSafe(live(&context, &key, &domain, &stop)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|panic| Ended::Failed(message(&*panic)));
        context.board.remove(&key);
        match ended {
            Ended::Stopped => break,
            Ended::Superseded => tokio::time::sleep(RETRY_AFTER).await,
            Ended::Unreadable(why) => {
                // The stored bytes stay as they are for a person, or a newer version, to look at.
                warn!(partition = %key, why, "the stored state can't be read; the partition stays down");
                context.board.broken(&key, format!("the state of {key} can't be read: {why}"), None);
                pause(&stop, LEASE * 10).await;
            }
            Ended::Failed(why) => {
                let (failures, wait) = failures.add(begun_at.elapsed());
                error!(partition = %key, failures, why, wait_s = wait.as_secs(), "applying the log failed; it is tried again");
                if failures >= FAILURES_TOLD {
                    let why = format!("applying the log of {key} failed {failures} times in a row: {why}");
                    context.board.broken(&key, why, Some(Instant::now() + wait + WELL_AFTER));
                }
                pause(&stop, wait).await;
            }
        }
    }
    context.board.forget(&key);
}

async fn pause(stop: &Stop, wait: Duration) {
    let mut stop = stop.clone();
    tokio::select! {
        () = stop.asked() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// One life of an owner, from the claim to its end.
async fn live(context: &OwnerContext, key: &PartitionKey, domain: &watch::Receiver<Domain>, stop: &Stop) -> Ended {
    match claim(context, key, None).await {
        Ok((Claimed::New(claim), asked_at)) => match load_until(context, claim, domain, asked_at, stop).await {
            Ok(Some(owned)) => serve(context, owned, domain, stop).await,
            Ok(None) => Ended::Stopped,
            Err(StoredError::Log(LogError::Fenced)) => Ended::Superseded,
            Err(StoredError::Log(
                error @ (LogError::Unavailable(_) | LogError::Full { .. } | LogError::Invalid(_)),
            )) => {
                debug!(partition = %key, %error, "the state could not be loaded; trying again");
                Ended::Superseded
            }
            Err(error) => Ended::Unreadable(error.to_string()),
        },
        // Nothing was offered to resume, so this is a lease of an earlier life of ours, or of another's: wait.
        Ok((Claimed::Resumed(_) | Claimed::Held { .. }, _)) => Ended::Superseded,
        Err(error) => {
            debug!(partition = %key, %error, "the claim failed; trying again");
            Ended::Superseded
        }
    }
}

/// Applies and answers until the stop or until another owner took over.
async fn serve(context: &OwnerContext, mut owned: Owned, domain: &watch::Receiver<Domain>, stop: &Stop) -> Ended {
    loop {
        if stop.is_asked() {
            return leave(context, owned).await;
        }
        match step(context, &mut owned, domain).await {
            Ok(()) => {}
            Err(LogError::Fenced) => {
                warn!(
                    partition = %owned.claim.partition, epoch = owned.claim.epoch,
                    "another owner took over, or the store has lost something"
                );
                // In the second case the lease is still ours, and would keep out the next one, which may be us.
                if let Err(error) = context.store.log.release(&owned.claim).await {
                    debug!(partition = %owned.claim.partition, %error, "the lease ends by itself");
                }
                return Ended::Superseded;
            }
            Err(error @ LogError::Invalid(_)) => {
                // No wait mends that.
                error!(partition = %owned.claim.partition, %error, "the store refuses what this partition writes");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => {
                debug!(partition = %owned.claim.partition, %error, "the store is away; the state stays in memory");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn step(context: &OwnerContext, owned: &mut Owned, domain: &watch::Receiver<Domain>) -> Result<(), LogError> {
    // A store that is full refuses these, and has room again only if owners go on; one that is away says so below.
    if let Err(error) = tell_changes(context, owned, domain).await {
        debug!(partition = %owned.claim.partition, %error, "what has changed can't be told yet");
    }
    settle(context, owned)?;
    if owned.renewed_at.elapsed() >= RENEW_EVERY || Instant::now() >= owned.valid_until {
        renew(context, owned).await?;
    }
    // What was applied last is answered while what comes next is read.
    let outcomes = mem::take(&mut owned.outcomes);
    let told = owned.progress_due(context.progress_every);
    let wait = if told.or(owned.progress.0) == Some(owned.ahead()) { READ_WAIT } else { PROGRESS_WITHIN };
    let is_behind = !owned.unapplied.is_empty();
    let begun = if is_behind { None } else { owned.reading.take() };
    let fresh = async {
        match is_behind {
            true => Ok(Vec::new()),
            false => read(context, &owned.claim.partition, owned.partition.position(), begun, wait).await,
        }
    };
    let (read, answered, progressed) =
        tokio::join!(fresh, answer(context, outcomes), progress(context, &owned.claim, told));
    progressed?;
    if let Some(told) = told {
        owned.progress = (Some(told), Instant::now());
    }
    answered?;
    let entries = read?;
    owned.since.elapsed = owned.checkpointed_at.elapsed();
    // The end of a fallback waits for no entry.
    let is_due = is_due(owned.since, context.checkpoint_interval, owned.checkpoint_cost)
        || owned.fallback.is_some_and(|fallback| fallback.is_over(Instant::now()));
    if owned.storing.is_none() && is_due {
        snapshot(context, owned);
    }
    if entries.len() > SMALL_BATCH
        && let Some((last, _)) = entries.last()
    {
        owned.reading = Some(read_on(context, &owned.claim.partition, *last));
    }
    owned.unapplied.extend(entries);
    if !owned.unapplied.is_empty() {
        take_turn(context, owned).await;
    }
    context.board.put(&owned.claim.partition, || report(owned));
    Ok(())
}

async fn renew(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    let asked_at = Instant::now();
    context.store.log.renew(&owned.claim, LEASE).await?;
    owned.renewed_at = asked_at;
    owned.valid_until = asked_at + LEASE - LEASE_MARGIN;
    Ok(())
}

/// Answers, checkpoints and releases, so that the next owner starts at once and replays nothing.
async fn leave(context: &OwnerContext, mut owned: Owned) -> Ended {
    let key = owned.claim.partition.clone();
    let left = async {
        if Instant::now() < owned.valid_until {
            answer(context, mem::take(&mut owned.outcomes)).await?;
        }
        loop {
            arrived(context, &mut owned).await?;
            if owned.since.entries == 0 {
                return context.store.log.release(&owned.claim).await;
            }
            snapshot(context, &mut owned);
        }
    };
    match left.await {
        Ok(()) => info!(partition = %key, "gave the partition up"),
        Err(error) => warn!(partition = %key, %error, "left without a checkpoint; the next owner replays the log"),
    }
    Ended::Stopped
}

#[cfg(test)]
mod tests;
