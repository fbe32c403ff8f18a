//! What a copy of a partition reads: a checkpoint, then the log behind it. It never claims, appends or stores.
//!
//! An owner may checkpoint, and so trim the log, at any moment. What was read counts only when no checkpoint had moved
//! past the copy by then; else, and whenever the copy may have become something else than its partition, it is restored
//! anew.

use std::time::Duration;

use hebb_engine::{Entry, EntryId, Partition};
use hebb_log::bounds::may_go_on;
use hebb_log::{Log, LogError, PartitionKey, PartitionStatus, Record};

/// Entries of one read: of usual events some ten kilobytes.
const BATCH: usize = 128;

/// What a copy was restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The ownership of then; 0 before the first.
    pub epoch: u64,
    /// The checkpoint's last entry; nothing where there was no checkpoint.
    pub checkpointed: Option<EntryId>,
}

/// Why a copy is restored anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// A checkpoint has moved past it: entries in between may be gone.
    Trimmed,
    /// The partition has another owner, which began with what the store had then: after a failover less than the copy,
    /// maybe.
    Owner,
    /// The store has lost the checkpoint that the copy began with.
    Rewound,
    /// There is a newer checkpoint, and it is time to trust the copy no longer.
    Renewal,
}

impl Reload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Trimmed, Self::Owner, Self::Rewound, Self::Renewal];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Owner => "owner",
            Self::Rewound => "rewound",
            Self::Renewal => "renewal",
        }
    }
}

/// Whether a copy at `position` is still what its partition was there, by what was seen after its last read.
/// `is_doubtful` asks for the next checkpoint in any case.
pub fn judge(base: &Base, position: EntryId, seen: &PartitionStatus, is_doubtful: bool) -> Option<Reload> {
    if seen.checkpointed < base.checkpointed {
        return Some(Reload::Rewound);
    }
    if seen.epoch != base.epoch {
        return Some(Reload::Owner);
    }
    if seen.checkpointed > Some(position) {
        return Some(Reload::Trimmed);
    }
    (is_doubtful && seen.checkpointed > base.checkpointed).then_some(Reload::Renewal)
}

/// What follows a copy.
pub enum Next {
    /// These entries, in order, and whether they were all that there were.
    Entries(Vec<(EntryId, Record)>, bool),
    /// Nothing that it could use.
    Reload(Reload),
}

/// The entries after `position`; waits up to `wait` for the first one.
///
/// # Errors
/// [`LogError`] of the store.
pub async fn next(
    log: &dyn Log,
    key: &PartitionKey,
    base: &Base,
    position: EntryId,
    is_doubtful: bool,
    wait: Duration,
) -> Result<Next, LogError> {
    let entries = log.read(key, position, BATCH, wait).await?;
    if entries.is_empty() && !wait.is_zero() {
        return Ok(Next::Entries(entries, true));
    }
    let is_all = !may_go_on(&entries, BATCH);
    // Checkpoints only move on: one that isn't past the position now wasn't when the entries were read.
    let seen = log.status(key).await?;
    Ok(match judge(base, position, &seen, is_doubtful) {
        Some(why) => Next::Reload(why),
        None => Next::Entries(entries, is_all),
    })
}

/// An entry that this version can't read. Its owner may, so that the copy would no longer be the same.
#[derive(Debug, thiserror::Error)]
#[error("the entry at {0} can't be read; do the nodes run different versions?")]
pub struct Unreadable(EntryId);

/// Applies entries as their owner does, without answering anybody.
///
/// # Errors
/// [`Unreadable`]; the entries before it are applied.
pub fn apply(partition: &mut Partition, entries: &[(EntryId, Record)]) -> Result<(), Unreadable> {
    for (id, record) in entries {
        let entry = Entry::decode(&record.entry).map_err(|_| Unreadable(*id))?;
        partition.apply(*id, &entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hebb_engine::{Control, Event, Features, Input, Label, PartitionConfig, Query, Task};
    use hebb_log::{Claim, Claimed, LocalStore};
    use proptest::prelude::*;

    use super::*;

    type Failed = Box<dyn std::error::Error>;

    fn status(epoch: u64, checkpointed: Option<u64>) -> PartitionStatus {
        let checkpointed = checkpointed.map(|at_ms| EntryId { at_ms, seq: 0 });
        PartitionStatus { waiting: 0, length: 0, owner: None, epoch, checkpointed, checkpoint_bytes: 0 }
    }

    #[test]
    fn a_copy_is_restored_anew_when_it_may_have_become_something_else() {
        let base = Base { epoch: 3, checkpointed: Some(EntryId { at_ms: 10, seq: 0 }) };
        let at = |at_ms| EntryId { at_ms, seq: 0 };
        for (position, epoch, checkpointed, doubtful, wanted) in [
            (20, 3, Some(10), false, None),
            (20, 3, Some(10), true, None),
            (20, 3, Some(20), false, None),
            (20, 3, Some(20), true, Some(Reload::Renewal)),
            (20, 3, Some(21), false, Some(Reload::Trimmed)),
            (20, 4, Some(10), false, Some(Reload::Owner)),
            (20, 3, Some(9), false, Some(Reload::Rewound)),
            (20, 3, None, false, Some(Reload::Rewound)),
        ] {
            let found = judge(&base, at(position), &status(epoch, checkpointed), doubtful);
            assert_eq!(found, wanted, "{position} {epoch} {checkpointed:?} {doubtful}");
        }
        let none = Base { epoch: 0, checkpointed: None };
        assert_eq!(judge(&none, at(0), &status(0, None), true), None);
        assert_eq!(judge(&none, at(0), &status(1, None), false), Some(Reload::Owner));
    }

    #[tokio::test]
    async fn a_read_that_large_entries_end_early_is_not_all() -> Result<(), Failed> {
        let store = LocalStore::in_memory()?;
        let key = PartitionKey { domain: "d".to_owned(), index: 0 };
        let large = Record { entry: vec![0; 1 << 20].into(), reply_to: None };
        store.append(&key, &vec![large; 60], u64::MAX).await?;
        store.append(&key, &vec![Record { entry: vec![0; 6 << 20].into(), reply_to: None }; 2], u64::MAX).await?;
        let base = Base { epoch: 0, checkpointed: None };
        let (mut position, mut found) = (EntryId::default(), 0);
        loop {
            let Next::Entries(entries, is_all) = next(&store, &key, &base, position, false, Duration::ZERO).await?
            else {
                return Err("there is no checkpoint".into());
            };
            found += entries.len();
            if is_all {
                break;
            }
            position = entries.last().ok_or("nothing, and that isn't all")?.0;
        }
        assert_eq!(found, 62);
        Ok(())
    }

    /// What happens to a partition and its copy.
    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<Entry>),
        /// The owner applies up to so many entries.
        Apply(usize),
        Checkpoint,
        /// Another owner begins with what the store has.
        Handover,
        /// The copy takes up what follows it, once.
        Follow,
        /// The copy answers a read.
        Answer,
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let id = (0u8..40).prop_map(|number| number.to_string());
        let input = prop::collection::vec(-3.0f64..3.0, 2..=2).prop_map(|row| Input::Features(Features::Dense(row)));
        let label = (0u8..3).prop_map(|class| Label::Class(class.to_string().into()));
        prop_oneof![
            8 => (id.clone(), input.clone(), prop::option::of(label.clone()))
                .prop_map(|(id, input, label)| Entry::Event(Event { id: id.into(), input, label })),
            3 => (id, label).prop_map(|(id, label)| Entry::Feedback { id: id.into(), label }),
            1 => input.prop_map(Entry::Infer),
            1 => Just(Entry::Query(Query::Statistics)),
            1 => Just(Entry::Control(Control::Cycle)),
            1 => Just(Entry::Control(Control::Reset)),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop::collection::vec(entry(), 1..30).prop_map(Step::Append),
            6 => (1usize..40).prop_map(Step::Apply),
            3 => Just(Step::Checkpoint),
            1 => Just(Step::Handover),
            6 => Just(Step::Follow),
            2 => Just(Step::Answer),
        ]
    }

    /// A partition with its owner, what its state was at each position, and a copy.
    struct World {
        store: LocalStore,
        key: PartitionKey,
        claim: Claim,
        owner: Partition,
        states: BTreeMap<EntryId, Vec<u8>>,
        copy: Option<(Base, Partition)>,
        compared: usize,
    }

    impl World {
        async fn begin() -> Result<Self, Failed> {
            let store = LocalStore::in_memory()?;
            let key = PartitionKey { domain: "d".to_owned(), index: 0 };
            let claim = claim(&store, &key, None).await?;
            let owner = Partition::new(PartitionConfig::new(Task::Classification));
            store.checkpoint(&claim, owner.position(), &owner.snapshot(), None).await?;
            let states = BTreeMap::from([(owner.position(), owner.snapshot())]);
            Ok(Self { store, key, claim, owner, states, copy: None, compared: 0 })
        }

        async fn apply(&mut self, most: usize) -> Result<(), Failed> {
            for (id, record) in self.store.read(&self.key, self.owner.position(), most, Duration::ZERO).await? {
                self.owner.apply(id, &Entry::decode(&record.entry)?);
                self.states.insert(id, self.owner.snapshot());
            }
            Ok(())
        }

        async fn follow(&mut self) -> Result<(), Failed> {
            let (base, mut partition) = match self.copy.take() {
                Some(copy) => copy,
                None => {
                    let seen = self.store.status(&self.key).await?;
                    let checkpoint = self.store.load(&self.key).await?.ok_or("no checkpoint")?;
                    let base = Base { epoch: seen.epoch, checkpointed: Some(checkpoint.position) };
                    (base, Partition::restore(&checkpoint.state)?)
                }
            };
            match next(&self.store, &self.key, &base, partition.position(), false, Duration::ZERO).await? {
                Next::Reload(_) => {}
                Next::Entries(entries, _) => {
                    apply(&mut partition, &entries)?;
                    self.copy = Some((base, partition));
                }
            }
            Ok(())
        }

        async fn take(&mut self, step: Step) -> Result<(), Failed> {
            match step {
                Step::Append(entries) => {
                    let records = entries.iter().map(|entry| Record { entry: entry.encode().into(), reply_to: None });
                    self.store.append(&self.key, &records.collect::<Vec<_>>(), u64::MAX).await?;
                }
                Step::Apply(most) => self.apply(most).await?,
                Step::Checkpoint => {
                    self.store.checkpoint(&self.claim, self.owner.position(), &self.owner.snapshot(), None).await?;
                }
                Step::Handover => {
                    self.claim = claim(&self.store, &self.key, Some(&self.claim)).await?;
                    let checkpoint = self.store.load(&self.key).await?.ok_or("no checkpoint")?;
                    self.owner = Partition::restore(&checkpoint.state)?;
                }
                Step::Follow => self.follow().await?,
                Step::Answer => {
                    if let Some((_, partition)) = &mut self.copy {
                        let read = Entry::Infer(Input::Features(Features::Dense(vec![1.0, 2.0])));
                        partition.peek(&read).ok_or("a read")?;
                    }
                }
            }
            Ok(())
        }

        /// The copy is what its owner was where the copy is, as far as the owner has come.
        fn compare(&mut self) {
            let Some((_, partition)) = &self.copy else { return };
            if let Some(state) = self.states.get(&partition.position()) {
                assert!(*state == partition.snapshot(), "the copy differs at {}", partition.position());
                self.compared += 1;
            }
        }
    }

    async fn claim(store: &LocalStore, key: &PartitionKey, previous: Option<&Claim>) -> Result<Claim, Failed> {
        if let Some(previous) = previous {
            store.release(previous).await?;
        }
        match store.claim(key, "owner", None, Duration::from_secs(600)).await? {
            Claimed::New(claim) => Ok(claim),
            other => Err(format!("{other:?}").into()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_copy_is_its_owner_byte_for_byte_wherever_it_is(steps in prop::collection::vec(step(), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut world = World::begin().await?;
                for step in steps {
                    world.take(step).await?;
                    world.compare();
                }
                // At last both take up everything, and are one.
                while world.store.read(&world.key, world.owner.position(), 1, Duration::ZERO).await?.len() == 1 {
                    world.apply(1_000).await?;
                }
                for _ in 0..30 {
                    world.follow().await?;
                }
                let compared = world.compared;
                world.compare();
                assert_eq!(world.compared, compared + 1);
                let position = world.copy.as_ref().map(|(_, partition)| partition.position());
                assert_eq!(position, Some(world.owner.position()));
                Ok::<_, Failed>(())
            }).unwrap();
        }
    }
}
