//! The history of a cluster in rings of batches, one a tier: a slot is written anew when its turn comes round, so that
//! what Redis holds of it is bounded whatever the clocks say.
//!
//! It needn't outlive the primary at any price: what a failover costs of it is the last seconds.

use async_trait::async_trait;
use redis::Value;

use super::primary::Way;
use super::scripts::Call;
use super::{RedisStore, bytes, deadline, fenced, list, odd};
use crate::{Batch, History, LogError, MAX_HISTORY_BYTES, Tier, bounds};

/// Slots of one read: a few MiB, which keep Redis busy for milliseconds.
const READ_AT_ONCE: usize = 256;

impl RedisStore {
    /// The keys of a tier: the term, when each slot began, and what is in it.
    fn history_keys(&self, tier: Tier) -> [String; 3] {
        let key = |what: &str| self.cluster_key(&format!("history:{what}:{}", tier.length()));
        [self.cluster_key("term"), key("at"), key("samples")]
    }
}

fn slot(tier: Tier, at: u32) -> u32 {
    at / tier.length() % tier.kept()
}

#[async_trait]
impl History for RedisStore {
    async fn record(&self, term: u64, tier: Tier, batch: &Batch) -> Result<(), LogError> {
        bounds::batch(tier, batch)?;
        let encoded = postcard::to_stdvec(batch).map_err(|error| LogError::Invalid(error.to_string()))?;
        let keys = self.history_keys(tier);
        let call = Call::with_capacity(&self.inner.scripts.record, &keys, 4, 64 + encoded.len())
            .arg(term)
            .arg(slot(tier, batch.at))
            .arg(batch.at)
            .arg(encoded);
        fenced(&self.control(&call).await?, "record")
    }

    async fn read(&self, tier: Tier, series: Option<&str>, since: u32, until: u32) -> Result<Vec<Batch>, LogError> {
        let [_, _, key] = self.history_keys(tier);
        let first = since.div_ceil(tier.length()).saturating_mul(tier.length());
        if until < first {
            return Ok(Vec::new());
        }
        let spans = ((until - first) / tier.length()).saturating_add(1).min(tier.kept());
        // Of a span of time longer than the ring, its end.
        let first = tier.beginning(until) - (spans - 1) * tier.length();
        let slots: Vec<u32> = (0..spans).map(|number| slot(tier, first + number * tier.length())).collect();
        let mut batches = Vec::new();
        for slots in slots.chunks(READ_AT_ONCE) {
            let mut cmd = redis::cmd("HMGET");
            cmd.arg(&key).arg(slots);
            let wait = deadline(slots.len() * MAX_HISTORY_BYTES);
            for found in list(self.send(Way::Bulk, &Call::plain(&key, cmd), wait).await?, "history")? {
                if matches!(found, Value::Nil) {
                    continue;
                }
                let batch: Batch = postcard::from_bytes(&bytes(found, "history")?).map_err(|_| odd("history"))?;
                if (since..=until).contains(&batch.at) {
                    batches.push(batch);
                }
            }
        }
        if let Some(wanted) = series {
            for batch in &mut batches {
                batch.series.retain(|(name, _)| name == wanted);
            }
        }
        batches.retain(|batch| !batch.series.is_empty());
        batches.sort_by_key(|batch| batch.at);
        Ok(batches)
    }

    async fn prune(&self, term: u64, tier: Tier, before: u32) -> Result<u64, LogError> {
        let keys = self.history_keys(tier);
        let call = Call::new(&self.inner.scripts.prune, &keys).arg(term).arg(before);
        match self.control(&call).await? {
            Value::Int(-1) => Err(LogError::Fenced),
            removed => super::number(&removed, "prune"),
        }
    }
}
