//! Owns one partition: claims it, replays what follows its checkpoint, applies, answers, checkpoints, gives it up.
//!
//! An answer leaves only while the lease can't have expired: the local deadline counts from before the renewal was sent.
//! When the store is away the state stays in memory, and ownership resumes without a reload if nobody else claimed since.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join_all;
use hebb_engine::{
    Control, Entry, EntryId, Governance, Outcome, Partition, PartitionConfig, Rejection, SNAPSHOT_VERSION,
};
use hebb_log::{Checkpoint, Claim, Claimed, Domain, LogError, PartitionKey, Record, Reply};
use hebb_telemetry::traces::{Span, SpanKind, TraceParent};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::fallback::Fallback;
use super::pace::{SinceCheckpoint, is_due};
use super::{Board, WorkerMetrics};
use crate::replay;
use crate::report::{PartitionReport, shorten};
use crate::stop::Stop;
use crate::store::Store;
use crate::stored::{self, Restored, StoredError};
use crate::task::at_length;
use crate::trail;

/// How long a claim lasts unless it is renewed: a dead owner is replaced this long after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(3);
/// Three tries fit in a lease, so one lost call costs nothing.
const RENEW_EVERY: Duration = Duration::from_millis(900);
/// The owner stops answering this long before the lease ends, for clocks of different speed and for the way back.
const LEASE_MARGIN: Duration = Duration::from_millis(300);
/// How long a read waits for the first entry; short enough to renew and to stop in time.
const READ_WAIT: Duration = Duration::from_millis(400);
/// Entries of one read: at 10,000/s they take 25 ms, so that answers, a renewal and a stop come in time.
const BATCH_MAX: usize = 256;
/// Up to here what follows isn't read meanwhile: to begin that costs more than the entries do.
const SMALL_BATCH: usize = 8;
/// Entries applied at a stretch. After each the runtime's other tasks have their turn, those that append what comes next
/// among them: else the disk is idle while entries are applied, and the processor while they are written.
const STRETCH: usize = 64;
/// Up to this long a stretch may take without the runtime's being told that its thread is busy: it wakes another thread
/// then, which has to wait for a processor.
const SHORT_STRETCH: Duration = Duration::from_millis(1);
/// A turn ends with the entry that takes it beyond this: what was applied is answered then, and the lease renewed. An answer
/// is waited for about ten seconds, and entries can cost tenths of one.
pub const TURN: Duration = Duration::from_millis(100);
/// Wait after the first failure of a partition; twice as long after each that follows.
const RESTART_AFTER: Duration = Duration::from_secs(5);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(300);
/// Failures in a row from which on the worker isn't ready.
const FAILURES_TOLD: u32 = 3;
/// An owner that has run for so long has got over what made it fail before.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How old the store's knowledge of what was applied may become, short of `progress_every` entries.
const PROGRESS_WITHIN: Duration = Duration::from_millis(20);
/// Wait after a failed call to the store.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A control entry is never refused for a full queue: there is one a change.
const NO_WAITING_MAX: u64 = u64::MAX;

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
    /// Of `since`, what the store was told of, and when.
    progress: (u64, Instant),
    /// Outcomes that haven't left yet, by gateway.
    outcomes: BTreeMap<String, Vec<Reply>>,
    /// What one of the entries cost that were applied last.
    entry_cost: Duration,
    /// The configuration that was last appended, so that it is appended once.
    asked_config: Option<PartitionConfig>,
    /// The same of a governed memory's rhythm and thresholds.
    asked_governance: Option<Governance>,
}

/// A snapshot on its way into the store. It is given up with the ownership.
struct Storing {
    task: JoinSet<Result<Duration, LogError>>,
    /// What it holds that the checkpoint before it doesn't.
    since: SinceCheckpoint,
}

/// Entries on their way from the store while those before them are applied. It is given up with the ownership.
type Reading = JoinSet<Result<Vec<(EntryId, Record)>, LogError>>;

/// How a [`Storing`] ends: what it cost.
type Stored = Result<Result<Duration, LogError>, JoinError>;

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
    let mut failures = Failures::default();
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

/// How often a partition has failed without having run well in between.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// Counts one, of an owner that has run for so long; how many there are, and what to wait before the next life.
    fn add(&mut self, ran: Duration) -> (u32, Duration) {
        if ran >= WELL_AFTER {
            self.0 = 0;
        }
        let doubled = RESTART_AFTER.saturating_mul(1_u32.checked_shl(self.0).unwrap_or(u32::MAX));
        self.0 = self.0.saturating_add(1);
        (self.0, doubled.min(RESTART_AFTER_MAX))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
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

/// Loads the partition, or gives it up at the stop: the replay from a fallback can take minutes.
async fn load_until(
    context: &OwnerContext,
    claim: Claim,
    domain: &watch::Receiver<Domain>,
    asked_at: Instant,
    stop: &Stop,
) -> Result<Option<Owned>, StoredError> {
    let (mut stop, given_up) = (stop.clone(), claim.clone());
    tokio::select! {
        biased;
        loaded = load(context, claim, domain, asked_at) => loaded.map(Some),
        () = stop.asked() => {
            context.store.log.release(&given_up).await?;
            Ok(None)
        }
    }
}

/// Restores the checkpoint, or begins with one, so that what a partition started from is never in doubt. What was made of a
/// fallback is stored at once too: whoever comes next can read it.
async fn load(
    context: &OwnerContext,
    claim: Claim,
    domain: &watch::Receiver<Domain>,
    asked_at: Instant,
) -> Result<Owned, StoredError> {
    let started = Instant::now();
    let log = context.store.log.as_ref();
    let mut renewed_at = asked_at;
    let (partition, mut fallback, stored) = match log.load(&claim.partition).await? {
        Some(newest) => {
            let restored = restore(context, &claim, &newest, &mut renewed_at).await?;
            let fallback = fallback(&newest, &restored);
            (restored.partition, fallback, (!restored.is_fallback).then_some(newest.state.len()))
        }
        None => (Partition::governed(domain.borrow().config.clone(), context.governance), None, None),
    };
    let state_bytes = match stored {
        Some(bytes) => bytes as u64,
        None => {
            let state = at_length(|| partition.snapshot());
            let kept = fallback.as_mut().map(|fallback| fallback.kept(partition.position(), Instant::now()));
            log.checkpoint(&claim, partition.position(), &state, kept).await?;
            state.len() as u64
        }
    };
    info!(
        partition = %claim.partition, epoch = claim.epoch, position = %partition.position(), bytes = state_bytes,
        milliseconds = started.elapsed().as_millis() as u64, "took over the partition"
    );
    Ok(Owned {
        claim,
        partition,
        valid_until: renewed_at + LEASE - LEASE_MARGIN,
        renewed_at,
        checkpointed_at: Instant::now(),
        checkpoint_cost: Duration::ZERO,
        state_bytes,
        since: SinceCheckpoint::default(),
        fallback,
        storing: None,
        reading: None,
        unapplied: VecDeque::new(),
        progress: (0, Instant::now()),
        outcomes: BTreeMap::new(),
        // Nobody knows yet.
        entry_cost: SHORT_STRETCH,
        asked_config: None,
        asked_governance: None,
    })
}

/// Restores the partition, and renews the lease meanwhile: a fallback can have a long log behind it.
async fn restore(
    context: &OwnerContext,
    claim: &Claim,
    newest: &Checkpoint,
    renewed_at: &mut Instant,
) -> Result<Restored, StoredError> {
    let log = context.store.log.as_ref();
    let mut restoring = pin!(stored::restore(log, &claim.partition, newest, context.skip_unreadable));
    loop {
        if let Ok(restored) = timeout_at(*renewed_at + RENEW_EVERY, &mut restoring).await {
            return restored;
        }
        let asked_at = Instant::now();
        log.renew(claim, LEASE).await?;
        *renewed_at = asked_at;
    }
}

/// What to keep with the next checkpoints, so that workers of the version before this one could go on: what was written
/// by one, or what is kept already.
fn fallback(newest: &Checkpoint, restored: &Restored) -> Option<Fallback> {
    let is_older = restored.version < SNAPSHOT_VERSION;
    match newest.kept {
        _ if is_older && !restored.is_fallback => Some(Fallback::begun(newest.position)),
        Some(kept) if is_older || !restored.is_fallback => {
            Some(Fallback::taken_over(kept, newest.position, Instant::now()))
        }
        _ => None,
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
    let wait = if owned.since.entries == told.unwrap_or(owned.progress.0) { READ_WAIT } else { PROGRESS_WITHIN };
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
        owned.progress = (told, Instant::now());
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

/// What a read that was begun brings, or else a new one.
async fn read(
    context: &OwnerContext,
    partition: &PartitionKey,
    after: EntryId,
    begun: Option<Reading>,
    wait: Duration,
) -> Result<Vec<(EntryId, Record)>, LogError> {
    let begun = match begun {
        Some(mut reading) => reading.join_next().await,
        None => None,
    };
    match begun {
        Some(read) => read.unwrap_or_else(|panic| Err(LogError::Unavailable(Box::new(panic)))),
        None => context.store.log.read(partition, after, BATCH_MAX, wait).await,
    }
}

/// Begins to read while what was read before is applied: under load neither waits for the other.
fn read_on(context: &OwnerContext, partition: &PartitionKey, after: EntryId) -> Reading {
    let (log, partition) = (context.store.log.clone(), partition.clone());
    let mut reading = JoinSet::new();
    reading.spawn(async move { log.read(&partition, after, BATCH_MAX, PROGRESS_WITHIN).await });
    reading
}

impl Owned {
    /// How much the store is to be told of, if it is to be told now. While a checkpoint is stored it isn't: the count
    /// begins anew with it, and a word that came late would count entries twice.
    fn progress_due(&self, every: u64) -> Option<u64> {
        let (told, at) = self.progress;
        let news = self.since.entries - told;
        let is_due = self.storing.is_none() && news > 0 && (news >= every || at.elapsed() >= PROGRESS_WITHIN);
        is_due.then_some(self.since.entries)
    }
}

async fn progress(context: &OwnerContext, claim: &Claim, applied: Option<u64>) -> Result<(), LogError> {
    match applied {
        Some(applied) => context.store.log.progress(claim, applied).await,
        None => Ok(()),
    }
}

async fn renew(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    let asked_at = Instant::now();
    context.store.log.renew(&owned.claim, LEASE).await?;
    owned.renewed_at = asked_at;
    owned.valid_until = asked_at + LEASE - LEASE_MARGIN;
    Ok(())
}

async fn tell_changes(
    context: &OwnerContext,
    owned: &mut Owned,
    domain: &watch::Receiver<Domain>,
) -> Result<(), LogError> {
    configure(context, owned, domain).await?;
    govern(context, owned).await
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
    tell(context, &owned.claim.partition, Control::Configure(wanted.clone())).await?;
    info!(partition = %owned.claim.partition, "new hyperparameters");
    owned.asked_config = Some(wanted);
    Ok(())
}

/// The same for the rhythm and the thresholds of a governed memory.
async fn govern(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    let wanted = context.governance;
    let present = owned.partition.governance();
    if present.is_none_or(|present| present == wanted) || owned.asked_governance == Some(wanted) {
        return Ok(());
    }
    tell(context, &owned.claim.partition, Control::Govern(wanted)).await?;
    info!(partition = %owned.claim.partition, "a new rhythm, or new thresholds");
    owned.asked_governance = Some(wanted);
    Ok(())
}

/// Appends a control entry; nobody waits for its outcome.
async fn tell(context: &OwnerContext, partition: &PartitionKey, control: Control) -> Result<(), LogError> {
    let record = Record { entry: Entry::Control(control).encode().into(), reply_to: None };
    context.store.log.append(partition, &[record], NO_WAITING_MAX).await.map(drop)
}

/// The application of an entry, as part of the trace of its request.
fn begin(context: TraceParent, key: &PartitionKey, id: EntryId) -> Span {
    let mut span = Span::begin("apply", SpanKind::Consumer, Some(context));
    span.set("hebb.partition", key.to_string());
    span.set("hebb.entry", id.to_string());
    span
}

/// Applies what was read until there is no more of it or the turn is over, and lets others have theirs in between.
async fn take_turn(context: &OwnerContext, owned: &mut Owned) {
    let until = Instant::now() + context.turn;
    let (mut entries, mut bytes, mut took) = (0_u32, 0_u64, Duration::ZERO);
    loop {
        let Owned { claim, partition, unapplied, outcomes, entry_cost, .. } = owned;
        let stretch = unapplied.len().min(STRETCH);
        let expected = entry_cost.saturating_mul(stretch as u32);
        let begun_at = Instant::now();
        let mut apply = || apply(&claim.partition, partition, unapplied, stretch, until, outcomes);
        let (applied, applied_bytes) = if expected < SHORT_STRETCH { apply() } else { at_length(apply) };
        let elapsed = begun_at.elapsed();
        *entry_cost = elapsed / applied.max(1);
        entries += applied;
        bytes += applied_bytes;
        took += elapsed;
        if owned.unapplied.is_empty() || Instant::now() >= until {
            break;
        }
        yield_now().await;
    }
    owned.since.entries += u64::from(entries);
    owned.since.bytes += bytes;
    if let Some(fallback) = &mut owned.fallback {
        fallback.applied(u64::from(entries), bytes);
    }
    context.metrics.applied(entries, took);
}

/// Applies the first `count` entries in order until the time is up, one at least, and adds the outcomes by gateway. How many
/// entries and bytes they were; what is left stays.
fn apply(
    key: &PartitionKey,
    partition: &mut Partition,
    entries: &mut VecDeque<(EntryId, Record)>,
    count: usize,
    until: Instant,
    replies: &mut BTreeMap<String, Vec<Reply>>,
) -> (u32, u64) {
    let (mut applied, mut bytes, mut skipped) = (0_u32, 0_u64, 0_u32);
    for _ in 0..count {
        let Some((id, record)) = entries.pop_front() else { break };
        let to = record.reply_to.as_ref().map(|to| (trail::addressee(&to.gateway), to.request));
        let span = to.and_then(|((_, context), _)| context).map(|context| begin(context, key, id));
        let outcome = replay::apply(partition, id, &record.entry);
        drop(span);
        applied += 1;
        bytes += record.entry.len() as u64;
        skipped += u32::from(matches!(outcome, Outcome::Rejected(Rejection::Unreadable)));
        if let Some(((gateway, _), request)) = to {
            let reply = Reply { request, body: outcome.encode() };
            match replies.get_mut(gateway) {
                Some(batch) => batch.push(reply),
                None => {
                    replies.insert(gateway.to_owned(), vec![reply]);
                }
            }
        }
        // On simulated time, which stands still meanwhile, every turn goes to its end.
        if Instant::now() >= until {
            break;
        }
    }
    if skipped > 0 {
        warn!(partition = %key, skipped, "entries of another version were refused; do the nodes run different versions?");
    }
    (applied, bytes)
}

async fn answer(context: &OwnerContext, mut replies: BTreeMap<String, Vec<Reply>>) -> Result<(), LogError> {
    let sends = replies.iter_mut().map(|(gateway, batch)| context.store.replies.send(gateway, mem::take(batch)));
    try_join_all(sends).await.map(drop)
}

/// Takes a snapshot and sends it on its way: entries are applied and answered while the store takes it in.
fn snapshot(context: &OwnerContext, owned: &mut Owned) {
    let begun_at = Instant::now();
    let state = at_length(|| owned.partition.snapshot());
    owned.state_bytes = state.len() as u64;
    owned.checkpointed_at = begun_at;
    let (log, claim, position) = (context.store.log.clone(), owned.claim.clone(), owned.partition.position());
    owned.fallback = owned.fallback.filter(|fallback| !fallback.is_over(begun_at));
    let kept = owned.fallback.as_mut().map(|fallback| fallback.kept(position, begun_at));
    let mut task = JoinSet::new();
    task.spawn(async move { log.checkpoint(&claim, position, &state, kept).await.map(|()| begun_at.elapsed()) });
    owned.storing = Some(Storing { task, since: mem::take(&mut owned.since) });
    owned.progress = (0, begun_at);
}

/// Takes note of a snapshot that has arrived in the store, or couldn't.
fn settle(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    match owned.storing.as_mut().and_then(|storing| storing.task.try_join_next()) {
        Some(stored) => conclude(&context.metrics, owned, stored),
        None => Ok(()),
    }
}

fn conclude(metrics: &WorkerMetrics, owned: &mut Owned, stored: Stored) -> Result<(), LogError> {
    let Some(Storing { since, .. }) = owned.storing.take() else { return Ok(()) };
    let stored = stored.unwrap_or_else(|panic| Err(LogError::Unavailable(Box::new(panic))));
    let Ok(cost) = stored else {
        owned.since.entries += since.entries;
        owned.since.bytes += since.bytes;
        return stored.map(drop);
    };
    owned.checkpoint_cost = cost;
    metrics.checkpointed(cost);
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
            if let Some(storing) = &mut owned.storing
                && let Some(stored) = storing.task.join_next().await
            {
                conclude(&context.metrics, &mut owned, stored)?;
            }
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

fn report(owned: &Owned) -> PartitionReport {
    let mut statistics = owned.partition.statistics();
    let class_count = statistics.classes.len() as u64;
    shorten(&mut statistics);
    PartitionReport {
        domain: owned.claim.partition.domain.clone(),
        index: owned.claim.partition.index,
        epoch: owned.claim.epoch,
        state_bytes: owned.state_bytes,
        checkpoint_ms: owned.checkpoint_cost.as_millis() as u64,
        class_count,
        learned: owned.partition.learned(),
        statistics,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use hebb_engine::{Event, Features, Input, Label, Task};
    use hebb_log::{LocalStore, Log, Replies, ReplyTo};
    use tokio::time::timeout;

    use super::*;
    use crate::gated::Gated;
    use crate::stop::stop_channel;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    const EVENTS: u64 = 40;

    fn event(number: u64) -> Record {
        let event = Event {
            id: format!("event-{number}").into(),
            input: Input::Features(Features::Dense(vec![number as f64])),
            label: Some(Label::Class("one".into())),
        };
        let reply_to = Some(ReplyTo { gateway: "gateway-0".into(), request: number });
        Record { entry: Entry::Event(event).encode().into(), reply_to }
    }

    fn domain(key: &PartitionKey) -> Domain {
        Domain { name: key.domain.clone(), partitions: 1, config: PartitionConfig::new(Task::Classification) }
    }

    fn context(store: Store) -> std::result::Result<OwnerContext, prometheus::Error> {
        Ok(OwnerContext {
            store,
            worker: "worker-0".to_owned(),
            board: Arc::new(Board::default()),
            metrics: WorkerMetrics::new()?,
            checkpoint_interval: Duration::from_secs(5),
            governance: Governance::default(),
            skip_unreadable: false,
            progress_every: 1,
            turn: TURN,
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_state_of_the_future_without_a_fallback_stays_as_it_is_and_is_told_of() -> Result {
        let local = LocalStore::in_memory()?;
        let key = PartitionKey { domain: "future".to_owned(), index: 0 };
        let Claimed::New(claim) = local.claim(&key, "test", None, LEASE).await? else { return Err("held".into()) };
        let mut state = Partition::new(domain(&key).config).snapshot();
        state[4..6].copy_from_slice(&(SNAPSHOT_VERSION + 1).to_le_bytes());
        local.checkpoint(&claim, EntryId::default(), &state, None).await?;
        local.release(&claim).await?;
        let (_sender, domain) = watch::channel(domain(&key));
        let context = context(Store::new(local.clone()))?;
        let board = context.board.clone();
        let (stopper, stop) = stop_channel();
        let owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));
        let told = async {
            while board.trouble().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            board.trouble()
        };
        let trouble = timeout(Duration::from_secs(5), told).await?.ok_or("no trouble")?;
        let wanted = format!("the state of future/0 can't be read: the snapshot has version {}", SNAPSHOT_VERSION + 1);
        assert!(trouble.starts_with(&wanted), "{trouble}");
        stopper.stop();
        timeout(Duration::from_secs(5), owner).await??;
        assert_eq!(board.trouble(), None, "it is somebody else's now");
        let stored = local.load(&key).await?.ok_or("no checkpoint")?;
        assert!((stored.position, stored.state) == (EntryId::default(), state));
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_checkpoint_holds_up_no_answer_and_a_stop_waits_for_it() -> Result {
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        // The state that a partition begins with.
        gates.checkpoints.add_permits(1);
        let key = PartitionKey { domain: "slow".to_owned(), index: 0 };
        let (_sender, domain) = watch::channel(domain(&key));
        let context = OwnerContext { checkpoint_interval: Duration::ZERO, ..context(store)? };
        let mut replies = local.subscribe("gateway-0").await?;
        let (stopper, stop) = stop_channel();
        let mut owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));

        let mut answered = 0;
        for number in 0..EVENTS {
            local.append(&key, &[event(number)], EVENTS).await?;
            let batch = timeout(Duration::from_secs(5), replies.recv()).await?.ok_or("the replies ended")?;
            answered += batch.len() as u64;
        }
        assert_eq!(answered, EVENTS);
        assert_eq!(local.status(&key).await?.checkpointed, Some(EntryId::default()), "the gate is closed");

        stopper.stop();
        assert!(timeout(Duration::from_millis(300), &mut owner).await.is_err(), "left without its checkpoint");
        gates.checkpoints.add_permits(2);
        timeout(Duration::from_secs(5), owner).await??;
        let status = local.status(&key).await?;
        assert_eq!((status.waiting, status.owner), (0, None));
        let state = local.load(&key).await?.ok_or("no checkpoint")?.state;
        assert_eq!(Partition::restore(&state)?.statistics().events, EVENTS);
        Ok(())
    }

    /// Every turn ends after one entry here, and the store is away for a moment while some are left.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_turn_has_left_is_applied_by_the_next_ones_and_answered_in_between() -> Result {
        const MANY: u64 = BATCH_MAX as u64 + EVENTS;
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        gates.checkpoints.add_permits(1_000);
        let key = PartitionKey { domain: "dear".to_owned(), index: 0 };
        let records: Vec<Record> = (0..MANY).map(event).collect();
        let last = local.append(&key, &records, MANY).await?.pop().ok_or("no id")?;
        let (_sender, domain) = watch::channel(domain(&key));
        let context = OwnerContext { turn: Duration::ZERO, ..context(store)? };
        let mut replies = local.subscribe("gateway-0").await?;
        let (stopper, stop) = stop_channel();
        let owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));

        let mut answered = Vec::new();
        while answered.len() < MANY as usize {
            let batch = timeout(Duration::from_secs(5), replies.recv()).await?.ok_or("the replies ended")?;
            assert_eq!(batch.len(), 1, "answers leave after each turn");
            answered.extend(batch.iter().map(|reply| reply.request));
            if answered.len() == 20 {
                gates.away.store(true, Ordering::Relaxed);
                let gates = gates.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(2 * RETRY_AFTER).await;
                    gates.away.store(false, Ordering::Relaxed);
                });
            }
        }
        assert!(answered.iter().copied().eq(0..MANY), "each once, in order: {answered:?}");
        stopper.stop();
        timeout(Duration::from_secs(5), owner).await??;
        let stored = local.load(&key).await?.ok_or("no checkpoint")?;
        let events = Partition::restore(&stored.state)?.statistics().events;
        assert_eq!((stored.position, events), (last, MANY));
        Ok(())
    }

    #[test]
    fn a_partition_that_fails_again_waits_twice_as_long_until_it_has_run_well() {
        let mut failures = Failures::default();
        let mut add = |ran: u64| {
            let (count, wait) = failures.add(Duration::from_secs(ran));
            (count, wait.as_secs())
        };
        assert_eq!([0, 1, 59].map(&mut add), [(1, 5), (2, 10), (3, 20)]);
        let later: Vec<_> = (0..40).map(|_| add(1)).collect();
        assert_eq!((later[2], later[3], later[39]), ((6, 160), (7, 300), (43, 300)));
        assert_eq!([60, 0].map(add), [(1, 5), (2, 10)]);
    }

    #[test]
    fn a_checkpoint_that_failed_leaves_what_it_held_to_the_next() -> Result {
        let since = |entries| SinceCheckpoint { entries, bytes: 10 * entries, elapsed: Duration::ZERO };
        let mut owned = Owned {
            claim: Claim {
                partition: PartitionKey { domain: "lost".to_owned(), index: 0 },
                owner: "worker-0".to_owned(),
                epoch: 1,
                token: String::new(),
            },
            partition: Partition::new(PartitionConfig::new(Task::Classification)),
            valid_until: Instant::now(),
            renewed_at: Instant::now(),
            checkpointed_at: Instant::now(),
            checkpoint_cost: Duration::ZERO,
            state_bytes: 0,
            since: since(3),
            fallback: None,
            storing: Some(Storing { task: JoinSet::new(), since: since(4) }),
            reading: None,
            unapplied: VecDeque::new(),
            progress: (0, Instant::now()),
            outcomes: BTreeMap::new(),
            entry_cost: Duration::ZERO,
            asked_config: None,
            asked_governance: None,
        };
        let metrics = WorkerMetrics::new()?;
        assert_eq!(owned.progress_due(1), None, "the count is about to begin anew");
        let ended = conclude(&metrics, &mut owned, Ok(Err(LogError::Fenced)));
        assert!(matches!(ended, Err(LogError::Fenced)));
        assert_eq!((owned.since.entries, owned.since.bytes), (7, 70));
        assert_eq!(owned.progress_due(1), Some(7));
        Ok(())
    }
}
