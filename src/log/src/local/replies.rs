//! Replies from task to task. A gateway that doesn't keep up misses some, as in Redis.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tracing::debug;

use super::{LocalStore, lock};
use crate::{LogError, Replies, Reply, bounds};

/// Batches that wait for the gateway: it reads them at once or is in trouble.
const BATCHES: usize = 1024;

/// Who listens for which gateway.
pub(super) type Switchboard = HashMap<String, Vec<mpsc::Sender<Vec<Reply>>>>;

#[async_trait]
impl Replies for LocalStore {
    async fn send(&self, gateway: &str, replies: Vec<Reply>) -> Result<(), LogError> {
        bounds::name("the gateway's id", gateway)?;
        let mut switchboard = lock(&self.inner.switchboard);
        let Some(listeners) = switchboard.get_mut(gateway) else {
            return Ok(());
        };
        listeners.retain(|listener| !listener.is_closed());
        if let Some((last, others)) = listeners.split_last() {
            for listener in others {
                offer(listener, replies.clone());
            }
            offer(last, replies);
        } else {
            switchboard.remove(gateway);
        }
        Ok(())
    }

    async fn subscribe(&self, gateway: &str) -> Result<mpsc::Receiver<Vec<Reply>>, LogError> {
        bounds::name("the gateway's id", gateway)?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        let mut switchboard = lock(&self.inner.switchboard);
        let listeners = switchboard.entry(gateway.to_owned()).or_default();
        listeners.retain(|listener| !listener.is_closed());
        listeners.push(sender);
        Ok(receiver)
    }
}

fn offer(listener: &mpsc::Sender<Vec<Reply>>, replies: Vec<Reply>) {
    if listener.try_send(replies).is_err() {
        debug!("a gateway misses a batch of replies");
    }
}
