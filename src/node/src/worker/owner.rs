//! Owns one partition: claims it, replays what follows its checkpoint, applies, answers, checkpoints, gives it up.
//!
//! An answer leaves only while the lease can't have expired: the local deadline counts from before the renewal was sent.
//! When the store is away the state stays in memory, and ownership resumes without a reload if nobody else claimed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_engine::{Control, Entry, EntryId, Outcome, Partition, PartitionConfig, Query, Rejection};
use hebb_log::{Claim, Claimed, Domain, LogError, PartitionKey, Record, Reply};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::pace::{SinceCheckpoint, is_due};
use super::report::PartitionReport;
use super::{Board, WorkerMetrics};
use crate::stop::Stop;
use crate::store::Store;

/// How long a claim lasts unless it is renewed: a dead owner is replaced this long after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(3);
/// Three tries fit in a lease, so one lost call costs nothing.
const RENEW_EVERY: Duration = Duration::from_millis(900);
/// The owner stops answering this long before the lease ends, for clocks of different speed and for the way back.
const LEASE_MARGIN: Duration = Duration::from_millis(300);
/// How long a read waits for the first entry; short enough to renew and to stop in time.
const READ_WAIT: Duration = Duration::from_millis(400);
/// Entries applied at a stretch: at 10,000/s they take 25 ms, so that the process stays responsive.
const BATCH_MAX: usize = 256;
/// Wait after a failed call to the store.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A control entry is never refused for a full queue: there is one a change.
const NO_WAITING_MAX: u64 = u64::MAX;

/// What an owner works with.
pub struct OwnerContext {
    pub store: Store,
    pub worker: String,
    pub board: Arc<Board>,
    pub metrics: WorkerMetrics,
    pub checkpoint_interval: Duration,
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
    /// The configuration that was last appended, so that it is appended once.
    asked_config: Option<PartitionConfig>,
}

enum Ended {
    Stopped,
    Superseded,
    /// The stored state can't be read.
    Unreadable(String),
}

/// Owns `key` until the stop.
pub async fn own(context: Arc<OwnerContext>, key: PartitionKey, domain: watch::Receiver<Domain>, stop: Stop) {
    while !stop.is_asked() {
        let ended = match claim(&context, &key, None).await {
            Ok((Claimed::New(claim), asked_at)) => match load(&context, claim, &domain, asked_at).await {
                Ok(owned) => serve(&context, owned, &domain, &stop).await,
                Err(LogError::Corrupt(why)) => Ended::Unreadable(why),
                Err(LogError::Fenced) => Ended::Superseded,
                Err(error) => {
                    debug!(partition = %key, %error, "the state could not be loaded; trying again");
                    Ended::Superseded
                }
            },
            // Nothing was offered to resume, so this is a lease of an earlier life of ours, or of another's: wait.
            Ok((Claimed::Resumed(_) | Claimed::Held { .. }, _)) => Ended::Superseded,
            Err(error) => {
                debug!(partition = %key, %error, "the claim failed; trying again");
                Ended::Superseded
            }
        };
        context.board.remove(&key);
        match ended {
            Ended::Stopped => return,
            Ended::Superseded => tokio::time::sleep(RETRY_AFTER).await,
            Ended::Unreadable(why) => {
                // The stored bytes stay as they are for a person, or a newer version, to look at.
                warn!(partition = %key, why, "the stored state can't be read; the partition stays down");
                context.board.broken(&key, why);
                let mut stop = stop.clone();
                tokio::select! {
                    () = stop.asked() => {}
                    () = tokio::time::sleep(LEASE * 10) => {}
                }
            }
        }
    }
}

/// Claims, and says since when the lease counts at the latest.
async fn claim(
    context: &OwnerContext,
    key: &PartitionKey,
    previous: Option<&Claim>,
) -> Result<(Claimed, Instant), LogError> {
    let asked_at = Instant::now();
    let claimed = context.store.log.claim(key, &context.worker, previous, LEASE).await?;
    Ok((claimed, asked_at))
}

/// Restores the checkpoint, or begins with one, so that what a partition started from is never in doubt.
async fn load(
    context: &OwnerContext,
    claim: Claim,
    domain: &watch::Receiver<Domain>,
    asked_at: Instant,
) -> Result<Owned, LogError> {
    let started = Instant::now();
    let (partition, state_bytes) = match context.store.log.load(&claim.partition).await? {
        Some(checkpoint) => {
            let partition = tokio::task::block_in_place(|| Partition::restore(&checkpoint.state))
                .map_err(|error| LogError::Corrupt(error.to_string()))?;
            (partition, checkpoint.state.len() as u64)
        }
        None => {
            let partition = Partition::new(domain.borrow().config.clone());
            let state = partition.snapshot();
            context.store.log.checkpoint(&claim, partition.position(), &state).await?;
            (partition, state.len() as u64)
        }
    };
    info!(
        partition = %claim.partition, epoch = claim.epoch, position = %partition.position(), bytes = state_bytes,
        milliseconds = started.elapsed().as_millis() as u64, "took over the partition"
    );
    Ok(Owned {
        claim,
        partition,
        valid_until: asked_at + LEASE - LEASE_MARGIN,
        renewed_at: asked_at,
        checkpointed_at: Instant::now(),
        checkpoint_cost: Duration::ZERO,
        state_bytes,
        since: SinceCheckpoint::default(),
        asked_config: None,
    })
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
            Err(error) => {
                debug!(partition = %owned.claim.partition, %error, "the store is away; the state stays in memory");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn step(context: &OwnerContext, owned: &mut Owned, domain: &watch::Receiver<Domain>) -> Result<(), LogError> {
    if owned.renewed_at.elapsed() >= RENEW_EVERY {
        renew(context, owned).await?;
    }
    configure(context, owned, domain).await?;
    let entries =
        context.store.log.read(&owned.claim.partition, owned.partition.position(), BATCH_MAX, READ_WAIT).await?;
    if !entries.is_empty() {
        let replies = tokio::task::block_in_place(|| apply(&mut owned.partition, &entries));
        owned.since.entries += entries.len() as u64;
        owned.since.bytes += entries.iter().map(|(_, record)| record.entry.len() as u64).sum::<u64>();
        context.metrics.applied(entries.len() as u64);
        if Instant::now() >= owned.valid_until {
            renew(context, owned).await?;
        }
        let progress = context.store.log.progress(&owned.claim, owned.since.entries);
        let (progressed, answered) = tokio::join!(progress, answer(context, replies));
        progressed?;
        answered?;
    }
    owned.since.elapsed = owned.checkpointed_at.elapsed();
    if is_due(owned.since, context.checkpoint_interval, owned.checkpoint_cost) {
        checkpoint(context, owned).await?;
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

/// Brings changed hyperparameters into the log, so that every replay takes them up at the same place.
async fn configure(
    context: &OwnerContext,
    owned: &mut Owned,
    domain: &watch::Receiver<Domain>,
) -> Result<(), LogError> {
    let wanted = PartitionConfig { seed: owned.partition.config().seed, ..domain.borrow().config.clone() };
    if wanted == *owned.partition.config()
        || wanted.task != owned.partition.config().task
        || owned.asked_config.as_ref() == Some(&wanted)
    {
        return Ok(());
    }
    let entry = Entry::Control(Control::Configure(wanted.clone())).encode();
    let record = Record { entry, reply_to: None };
    context.store.log.append(&owned.claim.partition, &[record], NO_WAITING_MAX).await?;
    info!(partition = %owned.claim.partition, "new hyperparameters");
    owned.asked_config = Some(wanted);
    Ok(())
}

/// Applies entries in order; the outcomes by gateway.
fn apply(partition: &mut Partition, entries: &[(EntryId, Record)]) -> BTreeMap<String, Vec<Reply>> {
    let mut replies: BTreeMap<String, Vec<Reply>> = BTreeMap::new();
    for (id, record) in entries {
        let outcome = match Entry::decode(&record.entry) {
            Ok(entry) => partition.apply(*id, &entry),
            Err(_) => {
                // A read in its place moves the position on, in every replay alike.
                partition.apply(*id, &Entry::Query(Query::Statistics));
                Outcome::Rejected(Rejection::Unreadable)
            }
        };
        if let Some(to) = &record.reply_to {
            let reply = Reply { request: to.request, body: outcome.encode() };
            match replies.get_mut(&to.gateway) {
                Some(batch) => batch.push(reply),
                None => {
                    replies.insert(to.gateway.clone(), vec![reply]);
                }
            }
        }
    }
    replies
}

async fn answer(context: &OwnerContext, replies: BTreeMap<String, Vec<Reply>>) -> Result<(), LogError> {
    for (gateway, batch) in replies {
        context.store.replies.send(&gateway, batch).await?;
    }
    Ok(())
}

async fn checkpoint(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    let started = Instant::now();
    let state = tokio::task::block_in_place(|| owned.partition.snapshot());
    context.store.log.checkpoint(&owned.claim, owned.partition.position(), &state).await?;
    owned.checkpointed_at = Instant::now();
    owned.checkpoint_cost = started.elapsed();
    owned.state_bytes = state.len() as u64;
    owned.since = SinceCheckpoint::default();
    context.metrics.checkpointed(owned.checkpoint_cost);
    Ok(())
}

/// Checkpoints and releases, so that the next owner starts at once and replays nothing.
async fn leave(context: &OwnerContext, mut owned: Owned) -> Ended {
    let key = owned.claim.partition.clone();
    let left = async {
        if owned.since.entries > 0 {
            checkpoint(context, &mut owned).await?;
        }
        context.store.log.release(&owned.claim).await
    };
    match left.await {
        Ok(()) => info!(partition = %key, "gave the partition up"),
        Err(error) => warn!(partition = %key, %error, "left without a checkpoint; the next owner replays the log"),
    }
    Ended::Stopped
}

fn report(owned: &Owned) -> PartitionReport {
    PartitionReport {
        domain: owned.claim.partition.domain.clone(),
        index: owned.claim.partition.index,
        epoch: owned.claim.epoch,
        state_bytes: owned.state_bytes,
        checkpoint_ms: owned.checkpoint_cost.as_millis() as u64,
        statistics: owned.partition.statistics(),
    }
}
