//! The store of one process: what is durable in a file, what lives with the process in memory.
//!
//! The tail of each log is kept in memory too, so reads never touch the file. Leases, members and the leader end with the
//! process: the file's lock says that no other process lives that could hold them.

mod disk;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use self::disk::{Change, Disk};
use crate::redis::reconfigured;
use crate::{
    Assignment, Checkpoint, Claim, Claimed, Directory, Domain, Durability, EntryId, Leadership, Log, LogError, Member,
    PartitionKey, PartitionStatus, Record, Replies, Reply, bounds,
};

/// Batches of replies that wait for a gateway of this process.
const BATCHES: usize = 1_024;
/// Name of the file in the directory.
const FILE: &str = "hebb.redb";

/// The log, the replies and the directory of one process. Clones share the file.
#[derive(Clone)]
pub struct LocalStore(Arc<Shared>);

struct Shared {
    disk: Disk,
    /// One append or checkpoint of a partition at a time, so that the order in the file is the order of the ids.
    state: Mutex<State>,
    order: Mutex<HashMap<PartitionKey, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<PartitionKey, Partition>,
    gateways: HashMap<String, mpsc::Sender<Vec<Reply>>>,
    domains: BTreeMap<String, Domain>,
    members: BTreeMap<String, (Member, Instant)>,
    leader: Option<(Leadership, Instant)>,
    term: u64,
    assignment: Assignment,
}

#[derive(Default)]
struct Partition {
    log: BTreeMap<EntryId, Record>,
    /// The newest id that was ever given.
    last: EntryId,
    checkpoint: Option<Checkpoint>,
    epoch: u64,
    claim: Option<Claim>,
    lease_until: Option<Instant>,
    progress: u64,
    appended: Arc<Notify>,
}

impl Partition {
    fn held(&self) -> Option<(&Claim, Duration)> {
        let left = self.lease_until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some((self.claim.as_ref()?, left))
    }

    fn check(&self, claim: &Claim) -> Result<(), LogError> {
        if self.claim.as_ref() == Some(claim) { Ok(()) } else { Err(LogError::Fenced) }
    }

    fn waiting(&self) -> u64 {
        (self.log.len() as u64).saturating_sub(self.progress)
    }

    /// The next id: the clock's, but never before the last one.
    fn next_id(&mut self) -> EntryId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.last = if now > self.last.at_ms {
            EntryId { at_ms: now, seq: 0 }
        } else {
            EntryId { at_ms: self.last.at_ms, seq: self.last.seq + 1 }
        };
        self.last
    }
}

impl LocalStore {
    /// Opens the store in a directory, which is made if need be. Every append is synced to the disk before it counts
    /// ([`Durability::EverySecond`] is kept by doing more), except with [`Durability::Async`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where the directory can't be used, for example by a second process;
    /// [`LogError::Invalid`] for replicas, which a single process doesn't have.
    pub fn open(directory: &Path, durability: Durability) -> Result<Self, LogError> {
        let sync = match durability {
            Durability::Async => false,
            Durability::EverySecond => true,
            Durability::Replicated { .. } => {
                return Err(LogError::Invalid("a local log has no replicas".to_owned()));
            }
        };
        std::fs::create_dir_all(directory).map_err(LogError::unavailable)?;
        Self::start(Some(&directory.join(FILE)), sync)
    }

    /// A store that ends with the process, for trials and tests.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where no thread can be started.
    pub fn in_memory() -> Result<Self, LogError> {
        Self::start(None, false)
    }

    fn start(path: Option<&Path>, sync: bool) -> Result<Self, LogError> {
        let (disk, contents) = Disk::open(path, sync)?;
        let mut state = State::default();
        for (key, checkpoint) in contents.checkpoints {
            let partition = state.partitions.entry(key).or_default();
            partition.last = checkpoint.position;
            partition.checkpoint = Some(checkpoint);
        }
        for (key, id, record) in contents.log {
            let partition = state.partitions.entry(key).or_default();
            partition.last = partition.last.max(id);
            partition.log.insert(id, record);
        }
        for (key, epoch) in contents.epochs {
            state.partitions.entry(key).or_default().epoch = epoch;
        }
        state.domains = contents.domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Ok(Self(Arc::new(Shared { disk, state: Mutex::new(state), order: Mutex::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn in_order(&self, key: &PartitionKey) -> tokio::sync::OwnedMutexGuard<()> {
        let order = {
            let mut orders = self.0.order.lock().unwrap_or_else(PoisonError::into_inner);
            orders.entry(key.clone()).or_default().clone()
        };
        order.lock_owned().await
    }
}

#[async_trait]
impl Log for LocalStore {
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError> {
        bounds::partition(partition)?;
        bounds::records(records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let _order = self.in_order(partition).await;
        let ids: Vec<EntryId> = {
            let mut state = self.state();
            let known = state.partitions.entry(partition.clone()).or_default();
            let waiting = known.waiting();
            if waiting.saturating_add(records.len() as u64) > waiting_max {
                return Err(LogError::Full { waiting, max: waiting_max });
            }
            records.iter().map(|_| known.next_id()).collect()
        };
        let changes = ids
            .iter()
            .zip(records)
            .map(|(id, record)| Change::Append(partition.clone(), *id, record.entry.clone()))
            .collect();
        self.0.disk.write(changes).await?;
        let mut state = self.state();
        let known = state.partitions.entry(partition.clone()).or_default();
        known.log.extend(ids.iter().copied().zip(records.iter().cloned()));
        known.appended.notify_waiters();
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
        let deadline = Instant::now() + wait;
        loop {
            let appended = {
                let mut state = self.state();
                state.partitions.entry(partition.clone()).or_default().appended.clone()
            };
            // Waits from before the look, so that an append in between wakes it.
            let woken = appended.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let found: Vec<(EntryId, Record)> = {
                let state = self.state();
                let known = state.partitions.get(partition);
                let newer = known.into_iter().flat_map(|known| {
                    known.log.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
                });
                newer.take(max.min(bounds::MAX_READ)).map(|(id, record)| (*id, record.clone())).collect()
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if !found.is_empty() || max == 0 || left.is_zero() {
                return Ok(found);
            }
            // Whether it was woken or time ran out, the next look tells.
            let _ = timeout(left, woken).await;
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
        let claim = {
            let mut state = self.state();
            let known = state.partitions.entry(partition.clone()).or_default();
            if let Some((claim, expires_in)) = known.held()
                && Some(claim) != previous
            {
                return Ok(Claimed::Held { owner: claim.owner.clone(), expires_in });
            }
            known.lease_until = Some(Instant::now() + lease);
            if let Some(claim) = previous.filter(|previous| known.claim.as_ref() == Some(previous)) {
                return Ok(Claimed::Resumed(claim.clone()));
            }
            known.epoch += 1;
            known.progress = 0;
            let claim = Claim {
                partition: partition.clone(),
                owner: owner.to_owned(),
                epoch: known.epoch,
                token: format!("{:032x}", rand::random::<u128>()),
            };
            known.claim = Some(claim.clone());
            claim
        };
        self.0.disk.write(vec![Change::Epoch(partition.clone(), claim.epoch)]).await?;
        Ok(Claimed::New(claim))
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        let mut state = self.state();
        let known = state.partitions.get_mut(&claim.partition).ok_or(LogError::Fenced)?;
        known.check(claim)?;
        known.lease_until = Some(Instant::now() + lease);
        Ok(())
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        let mut state = self.state();
        if let Some(known) = state.partitions.get_mut(&claim.partition)
            && known.check(claim).is_ok()
        {
            known.lease_until = None;
        }
        Ok(())
    }

    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        Ok(self.state().partitions.get(partition).and_then(|known| known.checkpoint.clone()))
    }

    async fn checkpoint(&self, claim: &Claim, position: EntryId, state: &[u8]) -> Result<(), LogError> {
        bounds::size("the state", state.len(), bounds::MAX_STATE_BYTES)?;
        let _order = self.in_order(&claim.partition).await;
        let checkpoint = Checkpoint { position, epoch: claim.epoch, state: state.to_vec() };
        let trimmed: Vec<EntryId> = {
            let memory = self.state();
            let known = memory.partitions.get(&claim.partition).ok_or(LogError::Fenced)?;
            known.check(claim)?;
            if known.checkpoint.as_ref().is_some_and(|stored| position < stored.position) {
                return Ok(());
            }
            known.log.range(..=position).map(|(id, _)| *id).collect()
        };
        let change = Change::Checkpoint(claim.partition.clone(), checkpoint.clone(), trimmed);
        self.0.disk.write(vec![change]).await?;
        let mut memory = self.state();
        if let Some(known) = memory.partitions.get_mut(&claim.partition) {
            known.log.retain(|id, _| *id > position);
            known.checkpoint = Some(checkpoint);
            known.last = known.last.max(position);
            known.progress = 0;
        }
        Ok(())
    }

    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError> {
        let mut state = self.state();
        let known = state.partitions.get_mut(&claim.partition).ok_or(LogError::Fenced)?;
        known.check(claim)?;
        known.progress = applied_since_checkpoint;
        Ok(())
    }

    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError> {
        let state = self.state();
        let nothing = Partition::default();
        let known = state.partitions.get(partition).unwrap_or(&nothing);
        Ok(PartitionStatus {
            waiting: known.waiting(),
            length: known.log.len() as u64,
            owner: known.held().map(|(claim, _)| claim.owner.clone()),
            epoch: known.epoch,
            checkpointed: known.checkpoint.as_ref().map(|checkpoint| checkpoint.position),
        })
    }
}

#[async_trait]
impl Replies for LocalStore {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        let subscribed = self.state().gateways.get(gateway).cloned();
        if let Some(subscribed) = subscribed {
            // An error says that the gateway has gone; nobody waits for these replies.
            let _ = subscribed.send(replies).await;
        }
        Ok(())
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        bounds::name("the gateway's id", gateway)?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        let mut state = self.state();
        state.gateways.retain(|_, known| !known.is_closed());
        state.gateways.insert(gateway.to_owned(), sender);
        Ok(receiver)
    }
}

#[async_trait]
impl Directory for LocalStore {
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError> {
        bounds::domain(domain)?;
        if let Some(known) = self.state().domains.get(&domain.name) {
            return Ok(known.clone());
        }
        self.0.disk.write(vec![Change::Domain(domain.clone())]).await?;
        Ok(self.state().domains.entry(domain.name.clone()).or_insert_with(|| domain.clone()).clone())
    }

    async fn configure(&self, domain: &Domain) -> Result<(), LogError> {
        let known = self.state().domains.get(&domain.name).cloned();
        let known = known.ok_or_else(|| crate::redis::unknown(&domain.name))?;
        let changed = reconfigured(known, domain);
        self.0.disk.write(vec![Change::Domain(changed.clone())]).await?;
        self.state().domains.insert(changed.name.clone(), changed);
        Ok(())
    }

    async fn domains(&self) -> Result<Vec<Domain>, LogError> {
        Ok(self.state().domains.values().cloned().collect())
    }

    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError> {
        bounds::member(member)?;
        self.state().members.insert(member.id.clone(), (member.clone(), Instant::now() + ttl));
        Ok(())
    }

    async fn leave(&self, id: &str) -> Result<(), LogError> {
        self.state().members.remove(id);
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Member>, LogError> {
        let mut state = self.state();
        let now = Instant::now();
        state.members.retain(|_, (_, until)| *until > now);
        Ok(state.members.values().map(|(member, _)| member.clone()).collect())
    }

    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError> {
        bounds::name("the candidate's id", candidate)?;
        let mut state = self.state();
        let now = Instant::now();
        let standing = state.leader.take().filter(|(_, until)| *until > now);
        let (leadership, until) = match standing {
            Some((leadership, until)) if leadership.leader != candidate => (leadership, until),
            standing => {
                if standing.is_none() {
                    state.term += 1;
                }
                let (leader, address) = (candidate.to_owned(), address.to_owned());
                (Leadership { leader, address, term: state.term }, now + lease)
            }
        };
        state.leader = Some((leadership.clone(), until));
        Ok(leadership)
    }

    async fn leader(&self) -> Result<Option<Leadership>, LogError> {
        let now = Instant::now();
        Ok(self.state().leader.as_ref().filter(|(_, until)| *until > now).map(|(leadership, _)| leadership.clone()))
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
}
