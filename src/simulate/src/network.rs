//! The network between the nodes and the store: every call is a message there and a message back, each with its own delay.
//!
//! What was sent stays under way when its sender dies or stops waiting: it may arrive late, twice, or after what was sent
//! later. A call that gets no answer fails as one on a real connection does, and nobody knows whether it happened.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hebb_log::{
    Assignment, Checkpoint, Claim, Claimed, Directory, Domain, EntryId, Kept, Leadership, Log, LogError, Member,
    PartitionKey, PartitionStatus, Record, Replies, Reply,
};
use hebb_node::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::settings::Messages;

/// How long a caller waits, as long as with a Redis.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How soon a caller learns that nobody is there, where it learns it at all.
const REFUSED_AFTER: Duration = Duration::from_millis(2);
/// Batches of replies that wait for a gateway.
const BATCHES: usize = 1024;
/// Bytes of an assignment's line beyond its two names, in JSON.
const LINE_BYTES: u64 = 28;

/// What doesn't get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing does.
    Both,
    /// Calls arrive and happen; their answers are lost.
    Answers,
}

/// A fault of the network, as a source of the errors that callers see.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Lost {
    #[error("the process is dead")]
    Dead,
    #[error("nobody is there")]
    Refused,
    #[error("no answer in time")]
    Silent,
}

impl From<Lost> for LogError {
    fn from(lost: Lost) -> Self {
        Self::Unavailable(Box::new(lost))
    }
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    /// The store at its other end.
    store: Store,
    seed: u64,
    messages: Messages,
    weather: Arc<Mutex<Weather>>,
}

#[derive(Default)]
struct Weather {
    is_calm: bool,
    store_away: bool,
    cuts: BTreeMap<String, Cut>,
    slow: BTreeMap<String, Duration>,
    traffic: Traffic,
}

/// What went over the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls that arrived, by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Messages that were lost.
    pub lost: u64,
    /// Calls that arrived twice.
    pub duplicated: u64,
    /// Messages that took far longer than the others.
    pub delayed: u64,
    /// Bytes of the assignments that were read.
    pub assignment_bytes: u64,
}

impl Traffic {
    /// What has come since.
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |name: &str| before.calls.get(name).copied().unwrap_or(0);
        Self {
            calls: self.calls.iter().map(|(name, count)| (*name, count - earlier(name))).collect(),
            lost: self.lost - before.lost,
            duplicated: self.duplicated - before.duplicated,
            delayed: self.delayed - before.delayed,
            assignment_bytes: self.assignment_bytes - before.assignment_bytes,
        }
    }
}

impl Network {
    /// A network in front of a store.
    pub fn new(store: Store, seed: u64, messages: Messages) -> Self {
        Self { store, seed, messages, weather: Arc::default() }
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way of one life of a process to the store.
    pub fn link(&self, node: &str, life: u64) -> Link {
        let chance = Arc::new(Mutex::new(Chance::new(self.seed, &format!("link {node} {life}"))));
        Link { network: self.clone(), node: node.to_owned(), dead: Arc::default(), chance }
    }

    /// Takes the store away, or brings it back with all that it had.
    pub fn set_store_away(&self, away: bool) {
        self.weather().store_away = away;
    }

    /// Cuts a node off, or mends its way.
    pub fn cut(&self, node: &str, cut: Option<Cut>) {
        let mut weather = self.weather();
        match cut {
            Some(cut) => drop(weather.cuts.insert(node.to_owned(), cut)),
            None => drop(weather.cuts.remove(node)),
        }
    }

    /// Makes every message of a node take so much longer.
    pub fn slow(&self, node: &str, by: Duration) {
        let mut weather = self.weather();
        if by.is_zero() {
            weather.slow.remove(node);
        } else {
            weather.slow.insert(node.to_owned(), by);
        }
    }

    /// Ends all faults, those of single messages too. What is under way arrives when it would have.
    pub fn heal(&self) {
        let mut weather = self.weather();
        weather.is_calm = true;
        weather.store_away = false;
        weather.cuts.clear();
        weather.slow.clear();
    }

    /// What went over it.
    pub fn traffic(&self) -> Traffic {
        self.weather().traffic.clone()
    }
}

/// One direction of a message.
#[derive(Clone, Copy)]
enum Way {
    There,
    Back,
}

/// The way of one life of a process to the store.
#[derive(Clone)]
pub struct Link {
    network: Network,
    node: String,
    dead: Arc<AtomicBool>,
    chance: Arc<Mutex<Chance>>,
}

impl Link {
    /// The store as the process sees it.
    pub fn store(&self) -> Store {
        Store::new(self.clone())
    }

    /// Ends the life: from now on the process can do nothing more. What it has sent is under way.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Whether the life has ended.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passes(&self, way: Way) -> bool {
        let mut weather = self.network.weather();
        let passes = match (way, weather.cuts.get(&self.node)) {
            _ if weather.store_away => false,
            (_, Some(Cut::Both)) | (Way::Back, Some(Cut::Answers)) => false,
            _ => true,
        };
        weather.traffic.lost += u64::from(!passes);
        passes
    }

    /// How long a message takes.
    fn delay(&self) -> Duration {
        let messages = &self.network.messages;
        let is_calm = self.network.weather().is_calm;
        let (mut delay, is_late) = {
            let mut chance = self.chance();
            let is_late = chance.happens(messages.late) && !is_calm;
            let range = if is_late { &messages.late_by } else { &messages.delay };
            (chance.duration(range), is_late)
        };
        let mut weather = self.network.weather();
        weather.traffic.delayed += u64::from(is_late);
        delay += weather.slow.get(&self.node).copied().unwrap_or_default();
        delay
    }

    /// Makes a call: `op` happens when the message arrives, once, twice or never.
    async fn call<T, F>(
        &self,
        name: &'static str,
        patience: Duration,
        op: impl Fn(Store) -> F + Send + 'static,
    ) -> Result<T, LogError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LogError>> + Send,
    {
        if self.is_dead() {
            return Err(Lost::Dead.into());
        }
        let (answer, answered) = oneshot::channel();
        let (there, back) = (self.delay(), self.delay());
        let (is_doubled, again) = {
            let mut chance = self.chance();
            (chance.happens(self.network.messages.duplicate), chance.duration(&self.network.messages.late_by))
        };
        let is_doubled = is_doubled && !self.network.weather().is_calm;
        let refuses = self.chance().happens(0.5);
        let link = self.clone();
        tokio::spawn(async move {
            sleep(there).await;
            if !link.passes(Way::There) {
                if refuses {
                    sleep(REFUSED_AFTER).await;
                    // An error says that the caller has gone.
                    let _ = answer.send(Err(Lost::Refused.into()));
                }
                return;
            }
            *link.network.weather().traffic.calls.entry(name).or_insert(0) += 1;
            let done = op(link.network.store.clone()).await;
            sleep(back).await;
            if link.passes(Way::Back) {
                let _ = answer.send(done);
            }
            if is_doubled {
                sleep(again).await;
                if link.passes(Way::There) {
                    link.network.weather().traffic.duplicated += 1;
                    // Its answer belongs to no call.
                    let _ = op(link.network.store.clone()).await;
                }
            }
        });
        match timeout(CALL_DEADLINE + patience, answered).await {
            _ if self.is_dead() => Err(Lost::Dead.into()),
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(Lost::Silent.into()),
        }
    }
}

#[async_trait]
impl Log for Link {
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError> {
        let (key, records) = (partition.clone(), Arc::new(records.to_vec()));
        self.call("append", Duration::ZERO, move |store| {
            let (key, records) = (key.clone(), records.clone());
            async move { store.log.append(&key, &records, waiting_max).await }
        })
        .await
    }

    async fn read(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        let key = partition.clone();
        self.call("read", wait, move |store| {
            let key = key.clone();
            async move { store.log.read(&key, after, max, wait).await }
        })
        .await
    }

    async fn claim(
        &self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        let (key, owner, previous) = (partition.clone(), owner.to_owned(), previous.cloned());
        self.call("claim", Duration::ZERO, move |store| {
            let (key, owner, previous) = (key.clone(), owner.clone(), previous.clone());
            async move { store.log.claim(&key, &owner, previous.as_ref(), lease).await }
        })
        .await
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        let claim = claim.clone();
        self.call("renew", Duration::ZERO, move |store| {
            let claim = claim.clone();
            async move { store.log.renew(&claim, lease).await }
        })
        .await
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        let claim = claim.clone();
        self.call("release", Duration::ZERO, move |store| {
            let claim = claim.clone();
            async move { store.log.release(&claim).await }
        })
        .await
    }

    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        let key = partition.clone();
        self.call("load", Duration::ZERO, move |store| {
            let key = key.clone();
            async move { store.log.load(&key).await }
        })
        .await
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        let (claim, state) = (claim.clone(), Arc::new(state.to_vec()));
        self.call("checkpoint", Duration::ZERO, move |store| {
            let (claim, state) = (claim.clone(), state.clone());
            async move { store.log.checkpoint(&claim, position, &state, kept).await }
        })
        .await
    }

    async fn fallback(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        let key = partition.clone();
        self.call("fallback", Duration::ZERO, move |store| {
            let key = key.clone();
            async move { store.log.fallback(&key).await }
        })
        .await
    }

    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError> {
        let claim = claim.clone();
        self.call("progress", Duration::ZERO, move |store| {
            let claim = claim.clone();
            async move { store.log.progress(&claim, applied_since_checkpoint).await }
        })
        .await
    }

    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError> {
        let key = partition.clone();
        self.call("status", Duration::ZERO, move |store| {
            let key = key.clone();
            async move { store.log.status(&key).await }
        })
        .await
    }
}

#[async_trait]
impl Replies for Link {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        let gateway = gateway.to_owned();
        self.call("send", Duration::ZERO, move |store| {
            let (gateway, replies) = (gateway.clone(), replies.clone());
            async move { store.replies.send(&gateway, replies).await }
        })
        .await
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        let name = gateway.to_owned();
        let subscribed = self.call("subscribe", Duration::ZERO, move |store| {
            let name = name.clone();
            async move { store.replies.subscribe(&name).await }
        });
        let mut sent = subscribed.await?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        let link = self.clone();
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    batch = sent.recv() => batch,
                };
                let Some(batch) = batch else { return };
                if link.is_dead() {
                    return;
                }
                let (delay, link, sender) = (link.delay(), link.clone(), sender.clone());
                tokio::spawn(async move {
                    sleep(delay).await;
                    if link.passes(Way::Back) {
                        // Who doesn't keep up misses some.
                        let _ = sender.try_send(batch);
                    }
                });
            }
        });
        Ok(receiver)
    }
}

#[async_trait]
impl Directory for Link {
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError> {
        let domain = domain.clone();
        self.call("declare", Duration::ZERO, move |store| {
            let domain = domain.clone();
            async move { store.directory.declare(&domain).await }
        })
        .await
    }

    async fn configure(&self, domain: &Domain) -> Result<(), LogError> {
        let domain = domain.clone();
        self.call("configure", Duration::ZERO, move |store| {
            let domain = domain.clone();
            async move { store.directory.configure(&domain).await }
        })
        .await
    }

    async fn domains(&self) -> Result<Vec<Domain>, LogError> {
        self.call("domains", Duration::ZERO, |store| async move { store.directory.domains().await }).await
    }

    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError> {
        let member = member.clone();
        self.call("beat", Duration::ZERO, move |store| {
            let member = member.clone();
            async move { store.directory.beat(&member, ttl).await }
        })
        .await
    }

    async fn leave(&self, id: &str) -> Result<(), LogError> {
        let id = id.to_owned();
        self.call("leave", Duration::ZERO, move |store| {
            let id = id.clone();
            async move { store.directory.leave(&id).await }
        })
        .await
    }

    async fn members(&self) -> Result<Vec<Member>, LogError> {
        self.call("members", Duration::ZERO, |store| async move { store.directory.members().await }).await
    }

    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError> {
        let (candidate, address) = (candidate.to_owned(), address.to_owned());
        self.call("campaign", Duration::ZERO, move |store| {
            let (candidate, address) = (candidate.clone(), address.clone());
            async move { store.directory.campaign(&candidate, &address, lease).await }
        })
        .await
    }

    async fn leader(&self) -> Result<Option<Leadership>, LogError> {
        self.call("leader", Duration::ZERO, |store| async move { store.directory.leader().await }).await
    }

    async fn resign(&self, candidate: &str) -> Result<(), LogError> {
        let candidate = candidate.to_owned();
        self.call("resign", Duration::ZERO, move |store| {
            let candidate = candidate.clone();
            async move { store.directory.resign(&candidate).await }
        })
        .await
    }

    async fn assign(&self, term: u64, assignment: &Assignment) -> Result<(), LogError> {
        let assignment = assignment.clone();
        self.call("assign", Duration::ZERO, move |store| {
            let assignment = assignment.clone();
            async move { store.directory.assign(term, &assignment).await }
        })
        .await
    }

    async fn assignment(&self) -> Result<Assignment, LogError> {
        let read = self.call("assignment", Duration::ZERO, |store| async move { store.directory.assignment().await });
        let assignment = read.await?;
        let line = |(key, owner): &(PartitionKey, String)| (key.domain.len() + owner.len()) as u64 + LINE_BYTES;
        let bytes: u64 = assignment.owners.iter().map(line).sum();
        self.network.weather().traffic.assignment_bytes += bytes;
        Ok(assignment)
    }

    async fn note(&self, term: u64, name: &str, note: &[u8]) -> Result<(), LogError> {
        let (name, note) = (name.to_owned(), note.to_vec());
        self.call("note", Duration::ZERO, move |store| {
            let (name, note) = (name.clone(), note.clone());
            async move { store.directory.note(term, &name, &note).await }
        })
        .await
    }

    async fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let name = name.to_owned();
        self.call("noted", Duration::ZERO, move |store| {
            let name = name.clone();
            async move { store.directory.noted(&name).await }
        })
        .await
    }
}
