//! All connections to one primary, each kind for calls that mustn't wait for those of another.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Script, Value};

use super::link::{Connection, Dialer, Link, Pool, Retired, Trouble};
use super::{CALL_DEADLINE, number};

/// Which connection a call takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// That of leases, heartbeats, progress: small calls that must not queue behind a large one.
    Control,
    /// That of appends, checkpoints, replies.
    Bulk,
    /// One of its own, because the call blocks it. `patience` is how long it may take to get one.
    Alone { patience: Duration },
    /// One of its own, on which it's followed by a wait for replicas: WAIT is about the writes of the connection that it's
    /// sent on, and blocks it.
    Lasting(Quorum),
}

/// What came of a call.
pub(super) enum Answer {
    /// The answer of Redis.
    One(Value),
    /// The answer, and how many replicas have acknowledged what the call wrote.
    Replicated(Value, u64),
    /// All connections for calls that block are in use, or there are so many new ones that this one's isn't there yet.
    NoRoom,
}

/// A command, and the script that it calls, if it calls one.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) cmd: &'a Cmd,
    pub(super) script: Option<&'a Script>,
    /// Whether a node of a Cluster is to take it although the slot is only on its way there.
    pub(super) asking: bool,
    pub(super) deadline: Duration,
}

/// How many replicas are to acknowledge what was written, and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quorum {
    pub(super) replicas: u8,
    pub(super) within: Duration,
}

/// One primary.
pub(super) struct Primary {
    dialer: Arc<Dialer>,
    control: Link,
    bulk: Link,
    /// For reads that block the connection that they are on.
    blocking: Pool,
    /// For writes that wait for replicas, which would hold up those behind them.
    lasting: Pool,
}

impl Primary {
    pub(super) fn new(dialer: Dialer) -> Self {
        let dialer = Arc::new(dialer);
        Self {
            control: Link::new(Arc::clone(&dialer)),
            bulk: Link::new(Arc::clone(&dialer)),
            blocking: Pool::new(Arc::clone(&dialer)),
            lasting: Pool::new(Arc::clone(&dialer)),
            dialer,
        }
    }

    /// Makes a call.
    pub(super) async fn call(&self, way: Way, request: Request<'_>) -> Result<Answer, Trouble> {
        self.dialer.check(false);
        match way {
            Way::Control => Ok(Answer::One(self.control.send(request).await?)),
            Way::Bulk => Ok(Answer::One(self.bulk.send(request).await?)),
            Way::Alone { patience } => self.alone(request, patience).await,
            Way::Lasting(quorum) => self.lasting(request, quorum).await,
        }
    }

    async fn alone(&self, request: Request<'_>, patience: Duration) -> Result<Answer, Trouble> {
        let mut lent = match self.blocking.lend(patience).await {
            Ok(lent) => lent,
            Err(Trouble::Unreachable { .. }) if !self.blocking.has_room() || !self.dialer.is_failing() => {
                return Ok(Answer::NoRoom);
            }
            Err(trouble) => return Err(trouble),
        };
        let answer = lent.send(request).await?;
        lent.give_back();
        Ok(Answer::One(answer))
    }

    async fn lasting(&self, request: Request<'_>, quorum: Quorum) -> Result<Answer, Trouble> {
        let mut lent = self.lasting.lend(CALL_DEADLINE).await?;
        let answer = lent.send(request).await?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(quorum.replicas).arg(super::millis(quorum.within));
        let deadline = quorum.within + CALL_DEADLINE;
        let acknowledged = lent.send(Request { cmd: &wait, script: None, asking: false, deadline }).await?;
        lent.give_back();
        // An odd count is as good as none.
        Ok(Answer::Replicated(answer, number(&acknowledged, "WAIT").unwrap_or(0)))
    }

    /// A connection for a subscription; what comes is passed to `pushed`.
    pub(super) async fn subscription(
        &self,
        pushed: impl Fn(redis::PushInfo) + Clone + Send + Sync + 'static,
    ) -> Result<Connection, Retired> {
        self.dialer.dial_for(pushed).await
    }

    /// Asks in the background whether this is still the primary.
    pub(super) fn check(&self) {
        self.dialer.check(false);
    }

    /// Whether a blocking call would get a connection at once.
    pub(super) fn can_block(&self) -> bool {
        self.blocking.has_room()
    }

    /// Drops all connections and makes no more.
    pub(super) fn retire(&self) {
        self.dialer.retire();
    }

    pub(super) fn unreachable(&self, after: Duration) -> Trouble {
        self.dialer.unreachable(after)
    }
}
