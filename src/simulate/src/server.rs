//! The store of a simulated cluster: what a Redis does for Hebb, as plain values in memory on simulated time.
//!
//! It passes the conformance suite of all stores. Like a Redis it ends leases by its own clock, which can be made to jump.
//! It loses nothing: what a store may lose is the matter of the tests on real ones.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hebb_log::{
    Assignment, Checkpoint, Claim, Claimed, Directory, Domain, EntryId, Kept, Leadership, Log, LogError, Member,
    PartitionKey, PartitionStatus, Record, Replies, Reply, bounds,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::audit::Audit;

/// What the clock shows when a simulation begins: 2026-01-01, in milliseconds since 1970.
const BEGINNING_MS: u64 = 1_767_225_600_000;
/// The longest that one read waits, as long as in Redis.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Batches of replies that wait for a gateway.
const BATCHES: usize = 1024;

/// The store. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    begun_at: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How far the clock has jumped, in milliseconds.
    jumped_ms: i64,
    partitions: BTreeMap<PartitionKey, Partition>,
    subscribers: BTreeMap<String, Vec<mpsc::Sender<Vec<Reply>>>>,
    domains: BTreeMap<String, Domain>,
    /// Report, and until when it counts.
    members: BTreeMap<String, (String, u64)>,
    leader: Option<(Leadership, u64)>,
    term: u64,
    assignment: Assignment,
    notes: BTreeMap<String, Vec<u8>>,
    claims: u64,
    audit: Audit,
}

#[derive(Default)]
struct Partition {
    log: VecDeque<(EntryId, Record)>,
    bytes: u64,
    last: EntryId,
    applied: u64,
    owner: Option<Claim>,
    /// The token that holds the lease, and until when by the clock.
    lease: Option<(String, u64)>,
    checkpoint: Option<Checkpoint>,
    fallback: Option<Checkpoint>,
    /// Wakes who waits for an entry, in the order in which they came: a `watch` would draw lots.
    appended: Arc<Notify>,
}

impl Partition {
    fn waiting(&self) -> u64 {
        self.since_checkpoint().saturating_sub(self.applied)
    }

    fn since_checkpoint(&self) -> u64 {
        let kept = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.kept);
        (self.log.len() as u64).saturating_sub(kept.map_or(0, |kept| kept.entries))
    }

    fn is_held(&self, now_ms: u64) -> bool {
        self.lease.as_ref().is_some_and(|(_, until)| now_ms < *until)
    }
}

impl State {
    fn owned(&mut self, claim: &Claim) -> Result<&mut Partition, LogError> {
        let stands = |owner: &Claim| owner.token == claim.token && owner.epoch == claim.epoch;
        self.partitions
            .get_mut(&claim.partition)
            .filter(|partition| partition.owner.as_ref().is_some_and(stands))
            .ok_or(LogError::Fenced)
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Partitions that anybody has claimed or appended to.
    pub partitions: u64,
    /// Bytes of the checkpoints.
    pub state_bytes: u64,
    /// Bytes of the entries in the logs.
    pub log_bytes: u64,
    /// Entries in the longest log.
    pub longest_log: u64,
    /// Entries in all logs.
    pub entries: u64,
    /// The most entries that wait in one partition.
    pub waiting: u64,
    /// Partitions that nobody owns.
    pub unowned: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A store that holds nothing.
    pub fn new() -> Self {
        Self { begun_at: Instant::now(), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self, state: &State) -> u64 {
        let passed = u64::try_from(self.begun_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        BEGINNING_MS.saturating_add(passed).saturating_add_signed(state.jumped_ms)
    }

    /// Moves the clock by so many milliseconds.
    pub fn jump(&self, by_ms: i64) {
        self.state().jumped_ms += by_ms;
    }

    /// What it holds now.
    pub fn held(&self) -> Held {
        let state = self.state();
        let now_ms = self.now_ms(&state);
        let mut held = Held::default();
        for partition in state.partitions.values() {
            let stored = [&partition.checkpoint, &partition.fallback].into_iter().flatten();
            held.state_bytes += stored.map(|checkpoint| checkpoint.state.len() as u64).sum::<u64>();
            held.partitions += 1;
            held.log_bytes += partition.bytes;
            held.entries += partition.log.len() as u64;
            held.longest_log = held.longest_log.max(partition.log.len() as u64);
            held.waiting = held.waiting.max(partition.waiting());
            held.unowned += u64::from(!partition.is_held(now_ms));
        }
        held
    }

    /// The partitions whose lease a worker holds, and in which epoch.
    pub fn owned_by(&self, worker: &str) -> Vec<(PartitionKey, u64)> {
        let state = self.state();
        let now_ms = self.now_ms(&state);
        let of = |(key, partition): (&PartitionKey, &Partition)| {
            let owner = partition.owner.as_ref().filter(|owner| owner.owner == worker && partition.is_held(now_ms))?;
            Some((key.clone(), owner.epoch))
        };
        state.partitions.iter().filter_map(of).collect()
    }

    /// The epoch of a partition; 0 before its first claim.
    pub fn epoch(&self, key: &PartitionKey) -> u64 {
        let state = self.state();
        state.partitions.get(key).and_then(|partition| partition.owner.as_ref()).map_or(0, |owner| owner.epoch)
    }

    /// What the audit has found.
    pub fn audit<T>(&self, look: impl FnOnce(&Audit) -> T) -> T {
        look(&self.state().audit)
    }
}

#[async_trait]
impl Log for Server {
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError> {
        bounds::partition(partition)?;
        let bytes = bounds::records(records)? as u64;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state();
        let now_ms = self.now_ms(&state);
        let partition = state.partitions.entry(partition.clone()).or_default();
        let waiting = partition.waiting();
        if waiting_max < waiting.saturating_add(records.len() as u64) {
            return Err(LogError::Full { waiting, max: waiting_max });
        }
        let mut ids = Vec::with_capacity(records.len());
        for record in records {
            // The clock's, never one that isn't above the last.
            partition.last = if partition.last.at_ms < now_ms {
                EntryId { at_ms: now_ms, seq: 0 }
            } else {
                EntryId { at_ms: partition.last.at_ms, seq: partition.last.seq + 1 }
            };
            partition.log.push_back((partition.last, record.clone()));
            ids.push(partition.last);
        }
        partition.bytes += bytes;
        partition.appended.notify_waiters();
        let waiting = partition.waiting();
        state.audit.waiting(waiting);
        Ok(ids)
    }

    async fn read(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        bounds::partition(partition)?;
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = Instant::now() + wait.min(MAX_WAIT);
        let appended = self.state().partitions.entry(partition.clone()).or_default().appended.clone();
        loop {
            let mut more = pin!(appended.notified());
            more.as_mut().enable();
            {
                let state = self.state();
                let log = state.partitions.get(partition).map(|partition| &partition.log);
                let from = log.map_or(0, |log| log.partition_point(|(id, _)| *id <= after));
                let mut bytes = 0;
                let entries: Vec<_> = log
                    .into_iter()
                    .flat_map(|log| log.range(from..))
                    .take(max.min(bounds::MAX_READ))
                    .take_while(|(_, record)| {
                        let before = bytes;
                        bytes += record.entry.len();
                        before < bounds::READ_ENOUGH_BYTES
                    })
                    .cloned()
                    .collect();
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            if timeout_at(until, more).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn claim(
        &self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        bounds::partition(partition)?;
        bounds::name("the owner's name", owner)?;
        let mut state = self.state();
        let now_ms = self.now_ms(&state);
        state.claims += 1;
        let token = format!("{:032x}", state.claims);
        let found = state.partitions.entry(partition.clone()).or_default();
        let previous = previous.map(|claim| claim.token.as_str());
        if let Some((holder, until)) = &found.lease
            && now_ms < *until
            && previous != Some(holder)
        {
            let owner = found.owner.as_ref().map(|owner| owner.owner.clone()).unwrap_or_default();
            return Ok(Claimed::Held { owner, expires_in: Duration::from_millis(until - now_ms) });
        }
        let until = now_ms.saturating_add(millis(lease));
        if let Some(last) = found.owner.as_mut().filter(|last| previous == Some(&last.token)) {
            owner.clone_into(&mut last.owner);
            found.lease = Some((last.token.clone(), until));
            return Ok(Claimed::Resumed(last.clone()));
        }
        let written = found.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        let epoch = found.owner.as_ref().map_or(0, |last| last.epoch).max(written).saturating_add(1).max(now_ms);
        let claim = Claim { partition: partition.clone(), owner: owner.to_owned(), epoch, token };
        found.owner = Some(claim.clone());
        found.lease = Some((claim.token.clone(), until));
        found.applied = 0;
        state.audit.claimed();
        Ok(Claimed::New(claim))
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        let mut state = self.state();
        let until = self.now_ms(&state).saturating_add(millis(lease));
        state.owned(claim)?.lease = Some((claim.token.clone(), until));
        Ok(())
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        if let Ok(partition) = self.state().owned(claim) {
            partition.lease = None;
        }
        Ok(())
    }

    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        bounds::partition(partition)?;
        Ok(self.state().partitions.get(partition).and_then(|partition| partition.checkpoint.clone()))
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        bounds::size("the state", state.len(), bounds::MAX_STATE_BYTES)?;
        let mut server = self.state();
        server.owned(claim)?;
        let State { audit, partitions, domains, .. } = &mut *server;
        let Some(partition) = partitions.get_mut(&claim.partition) else { return Err(LogError::Fenced) };
        if partition.checkpoint.as_ref().is_some_and(|stored| position < stored.position) {
            return Ok(());
        }
        let replaced = partition.checkpoint.take();
        let applied_from = replaced.as_ref().map_or(EntryId::default(), |stored| stored.position);
        let is_kept = |stored: &Checkpoint| kept.is_some_and(|kept| kept.position == stored.position);
        partition.fallback = partition.fallback.take().filter(is_kept).or(replaced.filter(is_kept));
        let kept = kept.filter(|_| partition.fallback.is_some());
        let config = domains.get(&claim.partition.domain).map(|domain| &domain.config);
        let count_to = |last: EntryId| partition.log.partition_point(|(id, _)| *id <= last);
        let trimmed = count_to(kept.map_or(position, |kept| kept.position));
        let applied = partition.log.range(count_to(applied_from)..count_to(position));
        audit.checkpointed(claim, config, applied, position, state);
        for (_, record) in partition.log.drain(..trimmed) {
            let name = record.reply_to.as_ref().map_or(0, |to| to.gateway.len());
            partition.bytes = partition.bytes.saturating_sub((record.entry.len() + name) as u64);
        }
        partition.last = partition.last.max(position);
        partition.applied = 0;
        partition.checkpoint = Some(Checkpoint { position, epoch: claim.epoch, state: state.to_vec(), kept });
        Ok(())
    }

    async fn fallback(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        bounds::partition(partition)?;
        Ok(self.state().partitions.get(partition).and_then(|partition| partition.fallback.clone()))
    }

    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError> {
        self.state().owned(claim)?.applied = applied_since_checkpoint;
        Ok(())
    }

    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError> {
        bounds::partition(partition)?;
        let state = self.state();
        let now_ms = self.now_ms(&state);
        let nothing =
            PartitionStatus { waiting: 0, length: 0, owner: None, epoch: 0, checkpointed: None, checkpoint_bytes: 0 };
        Ok(state.partitions.get(partition).map_or(nothing, |partition| PartitionStatus {
            waiting: partition.waiting(),
            length: partition.since_checkpoint(),
            owner: partition.owner.as_ref().filter(|_| partition.is_held(now_ms)).map(|owner| owner.owner.clone()),
            epoch: partition.owner.as_ref().map_or(0, |owner| owner.epoch),
            checkpointed: partition.checkpoint.as_ref().map(|checkpoint| checkpoint.position),
            checkpoint_bytes: partition.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.len() as u64),
        }))
    }
}

#[async_trait]
impl Replies for Server {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        bounds::name("the gateway's id", gateway)?;
        let mut state = self.state();
        let Some(listeners) = state.subscribers.get_mut(gateway) else { return Ok(()) };
        // Who doesn't keep up misses some, as in Redis.
        listeners.retain(|listener| match listener.try_send(replies.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        if listeners.is_empty() {
            state.subscribers.remove(gateway);
        }
        Ok(())
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        bounds::name("the gateway's id", gateway)?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        self.state().subscribers.entry(gateway.to_owned()).or_default().push(sender);
        Ok(receiver)
    }
}

#[async_trait]
impl Directory for Server {
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError> {
        bounds::domain(domain)?;
        Ok(self.state().domains.entry(domain.name.clone()).or_insert_with(|| domain.clone()).clone())
    }

    async fn configure(&self, domain: &Domain) -> Result<(), LogError> {
        bounds::domain(domain)?;
        let mut state = self.state();
        let unknown = || LogError::Invalid(format!("there is no domain {}", domain.name));
        let stands = state.domains.get_mut(&domain.name).ok_or_else(unknown)?;
        stands.config = hebb_engine::PartitionConfig { task: stands.config.task, ..domain.config.clone() };
        Ok(())
    }

    async fn domains(&self) -> Result<Vec<Domain>, LogError> {
        Ok(self.state().domains.values().cloned().collect())
    }

    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError> {
        bounds::member(member)?;
        let mut state = self.state();
        let until = self.now_ms(&state).saturating_add(millis(ttl));
        state.members.insert(member.id.clone(), (member.report.clone(), until));
        Ok(())
    }

    async fn leave(&self, id: &str) -> Result<(), LogError> {
        self.state().members.remove(id);
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Member>, LogError> {
        let mut state = self.state();
        let now_ms = self.now_ms(&state);
        state.members.retain(|_, (_, until)| now_ms < *until);
        let member = |(id, (report, _)): (&String, &(String, u64))| Member { id: id.clone(), report: report.clone() };
        Ok(state.members.iter().map(member).collect())
    }

    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError> {
        bounds::name("the candidate's id", candidate)?;
        bounds::size("the candidate's address", address.len(), bounds::MAX_NAME_BYTES + 6)?;
        let mut state = self.state();
        let now_ms = self.now_ms(&state);
        let until = now_ms.saturating_add(millis(lease));
        state.leader.take_if(|(_, until)| *until <= now_ms);
        if let Some((leadership, prolonged)) = &mut state.leader {
            if leadership.leader == candidate {
                address.clone_into(&mut leadership.address);
                *prolonged = until;
            }
            return Ok(leadership.clone());
        }
        state.term = state.term.saturating_add(1).max(now_ms);
        let leadership = Leadership { leader: candidate.to_owned(), address: address.to_owned(), term: state.term };
        state.leader = Some((leadership.clone(), until));
        Ok(leadership)
    }

    async fn leader(&self) -> Result<Option<Leadership>, LogError> {
        let state = self.state();
        let now_ms = self.now_ms(&state);
        Ok(state.leader.as_ref().filter(|(_, until)| now_ms < *until).map(|(leadership, _)| leadership.clone()))
    }

    async fn resign(&self, candidate: &str) -> Result<(), LogError> {
        self.state().leader.take_if(|(leadership, _)| leadership.leader == candidate);
        Ok(())
    }

    async fn assign(&self, term: u64, assignment: &Assignment) -> Result<(), LogError> {
        let mut state = self.state();
        if state.term != term {
            return Err(LogError::Fenced);
        }
        state.assignment = assignment.clone();
        Ok(())
    }

    async fn assignment(&self) -> Result<Assignment, LogError> {
        Ok(self.state().assignment.clone())
    }

    async fn note(&self, term: u64, name: &str, note: &[u8]) -> Result<(), LogError> {
        bounds::note(name, note)?;
        let mut state = self.state();
        if state.term != term {
            return Err(LogError::Fenced);
        }
        state.notes.insert(name.to_owned(), note.to_vec());
        Ok(())
    }

    async fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.state().notes.get(name).cloned())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
