//! Connections that come back: dialled when needed, dropped at the first doubt, with a deadline on everything.
//! Never repeats a command by itself: whether a lost answer meant a write, only the caller can judge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, PushInfo, PushKind, RedisError, Script, ServerErrorKind, Value,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::LogError;

/// One attempt to connect, including the name lookup and the authentication; two fit into a call's deadline.
const CONNECT_DEADLINE: Duration = Duration::from_millis(900);
/// The first pause after a failed attempt; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a Redis that is back is noticed within a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Connections for blocking calls: 50 workers with 64 each stay below the 10,000 clients that Redis takes.
const POOL_SIZE: usize = 64;

#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("no connection within {after:?}: {last}")]
    Unreachable { after: Duration, last: String },
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    last: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that knows of its end. Without that, the first call after an outage would fail on a dead connection, and
/// its caller couldn't know that nothing was sent.
#[derive(Clone)]
struct Connection {
    redis: MultiplexedConnection,
    ended: Arc<AtomicBool>,
}

impl Connection {
    fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }
}

/// Opens connections, with pauses between failures.
pub(super) struct Dialer {
    /// Speaks RESP3, in which a connection reports its end.
    client: Client,
    /// Speaks RESP2, in which a subscribed connection does nothing else.
    subscriber: Client,
    backoff: Mutex<Backoff>,
}

impl Dialer {
    pub(super) fn new(client: Client, subscriber: Client) -> Self {
        Self { client, subscriber, backoff: Mutex::default() }
    }

    /// Dials until somebody answers; the caller has the deadline.
    async fn dial(&self) -> Connection {
        self.attempt(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        // The deadline of a call is around the call: a blocking read may take longer than any default.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    end.store(true, Ordering::Release);
                }
                Ok::<_, redis::aio::SendError>(())
            });
        let redis = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Connection { redis, ended })
    }

    /// Dials for a subscription until somebody answers; the caller has the deadline.
    pub(super) async fn dial_subscription(&self) -> PubSub {
        self.attempt(|| self.subscriber.get_async_pubsub()).await
    }

    async fn attempt<T, F: Future<Output = Result<T, RedisError>>>(&self, connect: impl Fn() -> F) -> T {
        loop {
            let not_before = lock(&self.backoff).not_before;
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before).await;
            }
            let error = match timeout(CONNECT_DEADLINE, connect()).await {
                Ok(Ok(connection)) => {
                    *lock(&self.backoff) = Backoff::default();
                    return connection;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => Silence::NoAnswer(CONNECT_DEADLINE).to_string(),
            };
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
    }

    pub(super) fn unreachable(&self, after: Duration) -> LogError {
        let last = lock(&self.backoff).last.clone().unwrap_or_else(|| "still trying".to_owned());
        LogError::unavailable(Silence::Unreachable { after, last })
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

    async fn connection(&self) -> (u64, Connection) {
        if let Some(current) = self.living() {
            return current;
        }
        let mut newest = self.dialling.lock().await;
        if let Some(current) = self.living() {
            return current;
        }
        let connection = self.dialer.dial().await;
        *newest += 1;
        *lock(&self.current) = Some((*newest, connection.clone()));
        (*newest, connection)
    }

    fn living(&self) -> Option<(u64, Connection)> {
        lock(&self.current).as_ref().filter(|(_, connection)| connection.is_alive()).cloned()
    }

    fn forget(&self, number: u64) {
        lock(&self.current).take_if(|(current, _)| *current == number);
    }

    /// Sends a command, which is a call of `script` where one is given.
    pub(super) async fn send(&self, cmd: &Cmd, script: Option<&Script>, deadline: Duration) -> Result<Value, LogError> {
        let until = Instant::now() + deadline;
        let Ok((number, mut connection)) = timeout_at(until, self.connection()).await else {
            return Err(self.dialer.unreachable(deadline));
        };
        match timeout_at(until, exchange(&mut connection.redis, cmd, script)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_doubtful(&error) {
                    self.forget(number);
                }
                Err(typed(error))
            }
            Err(_) => {
                self.forget(number);
                Err(LogError::unavailable(Silence::NoAnswer(deadline)))
            }
        }
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

    pub(super) async fn lend(&self, deadline: Duration) -> Result<Lent<'_>, LogError> {
        let lent = async {
            let permit = self.permits.acquire().await.ok()?;
            let idle = self.idle();
            let connection = match idle {
                Some(connection) => connection,
                None => self.dialer.dial().await,
            };
            Some(Lent { pool: self, connection, _permit: permit })
        };
        match timeout(deadline, lent).await {
            Ok(Some(lent)) => Ok(lent),
            Ok(None) | Err(_) => Err(self.dialer.unreachable(deadline)),
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
    pub(super) async fn send(
        &mut self,
        cmd: &Cmd,
        script: Option<&Script>,
        deadline: Duration,
    ) -> Result<Value, LogError> {
        match timeout(deadline, exchange(&mut self.connection.redis, cmd, script)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_doubtful(&error) {
                    debug!(kind = error.category(), "a connection was lost, the idle ones are dropped with it");
                    lock(&self.pool.idle).clear();
                }
                Err(typed(error))
            }
            Err(_) => Err(LogError::unavailable(Silence::NoAnswer(deadline))),
        }
    }

    pub(super) fn give_back(self) {
        lock(&self.pool.idle).push(self.connection);
    }
}

async fn exchange(
    connection: &mut MultiplexedConnection,
    cmd: &Cmd,
    script: Option<&Script>,
) -> Result<Value, RedisError> {
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
                    | ServerErrorKind::Moved
            )
        )
}

fn typed(error: RedisError) -> LogError {
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => LogError::Corrupt("a key of another type".to_owned()),
        (ErrorKind::UnexpectedReturnType | ErrorKind::Parse, _) => LogError::Corrupt(error.category().to_owned()),
        _ => LogError::unavailable(error),
    }
}
