//! Copies of partitions, from which a gateway answers reads with `consistency=Eventual`: whoever owns the partition,
//! and whether anybody does at the moment.
//!
//! A copy begins with the first such read of its partition and ends when nobody has asked it for a while; without them
//! there is nothing here but counters. It is the same deterministic state machine as its owner's, restored from the
//! last checkpoint and kept up with the log: at one position the two are equal, byte for byte. It is never older than
//! the bound when it answers; its age counts from before the last read that found the end of the log. A copy never
//! learns by itself, claims, appends or stores.
//!
//! It reads what the log has, acknowledged or not: an answer can rest on an event whose client hasn't heard of it yet.
//! After a failover that lost something the owner may know more than the store. So a copy is restored anew from the
//! next two checkpoints after the store was away: the first may have been taken before, the second was not. A failover
//! that nobody here noticed is over with the renewal, a minute later at most where there are checkpoints.

mod room;
mod tail;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hebb_engine::{Entry, EntryId, Outcome, Partition, PartitionConfig, SnapshotError};
use hebb_log::{Log, LogError, PartitionKey, Record};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use self::room::{Room, Use};
use self::tail::{Base, Next, Reload, Unreadable};
use crate::memory::Memory;
use crate::task::{Task, at_length};

/// Copies of one gateway: each waits for entries on a connection to the store, which has 64 for that.
const COPIES_MAX: usize = 32;
/// Bytes of all copies where the process has no limit of memory; else they get the share below.
const BYTES_MAX: u64 = 256 << 20;
/// What is left of the limit is for requests, and for the checkpoint that a copy is restored from.
const MEMORY_SHARE: u64 = 4;
/// A copy that nobody has asked for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How old the checkpoint that a copy began with may become while there is a newer one.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// Checkpoints from which a copy is restored anew after the store was away.
const DOUBTS: u8 = 2;
/// Entries are waited for as they come, so that a checkpoint seldom trims what isn't read yet; a little, so that they
/// come in batches.
const GATHER: Duration = Duration::from_millis(20);
/// Batches that are applied before it is looked whether anybody still asks.
const BATCHES_MAX: usize = 64;
/// Entries that are applied before a read may come in between: a millisecond or two.
const CHUNK: usize = 16;
/// How often a copy begins anew when checkpoints overtake it.
const LOADS_MAX: usize = 5;
/// Wait after a failed call to the store.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// For how long no copy is tried where there can't be one.
const UNFIT_FOR: Duration = Duration::from_secs(30);

/// Why an eventual read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store doesn't answer, and the copy is too old by now.
    #[error(
        "the copy of {partition} is {:.1} s old, {} s are allowed, and the store doesn't answer; try again",
        .age.as_secs_f64(), .max.as_secs_f64()
    )]
    Stale { partition: PartitionKey, age: Duration, max: Duration },
    /// The store doesn't answer, and there is no copy.
    #[error("there is no copy of {0} yet, and the store doesn't answer; try again")]
    Missing(PartitionKey),
}

/// What a copy answers.
#[derive(Debug)]
pub struct Answered {
    /// As its owner would answer at that position.
    pub outcome: Outcome,
    /// How long ago the copy had everything that was in the log, at most.
    pub age: Duration,
    /// The last entry that it has applied.
    pub position: EntryId,
}

/// The copies of a gateway.
pub struct Followers {
    /// How old an answer may be; none where the owner is asked instead.
    max_age: Option<Duration>,
    copies: Arc<Copies>,
}

/// The copies, as their tasks know them.
struct Copies {
    log: Arc<dyn Log>,
    room: Room,
    seats: Mutex<HashMap<PartitionKey, Seated>>,
    /// One checkpoint in memory at a time.
    loading: Semaphore,
    metrics: FollowerMetrics,
}

struct Seated {
    seat: Arc<Seat>,
    /// Ends with its place here.
    _task: Task,
}

/// A partition that is followed.
struct Seat {
    key: PartitionKey,
    /// What the partition starts from where nobody has ever owned it.
    config: PartitionConfig,
    held: Mutex<Option<Held>>,
    used_at: Mutex<Instant>,
    progress: watch::Sender<Progress>,
}

/// A copy, and when it last had everything that was in the log.
struct Held {
    partition: Partition,
    synced_at: Instant,
    bytes: u64,
}

/// How following goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It begins.
    Loading,
    /// The store answers, and has more.
    Behind,
    /// At the last look everything was there.
    Current,
    /// The store doesn't answer.
    Away,
    /// There can't be a copy.
    Unfit,
}

/// Why a copy doesn't get on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the store doesn't answer")]
    Away(#[source] LogError),
    #[error("the store holds what can't be followed")]
    Store(#[source] LogError),
    #[error("the checkpoint can't be read")]
    Checkpoint(#[from] SnapshotError),
    #[error(transparent)]
    Entry(#[from] Unreadable),
    #[error("{0} bytes have no room beside the other copies")]
    NoRoom(u64),
    #[error("its checkpoints follow each other faster than they are read")]
    Overtaken,
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_) => Self::Away(error),
            LogError::Corrupt(_) | LogError::Full { .. } | LogError::Fenced | LogError::Invalid(_) => {
                Self::Store(error)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Followers {
    /// No copies yet, and none at all without `max_age`.
    ///
    /// # Errors
    /// A metric that can't be registered.
    pub fn new(log: Arc<dyn Log>, max_age: Option<Duration>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = Memory::now().limit.map_or(BYTES_MAX, |limit| limit / MEMORY_SHARE);
        Self::within(log, max_age, Room { copies: COPIES_MAX, bytes }, registry)
    }

    fn within(
        log: Arc<dyn Log>,
        max_age: Option<Duration>,
        room: Room,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = FollowerMetrics::new(registry)?;
        let copies = Copies { log, room, seats: Mutex::default(), loading: Semaphore::new(1), metrics };
        Ok(Self { max_age, copies: Arc::new(copies) })
    }

    /// Answers a read from the copy of its partition, which is waited for as long as it may be old. Nothing where the
    /// owner is to be asked: the process keeps no copies, there is no room for this one, or it doesn't keep up.
    ///
    /// # Errors
    /// [`CopyError`] where the store doesn't answer: then no owner does either.
    pub async fn ask(
        &self,
        key: &PartitionKey,
        config: &PartitionConfig,
        read: &Entry,
    ) -> Result<Option<Answered>, CopyError> {
        let answered = self.look(key, config, read).await;
        let by = match &answered {
            Ok(Some(_)) => COPY,
            Ok(None) => OWNER,
            Err(_) => NOBODY,
        };
        self.copies.metrics.reads.with_label_values(&[by]).inc();
        answered
    }

    async fn look(
        &self,
        key: &PartitionKey,
        config: &PartitionConfig,
        read: &Entry,
    ) -> Result<Option<Answered>, CopyError> {
        let Some(max_age) = self.max_age else { return Ok(None) };
        let Some(seat) = self.copies.seat(key, config, max_age) else { return Ok(None) };
        let mut progress = seat.progress.subscribe();
        let deadline = Instant::now() + max_age;
        loop {
            let now = *progress.borrow_and_update();
            if let Some(answered) = seat.answer(read, max_age) {
                return Ok(Some(answered));
            }
            match now {
                Progress::Away => return Err(seat.stale(max_age)),
                // One that doesn't keep up won't in a moment either.
                Progress::Unfit | Progress::Behind => return Ok(None),
                Progress::Loading | Progress::Current => {}
            }
            match timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                // It was current once, and the store hasn't answered since.
                Err(_) if now == Progress::Current => return Err(seat.stale(max_age)),
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let seats = lock(&self.copies.seats);
        let now = Instant::now();
        let (mut copies, mut bytes, mut age) = (0, 0, Duration::ZERO);
        for Seated { seat, .. } in seats.values() {
            if let Some(held) = &*lock(&seat.held) {
                copies += 1;
                bytes += held.bytes;
                age = age.max(now.saturating_duration_since(held.synced_at));
            }
        }
        let metrics = &self.copies.metrics;
        metrics.copies.set(copies);
        metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        metrics.age.set(age.as_secs_f64());
    }
}

impl Copies {
    /// The place of a partition, which is begun where there is room for one more.
    fn seat(self: &Arc<Self>, key: &PartitionKey, config: &PartitionConfig, max_age: Duration) -> Option<Arc<Seat>> {
        let mut seats = lock(&self.seats);
        if let Some(Seated { seat, .. }) = seats.get(key) {
            *lock(&seat.used_at) = Instant::now();
            return Some(seat.clone());
        }
        self.make_room(&mut seats, key, 0)?;
        let seat = Arc::new(Seat {
            key: key.clone(),
            config: config.clone(),
            held: Mutex::default(),
            used_at: Mutex::new(Instant::now()),
            progress: watch::Sender::new(Progress::Loading),
        });
        let follower = Follower { copies: Arc::downgrade(self), seat: seat.clone(), base: None, doubts: 0, max_age };
        seats.insert(key.clone(), Seated { seat: seat.clone(), _task: Task::spawn(follower.run()) });
        Some(seat)
    }

    /// Ends as many copies that nobody needs as it takes for this one to have room for so many bytes.
    fn make_room(&self, seats: &mut HashMap<PartitionKey, Seated>, key: &PartitionKey, wanted: u64) -> Option<()> {
        let now = Instant::now();
        let (keys, uses): (Vec<PartitionKey>, Vec<Use>) = seats
            .values()
            .filter(|Seated { seat, .. }| seat.key != *key)
            .map(|Seated { seat, .. }| {
                let bytes = lock(&seat.held).as_ref().map_or(0, |held| held.bytes);
                (seat.key.clone(), Use { bytes, idle: seat.idle(now) })
            })
            .unzip();
        for place in self.room.make(wanted, &uses)? {
            debug!(partition = %keys[place], "its copy makes room for another");
            seats.remove(&keys[place]);
        }
        Some(())
    }

    /// Ends a copy that nobody has asked for long; whether it did.
    fn leave(&self, key: &PartitionKey) -> bool {
        let mut seats = lock(&self.seats);
        let is_idle = seats.get(key).is_some_and(|Seated { seat, .. }| seat.idle(Instant::now()) >= IDLE_MAX);
        if is_idle {
            debug!(partition = %key, "nobody asks its copy any more");
            seats.remove(key);
        }
        is_idle
    }
}

impl Seat {
    fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.used_at))
    }

    fn answer(&self, read: &Entry, max_age: Duration) -> Option<Answered> {
        let mut held = lock(&self.held);
        let Held { partition, synced_at, .. } = held.as_mut()?;
        let age = synced_at.elapsed();
        if age > max_age {
            return None;
        }
        let outcome = partition.peek(read)?;
        Some(Answered { outcome, age, position: partition.position() })
    }

    fn stale(&self, max: Duration) -> CopyError {
        let partition = self.key.clone();
        match &*lock(&self.held) {
            Some(held) => CopyError::Stale { partition, age: held.synced_at.elapsed(), max },
            None => CopyError::Missing(partition),
        }
    }
}

/// Keeps one copy up.
struct Follower {
    copies: Weak<Copies>,
    seat: Arc<Seat>,
    /// What the copy was restored from, and when; nothing while it has to be restored.
    base: Option<(Base, Instant)>,
    /// Checkpoints that it doesn't go past without being restored from them.
    doubts: u8,
    max_age: Duration,
}

impl Follower {
    async fn run(mut self) {
        // A copy whose gateway is gone needs no more.
        while let Some(copies) = self.copies.upgrade() {
            if copies.leave(&self.seat.key) {
                return;
            }
            let next_at = Instant::now() + self.max_age / 2;
            let synced = self.sync(&copies).await;
            let synced = match synced {
                Ok(true) => self.listen(&copies, next_at).await,
                Ok(false) => Ok(()),
                Err(trouble) => Err(trouble),
            };
            drop(copies);
            match synced {
                Ok(()) => {}
                Err(Trouble::Away(error)) => {
                    debug!(partition = %self.seat.key, %error, "its copy can't be kept up");
                    self.doubts = DOUBTS;
                    self.seat.progress.send_replace(Progress::Away);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(Trouble::Overtaken) => {
                    self.seat.progress.send_replace(Progress::Behind);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(trouble) => {
                    warn!(partition = %self.seat.key, error = %with_source(&trouble), "no copy; its owner answers");
                    self.base = None;
                    *lock(&self.seat.held) = None;
                    self.seat.progress.send_replace(Progress::Unfit);
                    tokio::time::sleep(UNFIT_FOR).await;
                    self.seat.progress.send_replace(Progress::Loading);
                }
            }
        }
    }

    /// Takes up what is in the log; whether that was all.
    async fn sync(&mut self, copies: &Copies) -> Result<bool, Trouble> {
        for _ in 0..BATCHES_MAX {
            let Some((base, restored_at)) = self.base else {
                return self.restore(copies, None).await.map(|()| true);
            };
            let asked_at = Instant::now();
            let is_doubtful = self.doubts > 0 || restored_at.elapsed() >= RENEW_AFTER;
            let (log, key) = (copies.log.as_ref(), &self.seat.key);
            match tail::next(log, key, &base, self.position(), is_doubtful, Duration::ZERO).await? {
                Next::Reload(why) => return self.restore(copies, Some(why)).await.map(|()| true),
                Next::Entries(entries, is_all) => {
                    self.apply(copies, &entries)?;
                    if is_all {
                        self.keep(copies, asked_at)?;
                        self.seat.progress.send_replace(Progress::Current);
                        return Ok(true);
                    }
                    self.seat.progress.send_replace(Progress::Behind);
                }
            }
        }
        Ok(false)
    }

    /// Takes up entries as they come, until the next look at everything is due.
    async fn listen(&mut self, copies: &Copies, until: Instant) -> Result<(), Trouble> {
        while let Some((base, _)) = self.base {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            let (log, key) = (copies.log.as_ref(), &self.seat.key);
            match tail::next(log, key, &base, self.position(), false, wait).await? {
                Next::Reload(why) => return self.restore(copies, Some(why)).await,
                Next::Entries(entries, is_all) => {
                    self.apply(copies, &entries)?;
                    if is_all {
                        tokio::time::sleep_until(until.min(Instant::now() + GATHER)).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Restores the copy from the checkpoint and takes up what follows it. The one before it answers meanwhile, as long
    /// as it is young enough.
    async fn restore(&mut self, copies: &Copies, why_restored: Option<Reload>) -> Result<(), Trouble> {
        self.base = None;
        if let Some(why) = why_restored {
            copies.metrics.reloads.with_label_values(&[why.as_str()]).inc();
        }
        let started = Instant::now();
        let _turn = copies.loading.acquire().await;
        for _ in 0..LOADS_MAX {
            let (base, mut partition) = self.load(copies).await?;
            let restored_at = Instant::now();
            loop {
                let asked_at = Instant::now();
                let (log, key) = (copies.log.as_ref(), &self.seat.key);
                let next = tail::next(log, key, &base, partition.position(), false, Duration::ZERO).await?;
                let (entries, is_all) = match next {
                    Next::Entries(entries, is_all) => (entries, is_all),
                    Next::Reload(_) => break,
                };
                copies.metrics.entries.inc_by(entries.len() as u64);
                at_length(|| tail::apply(&mut partition, &entries))?;
                if is_all {
                    let (position, why) = (partition.position(), why_restored.map_or("begun", Reload::as_str));
                    let milliseconds = started.elapsed().as_millis() as u64;
                    info!(partition = %self.seat.key, %position, why, milliseconds, "a copy of the partition");
                    *lock(&self.seat.held) = Some(Held { partition, synced_at: asked_at, bytes: 0 });
                    self.base = Some((base, restored_at));
                    self.doubts = match why_restored {
                        Some(Reload::Trimmed | Reload::Renewal) => self.doubts.saturating_sub(1),
                        // It began with what the store has, as the copy does.
                        Some(Reload::Owner) => 0,
                        Some(Reload::Rewound) | None => self.doubts,
                    };
                    self.keep(copies, asked_at)?;
                    self.seat.progress.send_replace(Progress::Current);
                    return Ok(());
                }
            }
        }
        Err(Trouble::Overtaken)
    }

    async fn load(&self, copies: &Copies) -> Result<(Base, Partition), Trouble> {
        let key = &self.seat.key;
        let seen = copies.log.status(key).await?;
        copies
            .make_room(&mut lock(&copies.seats), key, seen.checkpoint_bytes)
            .ok_or(Trouble::NoRoom(seen.checkpoint_bytes))?;
        let checkpoint = copies.log.load(key).await?;
        let base = Base { epoch: seen.epoch, checkpointed: checkpoint.as_ref().map(|checkpoint| checkpoint.position) };
        let partition = match checkpoint {
            Some(checkpoint) => at_length(|| Partition::restore(&checkpoint.state))?,
            // Its first owner begins with this.
            None => Partition::new(self.seat.config.clone()),
        };
        Ok((base, partition))
    }

    fn position(&self) -> EntryId {
        lock(&self.seat.held).as_ref().map_or(EntryId::default(), |held| held.partition.position())
    }

    fn apply(&self, copies: &Copies, entries: &[(EntryId, Record)]) -> Result<(), Unreadable> {
        copies.metrics.entries.inc_by(entries.len() as u64);
        let apply = |chunk| match &mut *lock(&self.seat.held) {
            Some(held) => tail::apply(&mut held.partition, chunk),
            None => Ok(()),
        };
        // To tell the runtime that its thread is busy costs more than few entries do.
        if entries.len() <= CHUNK { apply(entries) } else { at_length(|| entries.chunks(CHUNK).try_for_each(apply)) }
    }

    /// Takes note that everything is there that was there at `synced_at`, and that the copy may have grown.
    fn keep(&self, copies: &Copies, synced_at: Instant) -> Result<(), Trouble> {
        let bytes = match &mut *lock(&self.seat.held) {
            Some(held) => {
                held.synced_at = synced_at;
                held.bytes = held.partition.statistics().memory_bytes;
                held.bytes
            }
            None => return Ok(()),
        };
        copies.make_room(&mut lock(&copies.seats), &self.seat.key, bytes).ok_or(Trouble::NoRoom(bytes))
    }
}

fn with_source(error: &Trouble) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Who answers an eventual read.
const COPY: &str = "copy";
const OWNER: &str = "owner";
const NOBODY: &str = "nobody";

/// What copies do and are.
struct FollowerMetrics {
    reads: IntCounterVec,
    entries: IntCounter,
    reloads: IntCounterVec,
    copies: IntGauge,
    bytes: IntGauge,
    age: Gauge,
}

impl FollowerMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reads = IntCounterVec::new(
            Opts::new("hebb_eventual_reads_total", "Reads with consistency=Eventual, by who answered them"),
            &["by"],
        )?;
        let entries = IntCounter::new("hebb_copy_entries_total", "Entries that copies of partitions have applied")?;
        let reloads = IntCounterVec::new(
            Opts::new("hebb_copy_reloads_total", "Copies that were restored anew from a checkpoint, by reason"),
            &["reason"],
        )?;
        let copies = IntGauge::new("hebb_copies", "Copies of partitions that this gateway holds")?;
        let bytes = IntGauge::new("hebb_copies_bytes", "Bytes of these copies")?;
        let age = Gauge::new("hebb_copy_age_seconds", "Age of the oldest of these copies, in seconds")?;
        registry.register(Box::new(reads.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(copies.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(age.clone()))?;
        // A rate can be told only of what was there before.
        for by in [COPY, OWNER, NOBODY] {
            reads.with_label_values(&[by]);
        }
        for why in Reload::ALL {
            reloads.with_label_values(&[why.as_str()]);
        }
        Ok(Self { reads, entries, reloads, copies, bytes, age })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use hebb_engine::{Event, Features, Input, Label, Query, Task};
    use hebb_log::{Claim, Claimed, LocalStore};

    use super::*;
    use crate::gated::Gated;

    type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

    const MAX_AGE: Duration = Duration::from_millis(500);
    const PLENTY: Room = Room { copies: 8, bytes: 1 << 30 };
    const STATISTICS: Entry = Entry::Query(Query::Statistics);

    fn key(index: u32) -> PartitionKey {
        PartitionKey { domain: "d".to_owned(), index }
    }

    fn config() -> PartitionConfig {
        PartitionConfig::new(Task::Classification)
    }

    fn followers(log: Arc<dyn Log>, room: Room) -> Result<Followers> {
        Ok(Followers::within(log, Some(MAX_AGE), room, &Registry::new())?)
    }

    async fn events(log: &dyn Log, index: u32, count: usize) -> Result {
        let records = (0..count).map(|number| {
            let input = Input::Features(Features::Dense(vec![number as f64, 1.0]));
            let label = Some(Label::Class((number % 2).to_string().into()));
            let id = format!("{:032x}", rand::random::<u128>());
            Record { entry: Entry::Event(Event { id: id.into(), input, label }).encode().into(), reply_to: None }
        });
        log.append(&key(index), &records.collect::<Vec<_>>(), u64::MAX).await?;
        Ok(())
    }

    /// Claims a partition and stores a checkpoint with everything that is in its log.
    async fn owned(log: &dyn Log, index: u32) -> Result<Claim> {
        let Claimed::New(claim) = log.claim(&key(index), "owner", None, Duration::from_secs(60)).await? else {
            return Err("held".into());
        };
        checkpoint(log, &claim).await?;
        Ok(claim)
    }

    async fn checkpoint(log: &dyn Log, claim: &Claim) -> Result {
        let mut partition = match log.load(&claim.partition).await? {
            Some(checkpoint) => Partition::restore(&checkpoint.state)?,
            None => Partition::new(config()),
        };
        let entries = log.read(&claim.partition, partition.position(), 10_000, Duration::ZERO).await?;
        tail::apply(&mut partition, &entries)?;
        log.checkpoint(claim, partition.position(), &partition.snapshot(), None).await?;
        Ok(())
    }

    /// How many events a copy knows of; nothing where the owner is to be asked.
    async fn known(followers: &Followers, index: u32) -> std::result::Result<Option<u64>, CopyError> {
        let answered = followers.ask(&key(index), &config(), &STATISTICS).await?;
        Ok(answered.map(|answered| {
            assert!(answered.age <= MAX_AGE, "{answered:?}");
            match answered.outcome {
                Outcome::Statistics(statistics) => statistics.events,
                other => panic!("{other:?}"),
            }
        }))
    }

    async fn until(followers: &Followers, index: u32, wanted: Option<u64>) {
        let asked = async {
            while known(followers, index).await.ok() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    }

    fn reloads(followers: &Followers, why: Reload) -> u64 {
        followers.copies.metrics.reloads.with_label_values(&[why.as_str()]).get()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_begins_without_an_owner_and_follows_through_checkpoints_and_another_owner() -> Result {
        let local = LocalStore::in_memory()?;
        let followers = followers(Arc::new(local.clone()), PLENTY)?;
        events(&local, 0, 10).await?;
        assert_eq!(known(&followers, 0).await?, Some(10), "its first owner would begin with these");
        let claim = owned(&local, 0).await?;
        events(&local, 0, 1_000).await?;
        until(&followers, 0, Some(1_010)).await;
        assert_eq!(reloads(&followers, Reload::Owner), 1);
        for round in 1..=5 {
            events(&local, 0, 300).await?;
            checkpoint(&local, &claim).await?;
            until(&followers, 0, Some(1_010 + 300 * round)).await;
        }
        local.release(&claim).await?;
        owned(&local, 0).await?;
        events(&local, 0, 1).await?;
        until(&followers, 0, Some(2_511)).await;
        assert_eq!(reloads(&followers, Reload::Owner), 2);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_is_too_old_says_so_and_goes_on_when_the_store_is_back() -> Result {
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        let followers = followers(store.log.clone(), PLENTY)?;
        let claim = owned(&local, 0).await?;
        events(&local, 0, 50).await?;
        until(&followers, 0, Some(50)).await;

        gates.away.store(true, Ordering::Relaxed);
        let stale = async {
            loop {
                match known(&followers, 0).await {
                    Ok(events) => assert_eq!(events, Some(50), "young enough"),
                    Err(stale) => return stale,
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let stale = tokio::time::timeout(Duration::from_secs(20), stale).await?;
        assert!(matches!(&stale, CopyError::Stale { age, max: MAX_AGE, .. } if *age > MAX_AGE), "{stale}");
        assert!(matches!(known(&followers, 1).await, Err(CopyError::Missing(_))), "there never was a copy of this one");

        events(&local, 0, 5).await?;
        gates.away.store(false, Ordering::Relaxed);
        until(&followers, 0, Some(55)).await;
        // Its owner may know more than the store does: the copy is restored from the next two checkpoints.
        for round in 1..=2 {
            events(&local, 0, 1).await?;
            until(&followers, 0, Some(55 + round)).await;
            checkpoint(&local, &claim).await?;
            let doubts = async {
                while reloads(&followers, Reload::Renewal) + reloads(&followers, Reload::Trimmed) < round {
                    known(&followers, 0).await.ok();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), doubts).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_copy_that_nobody_asks_ends() -> Result {
        let local = LocalStore::in_memory()?;
        let followers = followers(Arc::new(local.clone()), PLENTY)?;
        owned(&local, 0).await?;
        assert_eq!(known(&followers, 0).await?, Some(0));
        tokio::time::pause();
        tokio::time::sleep(IDLE_MAX + MAX_AGE).await;
        assert!(lock(&followers.copies.seats).is_empty());
        tokio::time::resume();
        assert_eq!(known(&followers, 0).await?, Some(0), "it begins again");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn there_are_no_more_copies_and_no_more_bytes_than_there_is_room_for() -> Result {
        let local = LocalStore::in_memory()?;
        for index in 0..3 {
            owned(&local, index).await?;
            events(&local, index, 500).await?;
        }
        let two = followers(Arc::new(local.clone()), Room { copies: 2, ..PLENTY })?;
        until(&two, 0, Some(500)).await;
        until(&two, 1, Some(500)).await;
        assert_eq!(known(&two, 2).await?, None, "the two were asked a moment ago");
        assert_eq!(lock(&two.copies.seats).len(), 2);

        let small = followers(Arc::new(local.clone()), Room { bytes: 1_000, ..PLENTY })?;
        until(&small, 0, None).await;
        let held = lock(&small.copies.seats).values().any(|Seated { seat, .. }| lock(&seat.held).is_some());
        assert!(!held, "it has more bytes than there are");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_this_version_cannot_read_is_left_to_the_owner() -> Result {
        let local = LocalStore::in_memory()?;
        owned(&local, 0).await?;
        let followers = followers(Arc::new(local.clone()), PLENTY)?;
        until(&followers, 0, Some(0)).await;
        let odd = Record { entry: vec![255; 8].into(), reply_to: None };
        local.append(&key(0), &[odd], u64::MAX).await?;
        until(&followers, 0, None).await;
        Ok(())
    }

    #[tokio::test]
    async fn without_copies_the_owner_is_asked_and_nothing_runs() -> Result {
        let local = LocalStore::in_memory()?;
        let followers = Followers::new(Arc::new(local), None, &Registry::new())?;
        assert_eq!(known(&followers, 0).await?, None);
        assert!(lock(&followers.copies.seats).is_empty());
        Ok(())
    }
}
