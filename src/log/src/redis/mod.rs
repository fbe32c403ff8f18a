//! The stores of a cluster: streams, hashes and leases in Redis.
//! Decides nothing about which Redis is primary: Sentinels or the Cluster do, and it follows them.
//!
//! # What a failover may cost
//! A replica is promoted with what it has received. Below [`Durability::Replicated`] that may lack the last entries that
//! were acknowledged, and the owner of a partition, which has read them, keeps its state: what Redis has forgotten is
//! still learned, and is stored with the next checkpoint.
//!
//! Under [`Durability::Replicated`] nothing counts before the replicas have it: neither an entry, nor a claim or the
//! renewal of its lease, nor a checkpoint. What that is worth depends on how many replicas there are:
//! - With as many acknowledgements as replicas, every replica that can be promoted has everything that was acknowledged.
//! - With fewer, the one that is promoted has it if it's the furthest, which is whom Sentinels and Cluster choose, from
//!   figures that are taken after the primary's end. It isn't if all replicas that acknowledged are lost with the primary,
//!   or if a primary that had stopped for longer than `down-after-milliseconds` goes on in the instant in which one
//!   replica is promoted already and another still follows the old one.
//! - A primary that is cut off from its replicas acknowledges nothing, whoever can still reach it; `min-replicas-to-write`
//!   makes it say so at once.
//!
//! An owner may have read entries that the promoted replica never got: they were not acknowledged, and so may be gone,
//! but they are part of its state, and the places that they had may be given out again if the new primary's clock is
//! behind. So a claim holds for one history of the data only, see the scripts: after a failover its owner is
//! fenced off, claims anew, and restores checkpoint and log as they survived. A checkpoint and the trim of the log that
//! goes with it are one step of one script, so that a replica has both or neither, and replays exactly what follows.

mod access;
mod config;
mod directory;
mod history;
mod link;
mod log;
mod primary;
mod replies;
mod scripts;
mod sentinel;
mod shards;
mod sizes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};

use self::access::Access;
use self::link::{Dialer, Seat};
use self::primary::{Answer, Primary, Quorum, Way};
use self::scripts::{Call, Scripts};
use self::sentinel::Sentinels;
use self::shards::Shards;
use self::sizes::Sizes;
use crate::{Durability, EntryId, LogError, PartitionKey, bounds};

pub use self::config::{Address, DEFAULT_SERVICE, RedisConfig, Tls, Topology};

/// How long a call waits for its answer. A lease of 10 s outlives two failed renewals and a third that works.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// The slowest transfer that is still waited for: a batch of 64 MiB gets 10 s.
const BYTES_PER_SECOND: usize = 8 << 20;
/// The most that replicas may take to acknowledge; below the deadline of the call it's part of.
const WAIT_DEADLINE: Duration = Duration::from_secs(1);
const _: () = assert!(WAIT_DEADLINE.as_millis() < CALL_DEADLINE.as_millis());

/// The log, the replies and the directory of a cluster in Redis. Clones share their connections.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    durability: Durability,
    scripts: Scripts,
    routes: Routes,
    sizes: Sizes,
}

/// Whom a call goes to.
enum Routes {
    /// One primary has all keys.
    Single(Arc<Primary>),
    /// The primary that holds the slot of the call's keys.
    Sharded(Arc<Shards>),
}

/// What a call wrote, if it wrote, and whether enough replicas have it.
struct Written {
    answer: Value,
    replicated: Result<(), TooFewReplicas>,
}

#[derive(Debug, thiserror::Error)]
#[error("{acknowledged} of {wanted} replicas have acknowledged within {within:?}")]
struct TooFewReplicas {
    acknowledged: u64,
    wanted: u8,
    within: Duration,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("cluster", &self.inner.cluster).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store that dials at its first call, and again whenever the connection is lost.
    ///
    /// # Errors
    /// [`LogError::Invalid`] where the configuration makes no sense.
    pub fn lazy(config: RedisConfig) -> Result<Self, LogError> {
        let RedisConfig { topology, username, password, tls, cluster, durability } = config;
        bounds::name("the cluster's name", &cluster)?;
        if matches!(durability, Durability::Replicated { replicas: 0 }) {
            return Err(LogError::Invalid("replicated durability needs at least one replica".to_owned()));
        }
        let invalid = |error: RedisError| LogError::Invalid(error.to_string());
        let access = Access::new(username.as_deref(), password.as_deref(), tls.as_ref());
        access.check(&Address::new("localhost", 6379)).map_err(invalid)?;
        let routes = match topology {
            Topology::Standalone(address) => {
                Routes::Single(Arc::new(Primary::new(Dialer::new(access, Seat::Fixed(address)))))
            }
            Topology::Sentinel { sentinels, service, password } => {
                let guards = Access::new(None, password.as_deref(), tls.as_ref());
                let sentinels = Sentinels::new(service, guards, sentinels);
                Routes::Single(Arc::new(Primary::new(Dialer::new(access, Seat::Elected(Box::new(sentinels))))))
            }
            Topology::Cluster { seeds } => Routes::Sharded(Arc::new(Shards::new(access, seeds))),
        };
        let sizes = Sizes::default();
        Ok(Self { inner: Arc::new(Inner { cluster, durability, scripts: Scripts::new(), routes, sizes }) })
    }

    /// A store whose Redis has answered once.
    ///
    /// # Errors
    /// [`LogError::Invalid`] where the configuration makes no sense, [`LogError::Unavailable`] where nobody answers or
    /// the password is wrong.
    pub async fn connect(config: RedisConfig) -> Result<Self, LogError> {
        let store = Self::lazy(config)?;
        store.ping().await?;
        Ok(store)
    }

    /// Asks for a sign of life; in a Cluster of the node that holds the directory.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn ping(&self) -> Result<(), LogError> {
        self.control(&Call::plain(&self.cluster_key("term"), redis::cmd("PING"))).await.map(drop)
    }

    /// A key of a partition. They share the hash tag, so that they share a slot and a script can use them together.
    fn key(&self, partition: &PartitionKey, name: &str) -> String {
        format!("hebb:{{{}/{partition}}}:{name}", self.inner.cluster)
    }

    /// A key of the directory; these share a slot too.
    fn cluster_key(&self, name: &str) -> String {
        format!("hebb:{{{}}}:{name}", self.inner.cluster)
    }

    async fn control(&self, call: &Call<'_>) -> Result<Value, LogError> {
        self.send(Way::Control, call, CALL_DEADLINE).await
    }

    async fn send(&self, way: Way, call: &Call<'_>, deadline: Duration) -> Result<Value, LogError> {
        match self.call(way, call, deadline, Duration::ZERO).await? {
            Answer::One(answer) | Answer::Replicated(answer, _) => Ok(answer),
            Answer::NoRoom => Err(odd("a call that blocks nothing")),
        }
    }

    /// Sends what has to outlive the primary where [`Durability::Replicated`] asks for it, and says whether it will.
    async fn write(&self, way: Way, call: &Call<'_>, deadline: Duration) -> Result<Written, LogError> {
        let Durability::Replicated { replicas: wanted } = self.inner.durability else {
            return Ok(Written { answer: self.send(way, call, deadline).await?, replicated: Ok(()) });
        };
        // Replicas get a large write as slowly as the primary did.
        let within = WAIT_DEADLINE + deadline.saturating_sub(CALL_DEADLINE);
        let quorum = Quorum { replicas: wanted, within };
        let (answer, acknowledged) = match self.call(Way::Lasting(quorum), call, deadline, within).await? {
            Answer::Replicated(answer, acknowledged) => (answer, acknowledged),
            Answer::One(answer) => (answer, 0),
            Answer::NoRoom => return Err(odd("a write")),
        };
        let replicated = match acknowledged < u64::from(wanted) {
            true => Err(TooFewReplicas { acknowledged, wanted, within }),
            false => Ok(()),
        };
        Ok(Written { answer, replicated })
    }

    /// Sends what blocks its connection for up to `wait`, and may take `deadline` beyond that. Nothing where all connections
    /// are blocked that long.
    async fn block(&self, call: &Call<'_>, wait: Duration, deadline: Duration) -> Result<Option<Value>, LogError> {
        let way = Way::Alone { patience: CALL_DEADLINE.max(wait) };
        match self.call(way, call, wait + deadline, wait).await? {
            Answer::One(answer) | Answer::Replicated(answer, _) => Ok(Some(answer)),
            Answer::NoRoom => Ok(None),
        }
    }

    async fn call(
        &self,
        way: Way,
        call: &Call<'_>,
        deadline: Duration,
        patience: Duration,
    ) -> Result<Answer, LogError> {
        let answer = match &self.inner.routes {
            Routes::Single(primary) => primary.call(way, call.request(false, deadline)).await,
            Routes::Sharded(shards) => shards.call(call, way, deadline, patience).await,
        };
        answer.map_err(LogError::from)
    }

    /// Whether a call that blocks would get a connection at once.
    fn can_block(&self, slot: u16) -> bool {
        match &self.inner.routes {
            Routes::Single(primary) => primary.can_block(),
            Routes::Sharded(shards) => shards.holder(slot).is_none_or(|primary| primary.can_block()),
        }
    }
}

impl Written {
    /// The answer of a call that has written, if enough replicas have it too.
    fn lasting(self) -> Result<Value, LogError> {
        self.replicated.map_err(LogError::unavailable)?;
        Ok(self.answer)
    }
}

/// What a call of this size may take.
fn deadline(bytes: usize) -> Duration {
    CALL_DEADLINE + Duration::from_secs((bytes / BYTES_PER_SECOND) as u64)
}

fn millis(duration: Duration) -> u64 {
    // Redis refuses a lease of 0 ms.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX))
}

fn odd(what: &str) -> LogError {
    LogError::Corrupt(format!("an unexpected answer to {what}"))
}

fn bytes(value: Value, what: &str) -> Result<Vec<u8>, LogError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(odd(what)),
    }
}

fn text(value: Value, what: &str) -> Result<String, LogError> {
    String::from_utf8(bytes(value, what)?).map_err(|_| odd(what))
}

fn number(value: &Value, what: &str) -> Result<u64, LogError> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| odd(what)),
        Value::BulkString(digits) => {
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(|| odd(what))
        }
        _ => Err(odd(what)),
    }
}

fn list(value: Value, what: &str) -> Result<Vec<Value>, LogError> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(odd(what)),
    }
}

fn fields<const N: usize>(value: Value, what: &str) -> Result<[Value; N], LogError> {
    list(value, what)?.try_into().map_err(|_| odd(what))
}

fn entry_id(text: &[u8]) -> Option<EntryId> {
    let (at_ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(EntryId { at_ms: at_ms.parse().ok()?, seq: seq.parse().ok()? })
}

/// Whether the script found the claim, or the term, superseded.
fn fenced(value: &Value, what: &str) -> Result<(), LogError> {
    match number(value, what)? {
        1 => Ok(()),
        0 => Err(LogError::Fenced),
        _ => Err(odd(what)),
    }
}
