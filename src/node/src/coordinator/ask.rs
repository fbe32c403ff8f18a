//! Asks the owners of partitions by way of their logs, as a gateway does, and hears what they answer.

use std::collections::BTreeMap;
use std::time::Duration;

use hebb_engine::{Entry, Outcome};
use hebb_log::{LogError, PartitionKey, Record, ReplyTo};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::store::Store;

/// Questions under a name of their own, so that their answers come to nobody else.
pub struct Asker<'a> {
    store: &'a Store,
    id: String,
    replies: mpsc::Receiver<Vec<hebb_log::Reply>>,
}

impl<'a> Asker<'a> {
    /// An asker whose name begins with `what`.
    pub async fn new(store: &'a Store, what: &str) -> Result<Self, LogError> {
        let id = format!("{what}-{:016x}", rand::random::<u64>());
        let replies = store.replies.subscribe(&id).await?;
        Ok(Self { store, id, replies })
    }

    /// Asks a partition; the answer comes under the number of the request. Refused where `waiting_max` entries wait already.
    pub async fn ask(&self, request: u64, key: &PartitionKey, entry: &Entry, waiting_max: u64) -> Result<(), LogError> {
        let reply_to = Some(ReplyTo { gateway: self.id.as_str().into(), request });
        self.store.log.append(key, &[Record { entry: entry.encode().into(), reply_to }], waiting_max).await.map(drop)
    }

    /// The answers to so many requests, without those that take longer.
    pub async fn hear(&mut self, count: usize, within: Duration) -> BTreeMap<u64, Outcome> {
        let deadline = Instant::now() + within;
        let mut heard = BTreeMap::new();
        while heard.len() < count {
            let Ok(Some(batch)) = timeout_at(deadline, self.replies.recv()).await else { break };
            for reply in batch {
                if let Ok(outcome) = Outcome::decode(&reply.body) {
                    heard.insert(reply.request, outcome);
                }
            }
        }
        heard
    }
}
