//! The log of Hebb: queue and write-ahead log of a partition at once, the ownership of partitions, the replies to
//! gateways, and the directory in which the nodes of a cluster find each other.
//!
//! Three traits, two implementations each: Redis for a cluster, a local directory for one process. Both pass the same
//! conformance suite. Entries and states are opaque bytes here; the engine gives them meaning. Beside them a fourth, the
//! history of metrics, with a suite of its own.

pub mod bounds;
mod codec;
pub mod conformance;
mod history;
mod local;
mod redis;
mod sqlite;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
pub use hebb_engine::EntryId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use bounds::{
    MAX_ASSIGNMENT_BYTES, MAX_BATCH_BYTES, MAX_NAME_BYTES, MAX_NOTE_BYTES, MAX_PARTITIONS, MAX_READ, MAX_RECORDS,
    MAX_REPORT_BYTES, MAX_STATE_BYTES,
};
pub use history::{Batch, History, MAX_HISTORY_BYTES, MAX_SERIES_BYTES, Samples, Tier};
pub use local::{LocalConfig, LocalStore, OpenError};
pub use redis::{Address, DEFAULT_SERVICE, RedisConfig, RedisStore, Tls, Topology};
pub use sqlite::{HistoryError, SqliteHistory};

/// When an append counts as accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// In the store's memory.
    Async,
    /// A crash of the machine may cost the last second, a crash of the process nothing.
    #[default]
    EverySecond,
    /// On disk before the answer.
    Always,
    /// Held by this many replicas too, as ownership and checkpoints are: what was acknowledged outlives the primary.
    Replicated {
        /// How many have to acknowledge.
        replicas: u8,
    },
}

impl FromStr for Durability {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let replicas = |count: &str| count.parse().ok().filter(|count| 0 < *count);
        match (text, text.strip_prefix("Replicated:").and_then(replicas)) {
            ("Async", _) => Ok(Self::Async),
            ("EverySecond", _) => Ok(Self::EverySecond),
            ("Always", _) => Ok(Self::Always),
            (_, Some(replicas)) => Ok(Self::Replicated { replicas }),
            _ => Err(LogError::Invalid(format!(
                "{text:?} is no durability: Async, EverySecond, Always, or Replicated:n with n from 1 to 255"
            ))),
        }
    }
}

/// The address of one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionKey {
    /// The domain's name.
    pub domain: String,
    /// The partition's number within the domain, from 0.
    pub index: u32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.index)
    }
}

/// What went wrong in a log or directory.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store can't be reached or didn't answer in time; the same call may work later. A write may have happened.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store answered something that makes no sense here, for example bytes of another version.
    #[error("the store holds what can't be read: {0}")]
    Corrupt(String),
    /// The partition has as many waiting entries as allowed; nothing was appended.
    #[error("{waiting} entries are waiting, {max} are allowed")]
    Full {
        /// Entries appended and not yet applied.
        waiting: u64,
        /// The bound.
        max: u64,
    },
    /// Another owner has claimed the partition since, or another leader was elected, or the store has lost what the claim
    /// was based on; nothing was written.
    #[error("the claim was superseded")]
    Fenced,
    /// The call is outside of what a store takes, for example too large; nothing was done and a retry won't help.
    #[error("the store doesn't take this: {0}")]
    Invalid(String),
}

impl LogError {
    pub(crate) fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Box::new(source))
    }
}

/// Where the answer to an entry goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The gateway's id, which the entries of a gateway share.
    pub gateway: Arc<str>,
    /// The gateway's number for the request.
    pub request: u64,
}

/// One record as it is appended: an encoded entry and who waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The encoded [`hebb_engine::Entry`]. It may be a part of a larger buffer, which lives as long as its last part.
    pub entry: Bytes,
    /// Who waits; none for control messages.
    pub reply_to: Option<ReplyTo>,
}

/// The outcome of an entry on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The gateway's number for the request.
    pub request: u64,
    /// The encoded [`hebb_engine::Outcome`].
    pub body: Vec<u8>,
}

/// The right to apply, checkpoint and trim a partition, until it is superseded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is owned.
    pub partition: PartitionKey,
    /// Who owns it.
    pub owner: String,
    /// Grows with every change of owner.
    pub epoch: u64,
    /// Random; tells two claims apart even where the store lost the newest epoch in a crash.
    pub token: String,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A new epoch: load the checkpoint and replay what follows it.
    New(Claim),
    /// Nobody has owned the partition since the previous claim: the state in memory is still the newest.
    Resumed(Claim),
    /// Somebody else's lease has not expired.
    Held {
        /// Who holds it.
        owner: String,
        /// How long at most until it expires, unless it is renewed.
        expires_in: Duration,
    },
}

/// A stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry that the state contains.
    pub position: EntryId,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// The snapshot.
    pub state: Vec<u8>,
    /// The fallback that stands beside it, if any.
    pub kept: Option<Kept>,
}

/// An earlier checkpoint that is kept beside the newest one as a fallback, for an owner that can't read the newest. The log
/// still has what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The last entry that it contains.
    pub position: EntryId,
    /// The position of the first checkpoint that it was kept beside.
    pub since: EntryId,
    /// Entries between it and the newest checkpoint.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What an observer sees of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Entries appended and not yet applied.
    pub waiting: u64,
    /// Entries in the log since the last checkpoint.
    pub length: u64,
    /// Who holds the lease, if anybody.
    pub owner: Option<String>,
    /// The newest epoch; 0 before the first claim.
    pub epoch: u64,
    /// The last entry of the last checkpoint.
    pub checkpointed: Option<EntryId>,
    /// Bytes of the last checkpoint; 0 where there is none.
    pub checkpoint_bytes: u64,
}

/// The entries of all partitions and who may apply them.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends all records in order, or none. When it returns, they are as durable as the log is configured to make them.
    /// At most 10,000 records and 64 MiB a call.
    ///
    /// # Errors
    /// [`LogError::Full`] where more than `waiting_max` entries would wait; [`LogError::Unavailable`] leaves open whether
    /// the records were appended.
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError>;

    /// The entries after a place, at most `max`; waits up to `wait` for the first one. Once 8 MiB have come, it may end with
    /// fewer than `max` although there are more: [`bounds::may_go_on`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn read(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError>;

    /// Asks for the ownership of a partition for `lease`. `previous` is the claim whose state is still in memory, if any.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn claim(
        &self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError>;

    /// Prolongs the lease to `lease` from now. A lease that has expired is prolonged too while nobody else has claimed.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Unavailable`].
    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError>;

    /// Gives the ownership up, so that the next owner needn't wait. Does nothing where another claim has superseded it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn release(&self, claim: &Claim) -> Result<(), LogError>;

    /// The newest checkpoint.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError>;

    /// Stores a state and trims the log up to its position, both or none. The position is that of the newest entry that
    /// the owner has applied: nothing waits but what follows it. A position before that of the stored checkpoint, as a
    /// delayed retry has it, changes nothing.
    ///
    /// With `kept`, the checkpoint of that position stays as the fallback, whether it was the newest one until now or the
    /// fallback already, and the log is trimmed up to there only. Entries that are kept for a fallback don't wait. A store
    /// that has no such checkpoint, or is short of room for it, keeps none; without `kept` none is.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where the claim was superseded, [`LogError::Unavailable`].
    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError>;

    /// The checkpoint that is kept beside the newest one.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn fallback(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError>;

    /// Says how far the owner is: the entries applied since the last checkpoint. Feeds `waiting`; a loss of it costs nothing.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Unavailable`].
    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError>;

    /// What an observer sees.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError>;
}

/// The way back from workers to gateways. At most once: who misses a reply asks again with the same event id.
#[async_trait]
pub trait Replies: Send + Sync {
    /// Sends replies to one gateway.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError>;

    /// Receives the replies to a gateway, in batches as they were sent. The subscription mends itself after a lost
    /// connection and ends when the receiver is dropped.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when it can't be set up.
    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError>;
}

/// A domain as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// The name, unique in the cluster.
    pub name: String,
    /// The number of partitions; fixed for the life of the domain.
    pub partitions: u32,
    /// What its partitions start from.
    pub config: hebb_engine::PartitionConfig,
}

impl Domain {
    /// Its partitions, in their order.
    pub fn keys(&self) -> impl Iterator<Item = PartitionKey> + '_ {
        (0..self.partitions).map(|index| PartitionKey { domain: self.name.clone(), index })
    }
}

/// A node that beats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The node's id, for example the pod's name.
    pub id: String,
    /// The report that came with the last heartbeat, as JSON.
    pub report: String,
}

/// Who leads the coordinators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The leader's id.
    pub leader: String,
    /// Where the leader answers, `host:port`.
    pub address: String,
    /// The fencing number; grows with every change of leader.
    pub term: u64,
}

/// Which worker should own which partition: advice, ownership is a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Grows with every change.
    pub version: u64,
    /// The worker of each partition, in the order of the partitions.
    pub owners: Vec<(PartitionKey, String)>,
}

/// The directory of a cluster: domains, members, leader, assignment.
#[async_trait]
pub trait Directory: Send + Sync {
    /// Makes a domain known, unless one of that name is; returns the one that stands.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError>;

    /// Replaces the configuration of a known domain; name, partitions and task stay.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for an unknown domain, [`LogError::Unavailable`].
    async fn configure(&self, domain: &Domain) -> Result<(), LogError>;

    /// All domains, by name.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn domains(&self) -> Result<Vec<Domain>, LogError>;

    /// Says that a worker lives, for `ttl`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError>;

    /// Takes a worker out at once.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn leave(&self, id: &str) -> Result<(), LogError>;

    /// The workers that live, by id. Expired ones are gone.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn members(&self) -> Result<Vec<Member>, LogError>;

    /// Stands for leader, or prolongs the own leadership to `lease` from now; returns who leads.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError>;

    /// Who leads now, if anybody.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn leader(&self) -> Result<Option<Leadership>, LogError>;

    /// Gives the leadership up. Does nothing for one who doesn't lead.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn resign(&self, candidate: &str) -> Result<(), LogError>;

    /// Publishes an assignment in the name of the leader of `term`.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where another term has begun, [`LogError::Unavailable`].
    async fn assign(&self, term: u64, assignment: &Assignment) -> Result<(), LogError>;

    /// The newest assignment.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn assignment(&self) -> Result<Assignment, LogError>;

    /// Keeps a note of the leader of `term` under a name, in place of the one before it. It outlives leaders and processes.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where another term has begun, [`LogError::Invalid`] beyond 1 MiB, [`LogError::Unavailable`].
    async fn note(&self, term: u64, name: &str, note: &[u8]) -> Result<(), LogError>;

    /// The note under a name.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, LogError>;
}
