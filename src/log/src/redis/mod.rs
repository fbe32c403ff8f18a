//! The stores of a cluster: streams, hashes and leases in Redis.
//! Decides nothing about which Redis is primary: it dials one name, again and again, and refuses what isn't writable.

mod directory;
mod link;
mod log;
mod replies;
mod scripts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, Value};

use self::link::{Dialer, Link, Pool};
use self::scripts::Scripts;
use crate::{Durability, EntryId, LogError, PartitionKey, bounds};

/// How long a call waits for its answer. A lease of 10 s outlives two failed renewals and a third that works.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// The slowest transfer that is still waited for: a batch of 64 MiB gets 10 s.
const BYTES_PER_SECOND: usize = 8 << 20;
/// The most that replicas may take to acknowledge; below the deadline of the call it's part of.
const WAIT_DEADLINE: Duration = Duration::from_secs(1);
const _: () = assert!(WAIT_DEADLINE.as_millis() < CALL_DEADLINE.as_millis());

/// Where a cluster's Redis is and how to enter it.
#[derive(Clone)]
pub struct RedisConfig {
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The ACL user; the default user when absent.
    pub username: Option<String>,
    /// The password; never printed.
    pub password: Option<String>,
    /// The cluster's name: clusters of other names may share the Redis.
    pub cluster: String,
    /// When an append counts as accepted. [`Durability::Async`] and [`Durability::EverySecond`] are settings of the
    /// server (`appendonly`, `appendfsync`), which a client can't change.
    pub durability: Durability,
}

impl RedisConfig {
    /// A Redis without a password, at the default durability.
    pub fn new(host: impl Into<String>, port: u16, cluster: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            username: None,
            password: None,
            cluster: cluster.into(),
            durability: Durability::default(),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, username, password, cluster, durability } = self;
        f.debug_struct("RedisConfig")
            .field("host", host)
            .field("port", port)
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "set"))
            .field("cluster", cluster)
            .field("durability", durability)
            .finish()
    }
}

/// The log, the replies and the directory of a cluster in Redis. Clones share their connections.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    durability: Durability,
    scripts: Scripts,
    dialer: Arc<Dialer>,
    /// Leases, heartbeats, progress: small calls that must not queue behind a large one.
    control: Link,
    /// Appends, checkpoints, replies.
    bulk: Link,
    /// Connections for calls that block the connection that they are on.
    blocking: Pool,
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
        let RedisConfig { host, port, username, password, cluster, durability } = config;
        bounds::name("the cluster's name", &cluster)?;
        if matches!(durability, Durability::Replicated { replicas: 0 }) {
            return Err(LogError::Invalid("replicated durability needs at least one replica".to_owned()));
        }
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let address = ConnectionAddr::Tcp(host, port);
        let client = |settings| {
            let info = address.clone().into_connection_info()?.set_redis_settings(settings);
            redis::Client::open(info)
        };
        let invalid = |error: RedisError| LogError::Invalid(error.category().to_owned());
        let subscriber = client(settings.clone()).map_err(invalid)?;
        let client = client(settings.set_protocol(ProtocolVersion::RESP3)).map_err(invalid)?;
        let dialer = Arc::new(Dialer::new(client, subscriber));
        Ok(Self {
            inner: Arc::new(Inner {
                cluster,
                durability,
                scripts: Scripts::new(),
                control: Link::new(Arc::clone(&dialer)),
                bulk: Link::new(Arc::clone(&dialer)),
                blocking: Pool::new(Arc::clone(&dialer)),
                dialer,
            }),
        })
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

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn ping(&self) -> Result<(), LogError> {
        self.inner.control.send(&redis::cmd("PING"), None, CALL_DEADLINE).await.map(drop)
    }

    /// A key of a partition. They share the hash tag, so that they share a slot and a script can use them together.
    fn key(&self, partition: &PartitionKey, name: &str) -> String {
        format!("hebb:{{{}/{partition}}}:{name}", self.inner.cluster)
    }

    /// A key of the directory; these share a slot too.
    fn cluster_key(&self, name: &str) -> String {
        format!("hebb:{{{}}}:{name}", self.inner.cluster)
    }

    async fn control(&self, call: &scripts::Call<'_>) -> Result<Value, LogError> {
        self.inner.control.send(&call.cmd, Some(call.script), CALL_DEADLINE).await
    }

    async fn ask(&self, cmd: &Cmd) -> Result<Value, LogError> {
        self.inner.control.send(cmd, None, CALL_DEADLINE).await
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
