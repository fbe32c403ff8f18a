//! Whatever is done to a local store, in whatever order, it answers as a few vectors would.

use std::time::Duration;

use hebb_log::{
    Claim, Claimed, Durability, EntryId, Kept, LocalConfig, LocalStore, Log, LogError, PartitionKey, Record,
};
use proptest::prelude::*;

use crate::pieces::Stored;

const START: EntryId = EntryId { at_ms: 0, seq: 0 };
const LONG: Duration = Duration::from_secs(600);
const WORKERS: usize = 3;
/// A state of so many bytes is in two pieces.
const LARGE_BYTES: usize = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    Append { count: usize, max: u64 },
    Read { after: usize, max: usize },
    Claim { worker: usize, with_previous: bool },
    Release { worker: usize },
    Renew { worker: usize },
    Progress { worker: usize, applied: u64 },
    Checkpoint { worker: usize, position: usize, keeps: Option<Keeps>, is_large: bool },
    Reopen,
}

/// Which checkpoint is to be kept.
#[derive(Clone, Copy, Debug)]
enum Keeps {
    Newest,
    Fallback,
    Another(usize),
}

fn keeps() -> impl Strategy<Value = Option<Keeps>> {
    prop_oneof![
        Just(None),
        Just(Some(Keeps::Newest)),
        Just(Some(Keeps::Fallback)),
        (0..40_usize).prop_map(|at| Some(Keeps::Another(at))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        4 => (0..5_usize, 0..25_u64).prop_map(|(count, max)| Step::Append { count, max }),
        2 => (0..40_usize, 0..10_usize).prop_map(|(after, max)| Step::Read { after, max }),
        3 => (worker.clone(), any::<bool>())
            .prop_map(|(worker, with_previous)| Step::Claim { worker, with_previous }),
        2 => worker.clone().prop_map(|worker| Step::Release { worker }),
        1 => worker.clone().prop_map(|worker| Step::Renew { worker }),
        1 => (worker.clone(), 0..15_u64).prop_map(|(worker, applied)| Step::Progress { worker, applied }),
        3 => (worker, 0..40_usize, keeps(), prop::bool::weighted(0.2))
            .prop_map(|(worker, position, keeps, is_large)| Step::Checkpoint { worker, position, keeps, is_large }),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    /// All ids ever given out, the checkpointed ones too.
    ids: Vec<EntryId>,
    log: Vec<(EntryId, Record)>,
    applied: u64,
    owner: Option<Claim>,
    held: bool,
    checkpoint: Option<(EntryId, u64, Vec<u8>)>,
    fallback: Option<(Kept, u64, Vec<u8>)>,
    claims: [Option<Claim>; WORKERS],
}

impl Model {
    fn id(&self, index: usize) -> EntryId {
        if self.ids.is_empty() { START } else { self.ids[index % self.ids.len()] }
    }

    /// What follows the newest checkpoint.
    fn tail(&self) -> u64 {
        let is_new = |id: &EntryId| self.checkpoint.as_ref().is_none_or(|(stored, _, _)| stored < id);
        self.log.iter().filter(|(id, _)| is_new(id)).count() as u64
    }

    fn waiting(&self) -> u64 {
        self.tail().saturating_sub(self.applied)
    }

    /// What an owner would ask to keep with a checkpoint at `position`.
    fn kept(&self, keeps: Keeps, position: EntryId) -> Option<Kept> {
        let from = match keeps {
            Keeps::Newest => self.checkpoint.as_ref()?.0,
            Keeps::Fallback => self.fallback.as_ref()?.0.position,
            Keeps::Another(at) => self.id(at),
        };
        let entries = self.log.iter().filter(|(id, _)| from < *id && *id <= position).count() as u64;
        Some(Kept { position: from, since: position, entries, bytes: entries })
    }

    /// The fallback that stands after a checkpoint that asks for this one.
    fn fall_back(&self, kept: Option<Kept>) -> Option<(Kept, u64, Vec<u8>)> {
        let kept = kept?;
        let fallback = self.fallback.as_ref().map(|(stands, epoch, state)| (stands.position, *epoch, state.clone()));
        let stands = |(position, _, _): &(EntryId, u64, Vec<u8>)| *position == kept.position;
        let (_, epoch, state) = fallback.filter(stands).or_else(|| self.checkpoint.clone().filter(stands))?;
        Some((kept, epoch, state))
    }

    fn owns(&self, worker: usize) -> bool {
        self.owner.is_some() && self.owner == self.claims[worker]
    }

    /// What a call in the name of a worker's last claim may answer.
    fn check_fence(&self, worker: usize, done: Result<(), LogError>) -> bool {
        match done {
            Ok(()) => assert!(self.owns(worker)),
            Err(LogError::Fenced) => assert!(!self.owns(worker)),
            Err(error) => panic!("{error}"),
        }
        self.owns(worker)
    }
}

async fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    // Unsynced commits take the same path and a hundredth of the time.
    let config = LocalConfig { durability: Durability::Async };
    let key = PartitionKey { domain: "model".to_owned(), index: 0 };
    let mut store = LocalStore::open(directory.path(), config).await.unwrap();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { count, max } => {
                let batch: Vec<Record> =
                    (0..count).map(|n| Record { entry: vec![number as u8, n as u8].into(), reply_to: None }).collect();
                match store.append(&key, &batch, max).await {
                    Ok(ids) => {
                        assert!(count == 0 || model.waiting() + count as u64 <= max);
                        assert_eq!(ids.len(), count);
                        for id in &ids {
                            assert!(model.ids.last().is_none_or(|last| last < id));
                            model.ids.push(*id);
                        }
                        model.log.extend(ids.into_iter().zip(batch));
                    }
                    Err(LogError::Full { waiting, .. }) => {
                        assert_eq!(waiting, model.waiting());
                        assert!(max < waiting + count as u64);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Read { after, max } => {
                let after = model.id(after);
                let wanted: Vec<_> = model.log.iter().filter(|(id, _)| after < *id).take(max).cloned().collect();
                assert_eq!(store.read(&key, after, max, Duration::ZERO).await.unwrap(), wanted);
            }
            Step::Claim { worker, with_previous } => {
                let previous = model.claims[worker].clone().filter(|_| with_previous);
                let same = previous.is_some() && previous == model.owner;
                let name = format!("worker-{worker}");
                match store.claim(&key, &name, previous.as_ref(), LONG).await.unwrap() {
                    Claimed::Held { owner, .. } => {
                        assert!(model.held && !same);
                        assert_eq!(Some(owner), model.owner.as_ref().map(|claim| claim.owner.clone()));
                    }
                    Claimed::Resumed(claim) => {
                        assert!(same);
                        assert_eq!(Some(claim), previous);
                        model.held = true;
                    }
                    Claimed::New(claim) => {
                        assert!(!same && !model.held);
                        assert!(model.owner.as_ref().is_none_or(|owner| owner.epoch < claim.epoch));
                        model.owner = Some(claim.clone());
                        model.claims[worker] = Some(claim);
                        (model.held, model.applied) = (true, 0);
                    }
                }
            }
            Step::Release { worker } => {
                if let Some(claim) = model.claims[worker].clone() {
                    store.release(&claim).await.unwrap();
                    model.held &= !model.owns(worker);
                }
            }
            Step::Renew { worker } => {
                if let Some(claim) = model.claims[worker].clone()
                    && model.check_fence(worker, store.renew(&claim, LONG).await)
                {
                    model.held = true;
                }
            }
            Step::Progress { worker, applied } => {
                if let Some(claim) = model.claims[worker].clone()
                    && model.check_fence(worker, store.progress(&claim, applied).await)
                {
                    model.applied = applied;
                }
            }
            Step::Checkpoint { worker, position, keeps, is_large } => {
                let position = model.id(position);
                let kept = keeps.and_then(|keeps| model.kept(keeps, position));
                let state = vec![number as u8; if is_large { LARGE_BYTES } else { number }];
                if let Some(claim) = model.claims[worker].clone()
                    && model.check_fence(worker, store.checkpoint(&claim, position, &state, kept).await)
                    && model.checkpoint.as_ref().is_none_or(|(stored, _, _)| *stored <= position)
                {
                    model.fallback = model.fall_back(kept);
                    let trimmed_to = model.fallback.as_ref().map_or(position, |(kept, _, _)| kept.position);
                    model.log.retain(|(id, _)| trimmed_to < *id);
                    model.applied = 0;
                    model.checkpoint = Some((position, claim.epoch, state));
                }
            }
            Step::Reopen => {
                drop(store);
                store = LocalStore::open(directory.path(), config).await.unwrap();
                (model.held, model.applied) = (false, 0);
            }
        }
        let status = store.status(&key).await.unwrap();
        assert_eq!((status.waiting, status.length), (model.waiting(), model.tail()));
        assert_eq!(status.owner, model.owner.as_ref().filter(|_| model.held).map(|claim| claim.owner.clone()));
        assert_eq!(status.epoch, model.owner.as_ref().map_or(0, |claim| claim.epoch));
        assert_eq!(status.checkpointed, model.checkpoint.as_ref().map(|(position, _, _)| *position));
        let bytes = model.checkpoint.as_ref().map_or(0, |(_, _, state)| state.len() as u64);
        assert_eq!(status.checkpoint_bytes, bytes);
        let stored = store.load(&key).await.unwrap();
        assert_eq!(stored.as_ref().and_then(|stored| stored.kept), model.fallback.as_ref().map(|(kept, _, _)| *kept));
        let fallback = store.fallback(&key).await.unwrap();
        let wanted = model.fallback.clone().map(|(kept, epoch, state)| (kept.position, epoch, state));
        assert_eq!(fallback.map(|stored| (stored.position, stored.epoch, stored.state)), wanted);
        assert_eq!(stored.map(|stored| (stored.position, stored.epoch, stored.state)), model.checkpoint);
    }
    assert_eq!(store.read(&key, START, 10_000, Duration::ZERO).await.unwrap(), model.log);
    drop(store);
    drop(LocalStore::open(directory.path(), config).await.unwrap());
    let large = [model.checkpoint.map(|(_, _, state)| state), model.fallback.map(|(_, _, state)| state)];
    let large = large.iter().flatten().filter(|state| state.len() == LARGE_BYTES).count();
    assert_eq!(Stored::of(directory.path()).pieces, large * 2, "two each of those that stand");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_local_store_answers_as_its_model(steps in proptest::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}
