//! Connections to one primary that come back: dialled when needed, dropped at the first doubt, with a deadline on
//! everything. Never repeats a command by itself: whether a lost answer meant a write, only the caller can judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::access::{Access, Silence};
use super::config::Address;
use super::primary::Request;
use super::sentinel::Sentinels;
use crate::LogError;

/// One attempt to connect, including the question to the Sentinels, the name lookup and the authentication; two fit into
/// a call's deadline.
const CONNECT_DEADLINE: Duration = Duration::from_millis(900);
/// The first pause after a failed attempt; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a Redis that is back is noticed within a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Attempts at the same time. With more, those that are begun together hold each other up until all are too late: a TLS
/// handshake takes milliseconds of a server's only thread.
const ATTEMPTS: usize = 8;
/// Connections of a pool: 50 workers with two pools of 64 each stay below the 10,000 clients that Redis takes.
const POOL_SIZE: usize = 64;
/// How often the Sentinels are asked while everything seems to work: a primary that was cut off from the majority, and so
/// replaced, may go on answering those clients that are cut off with it.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often they are asked at most when something doesn't.
const CHECK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Redis has answered with an error, or the connection broke.
    #[error("{0}")]
    Redis(RedisError),
    #[error("no connection within {after:?}: {last}")]
    Unreachable { after: Duration, last: String },
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The command was sent, and another server became primary before the answer came.
    #[error("another server became primary")]
    Superseded,
    /// Nothing was sent: this server is no longer among those that hold slots.
    #[error("the server has left the cluster")]
    Retired,
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Silence(#[from] Silence),
    #[error("{0} isn't primary yet")]
    NotPrimary(Address),
}

/// The caller of a server that is gone for good has to look for another.
pub(super) struct Retired;

#[derive(Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    last: Option<String>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What connections have in common until another server becomes primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reign {
    Number(u64),
    /// No further primary is to be expected here.
    Over,
}

/// A connection that knows of its end. Without that, the first call after an outage would fail on a dead connection, and
/// its caller couldn't know that nothing was sent.
#[derive(Clone)]
pub(super) struct Connection {
    redis: MultiplexedConnection,
    ended: watch::Receiver<bool>,
    reign: watch::Receiver<Reign>,
}

impl Connection {
    fn is_alive(&self) -> bool {
        !*self.ended.borrow() && !self.reign.has_changed().unwrap_or(true)
    }

    /// Returns when the connection has ended, or leads to a server that isn't primary any more.
    pub(super) async fn gone(&self) {
        let (mut ended, mut reign) = (self.ended.clone(), self.reign.clone());
        // An error of either says that nobody keeps the connection any more.
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            _ = reign.changed() => {}
        }
    }

    /// Sends a command; the caller has the deadline.
    pub(super) async fn exchange(&mut self, request: Request<'_>) -> Result<Value, Trouble> {
        let mut reign = self.reign.clone();
        // A call that blocks would otherwise wait for entries where none can come any more.
        tokio::select! {
            answer = exchange(&mut self.redis, request) => answer.map_err(Trouble::Redis),
            _ = reign.changed() => Err(Trouble::Superseded),
        }
    }
}

/// Who is dialled.
pub(super) enum Seat {
    /// Always the same server.
    Fixed(Address),
    /// The one that the Sentinels name.
    Elected(Box<Sentinels>),
}

/// Opens connections to a primary, with pauses between failures.
pub(super) struct Dialer {
    access: Access,
    seat: Seat,
    /// Whom the last connection led to.
    incumbent: Mutex<Option<Address>>,
    reign: watch::Sender<Reign>,
    backoff: Mutex<Backoff>,
    attempts: Semaphore,
    /// When the Sentinels were last asked without a need to dial.
    checked_at: Mutex<Instant>,
}

impl Dialer {
    pub(super) fn new(access: Access, seat: Seat) -> Self {
        Self {
            access,
            seat,
            incumbent: Mutex::default(),
            reign: watch::Sender::new(Reign::Number(0)),
            backoff: Mutex::default(),
            attempts: Semaphore::new(ATTEMPTS),
            checked_at: Mutex::new(Instant::now()),
        }
    }

    /// Dials until somebody answers; the caller has the deadline.
    async fn dial(&self) -> Result<Connection, Retired> {
        self.dial_for(|_| ()).await
    }

    /// Dials until somebody answers, for a connection that passes on what the server sends unasked.
    pub(super) async fn dial_for(
        &self,
        pushed: impl Fn(PushInfo) + Clone + Send + Sync + 'static,
    ) -> Result<Connection, Retired> {
        loop {
            let mut reign = self.reign.subscribe();
            if *reign.borrow_and_update() == Reign::Over {
                return Err(Retired);
            }
            let attempt = async {
                // The semaphore is never closed.
                let _permit = self.attempts.acquire().await.ok();
                let not_before = lock(&self.backoff).not_before;
                if let Some(not_before) = not_before {
                    tokio::time::sleep_until(not_before).await;
                }
                timeout(CONNECT_DEADLINE, self.connect(reign.clone(), pushed.clone())).await
            };
            let mut changed = reign.clone();
            let attempted = tokio::select! {
                attempted = attempt => attempted,
                _ = changed.changed() => continue,
            };
            match attempted {
                Ok(Ok(connection)) => {
                    *lock(&self.backoff) = Backoff::default();
                    return Ok(connection);
                }
                Ok(Err(error)) => self.failed(error.to_string()),
                Err(_) => self.failed(Trouble::NoAnswer(CONNECT_DEADLINE).to_string()),
            }
        }
    }

    fn failed(&self, error: String) {
        let mut backoff = lock(&self.backoff);
        let pause = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(backoff.failures.min(8)));
        if backoff.failures == 0 {
            warn!(%error, "redis can't be reached");
        }
        backoff.failures = backoff.failures.saturating_add(1);
        // Half of the pause is random, so that the clients of a restarted Redis don't come all at once.
        backoff.not_before = Some(Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0)));
        backoff.last = Some(error);
    }

    async fn connect(
        &self,
        mut reign: watch::Receiver<Reign>,
        pushed: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, Refusal> {
        let address = match &self.seat {
            Seat::Fixed(address) => address.clone(),
            Seat::Elected(sentinels) => sentinels.primary().await?,
        };
        let (end, ended) = watch::channel(false);
        let mut redis = self
            .access
            .connect(&address, move |push| {
                // A shard that loses a slot ends the subscriptions there.
                if matches!(push.kind, PushKind::Disconnection | PushKind::SUnsubscribe) {
                    end.send_replace(true);
                }
                pushed(push);
            })
            .await?;
        if let Seat::Elected(_) = &self.seat {
            // Sentinels name the winner of an election when it is told, not when it has obeyed.
            let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut redis).await?;
            if role.first() != Some(&Value::BulkString(b"master".to_vec())) {
                return Err(Refusal::NotPrimary(address));
            }
            if self.follow(address) {
                reign.mark_unchanged();
            }
        }
        Ok(Connection { redis, ended, reign })
    }

    /// Drops all connections to another server than this; whether there was another.
    fn follow(&self, address: Address) -> bool {
        let mut incumbent = lock(&self.incumbent);
        let changed = incumbent.as_ref().is_some_and(|incumbent| *incumbent != address);
        if changed {
            info!(primary = %address, "another Redis is primary");
            self.renounce();
        }
        *incumbent = Some(address);
        changed
    }

    /// Drops all connections: the server behind them isn't primary any more.
    fn renounce(&self) {
        self.reign.send_if_modified(|reign| match reign {
            Reign::Number(number) => {
                *number += 1;
                true
            }
            Reign::Over => false,
        });
    }

    /// Drops all connections and makes no more.
    pub(super) fn retire(&self) {
        self.reign.send_replace(Reign::Over);
    }

    /// Asks the Sentinels beside the calls whether the primary is still the same. `doubtful` after a call that failed.
    pub(super) fn check(self: &Arc<Self>, doubtful: bool) {
        let Seat::Elected(_) = &self.seat else { return };
        {
            let mut checked_at = lock(&self.checked_at);
            if checked_at.elapsed() < if doubtful { CHECK_AGAIN_AFTER } else { CHECK_EVERY } {
                return;
            }
            *checked_at = Instant::now();
        }
        let dialer = Arc::clone(self);
        tokio::spawn(async move {
            if let Seat::Elected(sentinels) = &dialer.seat
                && let Ok(address) = sentinels.primary().await
                && lock(&dialer.incumbent).as_ref().is_some_and(|incumbent| *incumbent != address)
            {
                debug!(primary = %address, "the Sentinels name another Redis");
                dialer.renounce();
            }
        });
    }

    /// Whether the last attempt has failed; otherwise a connection that isn't there yet is only slow to come.
    pub(super) fn is_failing(&self) -> bool {
        0 < lock(&self.backoff).failures
    }

    pub(super) fn unreachable(&self, after: Duration) -> Trouble {
        let last = lock(&self.backoff).last.clone().unwrap_or_else(|| "still trying".to_owned());
        Trouble::Unreachable { after, last }
    }

    /// Draws the consequences of a call that failed; whether its connection is to be dropped.
    fn judge(self: &Arc<Self>, trouble: &Trouble) -> bool {
        let Trouble::Redis(error) = trouble else {
            self.check(true);
            return true;
        };
        if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)) {
            self.renounce();
        } else if error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("NOREPLICAS") {
            self.check(true);
        }
        is_doubtful(error)
    }
}

/// One shared connection: calls on it overtake nothing, so none of them may block.
pub(super) struct Link {
    dialer: Arc<Dialer>,
    current: Mutex<Option<(u64, Connection)>>,
    /// The number of the newest connection; locked by the one who dials.
    dialling: tokio::sync::Mutex<u64>,
}

impl Link {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, current: Mutex::default(), dialling: tokio::sync::Mutex::new(0) }
    }

    async fn connection(&self) -> Result<(u64, Connection), Retired> {
        if let Some(current) = self.living() {
            return Ok(current);
        }
        let mut newest = self.dialling.lock().await;
        if let Some(current) = self.living() {
            return Ok(current);
        }
        let connection = self.dialer.dial().await?;
        *newest += 1;
        *lock(&self.current) = Some((*newest, connection.clone()));
        Ok((*newest, connection))
    }

    fn living(&self) -> Option<(u64, Connection)> {
        lock(&self.current).as_ref().filter(|(_, connection)| connection.is_alive()).cloned()
    }

    fn forget(&self, number: u64) {
        lock(&self.current).take_if(|(current, _)| *current == number);
    }

    pub(super) async fn send(&self, request: Request<'_>) -> Result<Value, Trouble> {
        let deadline = request.deadline;
        let until = Instant::now() + deadline;
        let (number, mut connection) = match timeout_at(until, self.connection()).await {
            Ok(Ok(current)) => current,
            Ok(Err(Retired)) => return Err(Trouble::Retired),
            Err(_) => return Err(self.dialer.unreachable(deadline)),
        };
        let answered = timeout_at(until, connection.exchange(request)).await;
        let answer = answered.unwrap_or(Err(Trouble::NoAnswer(deadline)));
        if let Err(trouble) = &answer
            && self.dialer.judge(trouble)
        {
            self.forget(number);
        }
        answer
    }
}

/// Connections that one call at a time has for itself.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// A connection out of the pool. It goes back only by `give_back`: one that was dropped in the middle of a call would
/// hand the answer to the next.
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    connection: Connection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, permits: Semaphore::new(POOL_SIZE), idle: Mutex::default() }
    }

    pub(super) async fn lend(&self, deadline: Duration) -> Result<Lent<'_>, Trouble> {
        let lent = async {
            // The semaphore is never closed.
            let permit = self.permits.acquire().await.map_err(|_| Retired)?;
            let idle = self.idle();
            let connection = match idle {
                Some(connection) => connection,
                None => self.dialer.dial().await?,
            };
            Ok(Lent { pool: self, connection, _permit: permit })
        };
        match timeout(deadline, lent).await {
            Ok(Ok(lent)) => Ok(lent),
            Ok(Err(Retired)) => Err(Trouble::Retired),
            Err(_) => Err(self.dialer.unreachable(deadline)),
        }
    }

    fn idle(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(Connection::is_alive);
        idle.pop()
    }

    /// Whether a connection can be had without waiting for somebody else's call.
    pub(super) fn has_room(&self) -> bool {
        0 < self.permits.available_permits()
    }
}

impl Lent<'_> {
    pub(super) async fn send(&mut self, request: Request<'_>) -> Result<Value, Trouble> {
        let answered = timeout(request.deadline, self.connection.exchange(request)).await;
        let answer = answered.unwrap_or(Err(Trouble::NoAnswer(request.deadline)));
        if let Err(trouble) = &answer
            && self.pool.dialer.judge(trouble)
        {
            debug!(%trouble, "a connection was lost, the idle ones are dropped with it");
            lock(&self.pool.idle).clear();
        }
        answer
    }

    pub(super) fn give_back(self) {
        lock(&self.pool.idle).push(self.connection);
    }
}

async fn exchange(connection: &mut MultiplexedConnection, request: Request<'_>) -> Result<Value, RedisError> {
    let Request { cmd, script, asking, deadline: _ } = request;
    if asking {
        // A slot on its way: the node that it moves to takes only the one command that follows ASKING. The script is
        // brought beforehand, because its absence would use that command up.
        if let Some(script) = script {
            script.load_async(connection).await?;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(cmd.clone());
        let (answer,) = both.query_async(connection).await?;
        return Ok(answer);
    }
    match (cmd.query_async(connection).await, script) {
        (Err(error), Some(script)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.load_async(connection).await?;
            cmd.query_async(connection).await
        }
        (answer, _) => answer,
    }
}

/// Whether another connection may lead to a Redis that is better off: this one is lost, read-only or still loading.
fn is_doubtful(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::BusyLoading
            )
        )
}

impl From<Trouble> for LogError {
    fn from(trouble: Trouble) -> Self {
        if let Trouble::Redis(error) = &trouble {
            match (error.kind(), error.code()) {
                (_, Some("WRONGTYPE")) => return Self::Corrupt("a key of another type".to_owned()),
                (ErrorKind::UnexpectedReturnType | ErrorKind::Parse, _) => {
                    return Self::Corrupt(error.category().to_owned());
                }
                // It doesn't know the flags that the scripts begin with.
                (_, Some("ERR")) if error.detail().is_some_and(|detail| detail.contains("compiling script")) => {
                    return Self::Invalid("this Redis is too old, it has to be 7.0 or newer".to_owned());
                }
                _ => {}
            }
        }
        Self::unavailable(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_without_flags_is_told_by_its_version() {
        // As 6.2 answers to SCRIPT LOAD.
        let detail = "Error compiling script (new function): user_script:1: unexpected symbol near '#'".to_owned();
        let error = RedisError::from((ErrorKind::Server(ServerErrorKind::ResponseError), "ERR", detail));
        let error = LogError::from(Trouble::Redis(error));
        assert!(error.to_string().contains("7.0 or newer"), "{error}");
    }
}
