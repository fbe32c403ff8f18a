//! Replies by publish and subscribe: nothing is kept for a gateway that isn't there.
//!
//! In a Cluster the channels are sharded: a batch goes to the shard of its gateway, and not once to every node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, interval, timeout};
use tracing::{debug, warn};

use super::link::{Connection, Retired, Trouble};
use super::primary::{Primary, Request, Way};
use super::scripts::Call;
use super::shards::slot;
use super::{CALL_DEADLINE, RedisStore, Routes, deadline};
use crate::{LogError, Replies, Reply, bounds};

/// Batches that wait for the gateway: it reads them at once or is in trouble.
const BATCHES: usize = 1024;
/// How often the connection has to prove that it's alive.
const PROOF_EVERY: Duration = Duration::from_secs(5);
/// How often somebody asks whether it still leads to the primary: nobody publishes to another.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Wait after a failed subscription.
const SUBSCRIBE_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A subscribed connection, and where it leads.
struct Subscription {
    primary: Arc<Primary>,
    connection: Connection,
}

impl RedisStore {
    /// The gateway's channel. In a Cluster the gateways' channels are spread over the shards.
    fn replies_key(&self, gateway: &str) -> String {
        format!("hebb:{{{}/{gateway}}}:replies", self.inner.cluster)
    }

    async fn subscription(&self, channel: &str, to: &mpsc::Sender<Vec<Reply>>) -> Result<Subscription, Trouble> {
        match timeout(CALL_DEADLINE, self.subscribed(channel, to)).await {
            Ok(subscribed) => subscribed,
            Err(_) => Err(match &self.inner.routes {
                Routes::Single(primary) => primary.unreachable(CALL_DEADLINE),
                Routes::Sharded(shards) => {
                    shards.refresh_soon();
                    Trouble::NoAnswer(CALL_DEADLINE)
                }
            }),
        }
    }

    async fn subscribed(&self, channel: &str, to: &mpsc::Sender<Vec<Reply>>) -> Result<Subscription, Trouble> {
        let (primary, command) = match &self.inner.routes {
            Routes::Single(primary) => (Arc::clone(primary), "SUBSCRIBE"),
            Routes::Sharded(shards) => (shards.find(slot(channel)).await, "SSUBSCRIBE"),
        };
        let sender = to.clone();
        let pushed = move |push: PushInfo| pass_on(push, &sender);
        let mut connection = primary.subscription(pushed).await.map_err(|Retired| Trouble::Retired)?;
        let mut cmd = redis::cmd(command);
        cmd.arg(channel);
        let subscribed = connection.exchange(alone(&cmd)).await;
        if let (Err(_), Routes::Sharded(shards)) = (&subscribed, &self.inner.routes) {
            shards.refresh_soon();
        }
        subscribed.map(|_| Subscription { primary, connection })
    }
}

#[async_trait]
impl Replies for RedisStore {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        bounds::name("the gateway's id", gateway)?;
        let body = postcard::to_stdvec(&replies).map_err(|error| LogError::Invalid(error.to_string()))?;
        bounds::size("the batch of replies", body.len(), bounds::MAX_BATCH_BYTES)?;
        let channel = self.replies_key(gateway);
        let mut cmd = redis::cmd(match &self.inner.routes {
            Routes::Single(_) => "PUBLISH",
            Routes::Sharded(_) => "SPUBLISH",
        });
        cmd.arg(&channel).arg(body.as_slice());
        RedisStore::send(self, Way::Bulk, &Call::plain(&channel, cmd), deadline(body.len())).await.map(drop)
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        bounds::name("the gateway's id", gateway)?;
        let channel = self.replies_key(gateway);
        let (sender, receiver) = mpsc::channel(BATCHES);
        let mut subscription = self.subscription(&channel, &sender).await?;
        let store = self.clone();
        // The task ends with its receiver, which it looks at between any two waits.
        tokio::spawn(async move {
            loop {
                watch(subscription, &sender).await;
                subscription = loop {
                    if sender.is_closed() {
                        return;
                    }
                    match store.subscription(&channel, &sender).await {
                        Ok(subscription) => break subscription,
                        Err(error) => {
                            debug!(%error, "can't subscribe to the replies yet");
                            tokio::time::sleep(SUBSCRIBE_AGAIN_AFTER).await;
                        }
                    }
                };
            }
        });
        Ok(receiver)
    }
}

fn alone(cmd: &redis::Cmd) -> Request<'_> {
    Request { cmd, script: None, asking: false, deadline: CALL_DEADLINE }
}

/// Returns when the subscription or its receiver is gone.
async fn watch(subscription: Subscription, sender: &mpsc::Sender<Vec<Reply>>) {
    let Subscription { primary, mut connection } = subscription;
    let mut check = interval(CHECK_EVERY);
    let mut proven_at = Instant::now();
    let ping = redis::cmd("PING");
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = connection.gone() => return,
            _ = check.tick() => primary.check(),
        }
        if PROOF_EVERY <= proven_at.elapsed() {
            if !matches!(timeout(CALL_DEADLINE, connection.exchange(alone(&ping))).await, Ok(Ok(_))) {
                return;
            }
            proven_at = Instant::now();
        }
    }
}

/// Hands a batch to the gateway. It can't wait: messages would pile up behind this one without a bound.
fn pass_on(push: PushInfo, sender: &mpsc::Sender<Vec<Reply>>) {
    if !matches!(push.kind, PushKind::Message | PushKind::SMessage) {
        return;
    }
    let Some(Value::BulkString(body)) = push.data.into_iter().next_back() else {
        warn!("a message that is none");
        return;
    };
    match postcard::from_bytes(&body) {
        Ok(replies) => {
            if let Err(TrySendError::Full(_)) = sender.try_send(replies) {
                debug!("the gateway misses a batch of replies");
            }
        }
        Err(error) => warn!(%error, "a batch of replies can't be read"),
    }
}
