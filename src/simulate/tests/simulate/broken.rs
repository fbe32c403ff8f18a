//! Faults of the product's kind, planted in front of the store: a simulation that passes them over would prove nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hebb_log::{Checkpoint, Claim, Claimed, EntryId, Kept, Log, LogError, PartitionKey, PartitionStatus, Record};
use hebb_node::Store;
use hebb_simulate::{Faults, Profile, Report, Server, Settings, simulate_on};

/// Within so many runs a fault has to be found that does harm only where two things go wrong at once.
const SEEDS: u64 = 30;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Whoever takes a partition over doesn't read the first entry after the checkpoint.
    SkipsOneOfAReplay,
    /// Every entry is read twice, as if its owner applied it twice.
    ReadsTwice,
    /// A checkpoint is acknowledged, and the log trimmed, but the state is that of the one before.
    StoresTheStateBefore,
    /// A claim is new for whoever asks, and nobody is fenced off.
    ClaimsForAll,
}

struct Broken {
    log: Server,
    fault: Fault,
    taken_over: Mutex<BTreeMap<PartitionKey, bool>>,
    stored: Mutex<BTreeMap<PartitionKey, Vec<u8>>>,
    newest: Mutex<BTreeMap<PartitionKey, Claim>>,
}

impl Broken {
    /// The claim that the store takes for good.
    fn passed_off(&self, claim: &Claim) -> Claim {
        let newest = self.newest.lock().unwrap();
        match newest.get(&claim.partition) {
            Some(newest) if self.fault == Fault::ClaimsForAll => newest.clone(),
            _ => claim.clone(),
        }
    }
}

#[async_trait]
impl Log for Broken {
    async fn append(&self, key: &PartitionKey, records: &[Record], max: u64) -> Result<Vec<EntryId>, LogError> {
        self.log.append(key, records, max).await
    }

    async fn read(
        &self,
        key: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        let mut entries = self.log.read(key, after, max, wait).await?;
        let is_first = self.taken_over.lock().unwrap().insert(key.clone(), false) == Some(true);
        match self.fault {
            Fault::SkipsOneOfAReplay if is_first && entries.len() > 1 => drop(entries.remove(0)),
            Fault::ReadsTwice => entries = entries.into_iter().flat_map(|entry| [entry.clone(), entry]).collect(),
            _ => {}
        }
        Ok(entries)
    }

    async fn claim(
        &self,
        key: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        let claimed = self.log.claim(key, owner, previous, lease).await?;
        if let Claimed::New(claim) = &claimed {
            self.taken_over.lock().unwrap().insert(key.clone(), true);
            self.newest.lock().unwrap().insert(key.clone(), claim.clone());
        }
        Ok(claimed)
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        self.log.renew(&self.passed_off(claim), lease).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        self.log.release(claim).await
    }

    async fn load(&self, key: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        self.log.load(key).await
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        let before = self.stored.lock().unwrap().insert(claim.partition.clone(), state.to_vec());
        let stored = match before {
            Some(before) if self.fault == Fault::StoresTheStateBefore => before,
            _ => state.to_vec(),
        };
        self.log.checkpoint(&self.passed_off(claim), position, &stored, kept).await
    }

    async fn fallback(&self, key: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        self.log.fallback(key).await
    }

    async fn progress(&self, claim: &Claim, applied: u64) -> Result<(), LogError> {
        self.log.progress(&self.passed_off(claim), applied).await
    }

    async fn status(&self, key: &PartitionKey) -> Result<PartitionStatus, LogError> {
        self.log.status(key).await
    }
}

fn with(fault: Fault, settings: &Settings) -> Report {
    let front = |server: Server| {
        let sound = Store::new(server.clone());
        let (taken_over, stored, newest) = (Mutex::default(), Mutex::default(), Mutex::default());
        Store { log: Arc::new(Broken { log: server, fault, taken_over, stored, newest }), ..sound }
    };
    simulate_on(settings, front, |_| {}).unwrap()
}

fn broken(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|check| !check.kept).map(|check| check.name).collect()
}

#[test]
fn an_entry_left_out_of_a_replay_is_found() {
    let broken = broken(&with(Fault::SkipsOneOfAReplay, &Profile::Chaos.settings(3)));
    assert!(broken.contains(&"no_acknowledged_event_is_lost_or_applied_twice"), "{broken:?}");
    assert!(broken.contains(&"state_replays"), "{broken:?}");
}

#[test]
fn an_entry_applied_twice_is_found() {
    let broken = broken(&with(Fault::ReadsTwice, &Profile::Chaos.settings(3)));
    assert!(broken.contains(&"state_replays"), "{broken:?}");
}

#[test]
fn a_checkpoint_that_is_not_kept_is_found() {
    let broken = broken(&with(Fault::StoresTheStateBefore, &Profile::Chaos.settings(3)));
    assert!(broken.contains(&"state_replays"), "{broken:?}");
}

#[test]
fn a_fence_that_lets_everybody_through_is_found() {
    // It does harm where an owner that was cut off is back before it hears that it owns nothing any more.
    let found = (0..SEEDS).any(|seed| {
        let settings = Profile::Chaos.settings(seed);
        let settings = Settings { faults: Faults { cut: 0.6, ..settings.faults }, ..settings };
        broken(&with(Fault::ClaimsForAll, &settings)).contains(&"state_replays")
    });
    assert!(found, "not in {SEEDS} runs");
}
