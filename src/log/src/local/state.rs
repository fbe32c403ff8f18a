//! What the process knows of its partitions without reading the file, and the decisions about ownership.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::watch;

use super::fresh::Fresh;
use super::layout;
use super::pieces::{self, Pieces};
use super::tables::{self, CHECKPOINTS, FALLBACKS, KEPT, LOG, OWNERS, PARTITIONS, failed};
use crate::{Claim, Claimed, EntryId, Kept, LogError, PartitionKey, PartitionStatus, Record};

const FIRST: EntryId = EntryId { at_ms: 0, seq: 0 };

#[derive(Debug, thiserror::Error)]
#[error("another checkpoint of the partition was begun, or a commit has failed")]
struct GivenUp;

#[derive(Clone)]
pub(super) struct Owner {
    pub(super) epoch: u64,
    pub(super) token: String,
    pub(super) name: String,
}

pub(super) struct Partition {
    pub(super) number: u32,
    /// Whether the file knows the number.
    pub(super) stored: bool,
    /// The newest id given out.
    pub(super) last: EntryId,
    /// Entries in the log, with those that are kept for a fallback.
    pub(super) length: u64,
    pub(super) applied: u64,
    pub(super) owner: Option<Owner>,
    /// The token that holds the lease, and until when.
    pub(super) lease: Option<(String, Instant)>,
    pub(super) checkpointed: Option<EntryId>,
    pub(super) checkpoint_bytes: u64,
    pub(super) fallback: Option<Kept>,
    /// The serials of the states that are in pieces.
    pub(super) serials: Serials,
    /// Whether there may be pieces that belong to none of them.
    pub(super) littered: bool,
    /// The newest id committed; readers wait for it to move.
    pub(super) newest: watch::Sender<EntryId>,
    /// What readers are handed without the file.
    pub(super) fresh: Fresh,
}

/// The serials of a partition's states, of those that are in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Serials {
    pub(super) newest: Option<u64>,
    pub(super) fallback: Option<u64>,
    /// Of the state whose pieces are being written. Whoever writes them stops when it's another's.
    pub(super) begun: Option<u64>,
}

impl Serials {
    pub(super) fn live(self) -> Vec<u64> {
        [self.newest, self.fallback, self.begun].into_iter().flatten().collect()
    }
}

/// What a commit changes beside the file.
pub(super) enum Effect {
    /// These are in the log, and readers are to be told.
    Appended(Vec<(EntryId, Record)>),
    /// These aren't in it any more.
    Trimmed {
        /// The last of them.
        until: EntryId,
    },
}

impl Partition {
    fn new(number: u32) -> Self {
        Self {
            number,
            stored: false,
            last: FIRST,
            length: 0,
            applied: 0,
            owner: None,
            lease: None,
            checkpointed: None,
            checkpoint_bytes: 0,
            fallback: None,
            serials: Serials::default(),
            littered: false,
            newest: watch::Sender::new(FIRST),
            fresh: Fresh::after(FIRST),
        }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.since_checkpoint().saturating_sub(self.applied)
    }

    fn since_checkpoint(&self) -> u64 {
        self.length.saturating_sub(self.fallback.map_or(0, |kept| kept.entries))
    }

    /// Gives out ids: the clock's, never one that isn't above the last.
    pub(super) fn next_ids(&mut self, now_ms: u64, count: usize) -> Vec<EntryId> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            self.last = if self.last.at_ms < now_ms {
                EntryId { at_ms: now_ms, seq: 0 }
            } else {
                EntryId { at_ms: self.last.at_ms, seq: self.last.seq + 1 }
            };
            ids.push(self.last);
        }
        self.length += count as u64;
        ids
    }

    /// Decides on a claim. A new one is only proposed: it stands when it's committed.
    pub(super) fn claim(
        &mut self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&str>,
        lease: Duration,
        now: Instant,
    ) -> Claimed {
        if let Some((token, until)) = &self.lease
            && now < *until
            && previous != Some(token)
        {
            let owner = self.owner.as_ref().map(|owner| owner.name.clone()).unwrap_or_default();
            return Claimed::Held { owner, expires_in: *until - now };
        }
        let epoch = self.owner.as_ref().map_or(0, |owner| owner.epoch);
        let claim = |epoch, token| Claim { partition: partition.clone(), owner: owner.to_owned(), epoch, token };
        match &mut self.owner {
            Some(last) if previous == Some(&last.token) => {
                owner.clone_into(&mut last.name);
                let token = last.token.clone();
                self.lease = Some((token.clone(), now + lease));
                Claimed::Resumed(claim(epoch, token))
            }
            _ => Claimed::New(claim(epoch + 1, format!("{:032x}", rand::random::<u128>()))),
        }
    }

    /// Whether the newest checkpoint is of a later position.
    pub(super) fn is_after(&self, position: EntryId) -> bool {
        self.checkpointed.is_some_and(|stored| position < stored)
    }

    pub(super) fn is_owned_by(&self, claim: &Claim) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.token == claim.token && owner.epoch == claim.epoch)
    }

    pub(super) fn status(&self, now: Instant) -> PartitionStatus {
        let held = self.lease.as_ref().is_some_and(|(_, until)| now < *until);
        PartitionStatus {
            waiting: self.waiting(),
            length: self.since_checkpoint(),
            owner: self.owner.as_ref().filter(|_| held).map(|owner| owner.name.clone()),
            epoch: self.owner.as_ref().map_or(0, |owner| owner.epoch),
            checkpointed: self.checkpointed,
            checkpoint_bytes: self.checkpoint_bytes,
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    partitions: HashMap<PartitionKey, Partition>,
    next_number: u32,
}

impl State {
    /// The partition, which is made known in memory.
    pub(super) fn partition(&mut self, key: &PartitionKey) -> &mut Partition {
        match self.partitions.entry(key.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                self.next_number += 1;
                place.insert(Partition::new(self.next_number - 1))
            }
        }
    }

    pub(super) fn known(&self, key: &PartitionKey) -> Option<&Partition> {
        self.partitions.get(key)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }

    /// The partition of a claim that stands.
    pub(super) fn owned(&mut self, claim: &Claim) -> Result<&mut Partition, LogError> {
        self.partitions
            .get_mut(&claim.partition)
            .filter(|partition| partition.is_owned_by(claim))
            .ok_or(LogError::Fenced)
    }

    /// The partition of a claim that stands, whose state with this serial is being written.
    pub(super) fn writing(&mut self, claim: &Claim, serial: u64) -> Result<&mut Partition, LogError> {
        let partition = self.owned(claim)?;
        match partition.serials.begun == Some(serial) {
            true => Ok(partition),
            false => Err(LogError::unavailable(GivenUp)),
        }
    }

    /// Does what follows from a commit that has succeeded.
    pub(super) fn settle(&mut self, effects: Vec<(PartitionKey, Effect)>) {
        for (key, effect) in effects {
            let partition = self.partition(&key);
            match effect {
                Effect::Appended(entries) => {
                    let Some((last, _)) = entries.last() else { continue };
                    let last = *last;
                    partition.fresh.push(entries);
                    partition.newest.send_replace(last);
                }
                Effect::Trimmed { until } => partition.fresh.trim(until),
            }
        }
    }

    /// After a commit that failed nobody knows what the file holds, until it is read.
    pub(super) fn doubt(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.fresh = Fresh::unknown();
            // Pieces that were written before it may be gone, and some that were removed may be there again.
            (partition.serials.begun, partition.littered) = (None, true);
        }
    }

    /// Takes over what the file holds, at the start and after a commit that failed. Leases, progress and waiting readers
    /// stay, and no id is given out twice.
    pub(super) fn reload(&mut self, database: &Database) -> Result<(), LogError> {
        let read = database.begin_read().map_err(failed)?;
        for partition in self.partitions.values_mut() {
            (partition.stored, partition.length) = (false, 0);
            (partition.owner, partition.checkpointed, partition.checkpoint_bytes) = (None, None, 0);
            partition.fallback = None;
            (partition.serials.newest, partition.serials.fallback) = (None, None);
        }
        let partitions = read.open_table(PARTITIONS).map_err(failed)?;
        let (owners, checkpoints) =
            (read.open_table(OWNERS).map_err(failed)?, read.open_table(CHECKPOINTS).map_err(failed)?);
        let (kept, log) = (read.open_table(KEPT).map_err(failed)?, read.open_table(LOG).map_err(failed)?);
        let fallbacks = read.open_table(FALLBACKS).map_err(failed)?;
        for stored in partitions.iter().map_err(failed)? {
            let (name, number) = stored.map_err(failed)?;
            let number = number.value();
            let partition = self.partitions.entry(parse(name.value())?).or_insert_with(|| Partition::new(number));
            partition.stored = true;
            if let Some(checkpoint) = checkpoints.get(number).map_err(failed)? {
                let (at_ms, seq, _, row) = checkpoint.value();
                partition.checkpointed = Some(EntryId { at_ms, seq });
                partition.checkpoint_bytes = pieces::bytes(row);
                partition.serials.newest = Pieces::named_by(row).map(|pieces| pieces.serial);
                partition.last = partition.last.max(EntryId { at_ms, seq });
            }
            if let Some(fallback) = fallbacks.get(number).map_err(failed)? {
                let (_, _, _, row) = fallback.value();
                partition.serials.fallback = Pieces::named_by(row).map(|pieces| pieces.serial);
            }
            partition.fallback = kept.get(number).map_err(failed)?.map(|kept| tables::kept(kept.value()));
            for entry in log.range((number, 0, 0)..=(number, u64::MAX, u64::MAX)).map_err(failed)? {
                let (place, value) = entry.map_err(failed)?;
                let (_, at_ms, seq) = place.value();
                partition.length += layout::count(value.value());
                partition.last = partition.last.max(EntryId { at_ms, seq });
            }
            // Last: an owner may remove what isn't known to belong to a checkpoint.
            if let Some(owner) = owners.get(number).map_err(failed)? {
                let (epoch, token, name) = owner.value();
                partition.owner = Some(Owner { epoch, token: token.to_owned(), name: name.to_owned() });
            }
            partition.fresh = Fresh::after(partition.last);
            partition.newest.send_replace(partition.last);
            self.next_number = self.next_number.max(number + 1);
        }
        // Of the others the file has nothing.
        for partition in self.partitions.values_mut().filter(|partition| !partition.stored) {
            partition.fresh = Fresh::after(partition.last);
        }
        Ok(())
    }
}

fn parse(name: &str) -> Result<PartitionKey, LogError> {
    name.rsplit_once('/')
        .and_then(|(domain, index)| Some(PartitionKey { domain: domain.to_owned(), index: index.parse().ok()? }))
        .ok_or_else(|| LogError::Corrupt(format!("a partition named {name}")))
}
