//! A store whose writes wait for a test's word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hebb_engine::EntryId;
use hebb_log::{Checkpoint, Claim, Claimed, Kept, LocalStore, Log, LogError, PartitionKey, PartitionStatus, Record};
use tokio::sync::Semaphore;

use crate::store::Store;

/// A log whose writes are there at once and acknowledged when their gate says so, as with slow replicas.
pub struct Gated {
    log: LocalStore,
    /// A permit an append.
    pub appends: Semaphore,
    /// A permit a checkpoint, which without one isn't there either.
    pub checkpoints: Semaphore,
    /// Whether nobody can read, nor tell how far it is.
    pub away: AtomicBool,
    /// Whether who reads panics, as by an entry that can't be applied; and how often that was.
    pub panics: AtomicBool,
    pub panicked: AtomicU32,
}

impl Gated {
    /// A store with closed gates, and the gates.
    pub fn store(local: &LocalStore) -> (Store, Arc<Self>) {
        let gates = Self {
            log: local.clone(),
            appends: Semaphore::new(0),
            checkpoints: Semaphore::new(0),
            away: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            panicked: AtomicU32::new(0),
        };
        let gates = Arc::new(gates);
        (
            Store {
                log: gates.clone(),
                replies: Arc::new(local.clone()),
                directory: Arc::new(local.clone()),
                history: None,
            },
            gates,
        )
    }

    fn reach(&self) -> Result<&LocalStore, LogError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(LogError::Unavailable("the store is away".into()));
        }
        Ok(&self.log)
    }
}

#[async_trait]
impl Log for Gated {
    async fn append(&self, key: &PartitionKey, records: &[Record], max: u64) -> Result<Vec<EntryId>, LogError> {
        let ids = self.log.append(key, records, max).await?;
        let _passed = self.appends.acquire().await.map(|permit| permit.forget());
        Ok(ids)
    }

    async fn read(
        &self,
        key: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        if self.panics.load(Ordering::Relaxed) {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            panic!("no entry of {key} can be applied");
        }
        self.reach()?.read(key, after, max, wait).await
    }

    async fn claim(
        &self,
        key: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        self.log.claim(key, owner, previous, lease).await
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        self.log.renew(claim, lease).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        self.log.release(claim).await
    }

    async fn load(&self, key: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        self.reach()?.load(key).await
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        let _passed = self.checkpoints.acquire().await.map(|permit| permit.forget());
        self.log.checkpoint(claim, position, state, kept).await
    }

    async fn fallback(&self, key: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        self.reach()?.fallback(key).await
    }

    async fn progress(&self, claim: &Claim, applied: u64) -> Result<(), LogError> {
        self.reach()?.progress(claim, applied).await
    }

    async fn status(&self, key: &PartitionKey) -> Result<PartitionStatus, LogError> {
        self.reach()?.status(key).await
    }
}
