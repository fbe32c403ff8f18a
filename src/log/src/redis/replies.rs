//! Replies by publish and subscribe: nothing is kept for a gateway that isn't there.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{CALL_DEADLINE, RedisStore, deadline};
use crate::{LogError, Replies, Reply, bounds};

/// Batches that wait for the gateway: it reads them at once or is in trouble.
const BATCHES: usize = 1024;
/// How long the channel may be silent before the connection has to prove that it's alive.
const SILENCE: Duration = Duration::from_secs(5);

impl RedisStore {
    fn replies_key(&self, gateway: &str) -> String {
        format!("{}:{gateway}", self.cluster_key("replies"))
    }

    async fn subscription(&self, channel: &str) -> Result<(PubSubSink, PubSubStream), LogError> {
        let subscribed = async {
            let (mut sink, stream) = self.inner.dialer.dial_subscription().await.split();
            sink.subscribe(channel).await.map_err(LogError::unavailable)?;
            Ok((sink, stream))
        };
        timeout(CALL_DEADLINE, subscribed).await.unwrap_or_else(|_| Err(self.inner.dialer.unreachable(CALL_DEADLINE)))
    }
}

#[async_trait]
impl Replies for RedisStore {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        bounds::name("the gateway's id", gateway)?;
        let body = postcard::to_stdvec(&replies).map_err(|error| LogError::Invalid(error.to_string()))?;
        bounds::size("the batch of replies", body.len(), bounds::MAX_BATCH_BYTES)?;
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(self.replies_key(gateway)).arg(body.as_slice());
        self.inner.bulk.send(&cmd, None, deadline(body.len())).await.map(drop)
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        bounds::name("the gateway's id", gateway)?;
        let channel = self.replies_key(gateway);
        let mut connection = self.subscription(&channel).await?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        let store = self.clone();
        // The task ends with its receiver, which it looks at between any two waits.
        tokio::spawn(async move {
            loop {
                forward(connection, &sender).await;
                connection = loop {
                    if sender.is_closed() {
                        return;
                    }
                    match store.subscription(&channel).await {
                        Ok(connection) => break connection,
                        Err(error) => debug!(%error, "can't subscribe to the replies yet"),
                    }
                };
            }
        });
        Ok(receiver)
    }
}

/// Passes batches on until the connection or the receiver is gone.
async fn forward((mut sink, mut stream): (PubSubSink, PubSubStream), sender: &mpsc::Sender<Vec<Reply>>) {
    loop {
        let message = tokio::select! {
            () = sender.closed() => return,
            message = timeout(SILENCE, stream.next()) => message,
        };
        match message {
            Ok(Some(message)) => match postcard::from_bytes(message.get_payload_bytes()) {
                Ok(replies) => {
                    // Waiting would let the messages behind this one pile up without a bound.
                    if let Err(TrySendError::Full(_)) = sender.try_send(replies) {
                        debug!("the gateway misses a batch of replies");
                    }
                }
                Err(error) => warn!(%error, "a batch of replies can't be read"),
            },
            Ok(None) => return,
            Err(_) => {
                if !matches!(timeout(CALL_DEADLINE, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
