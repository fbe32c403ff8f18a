//! What every store has to do, as functions that each take a store that nobody has used before.
//! They panic by assertion where a store does something else, and pass on its errors.

mod directory;
mod entries;
mod history;
mod ownership;

use std::time::Duration;

use crate::{Claim, Claimed, Directory, EntryId, Log, LogError, PartitionKey, Record, Replies};

pub use directory::*;
pub use entries::*;
pub use history::*;
pub use ownership::*;

/// All that a cluster needs.
pub trait Store: Log + Replies + Directory {}
impl<S: Log + Replies + Directory> Store for S {}

const PLENTY: u64 = 1_000_000;
const START: EntryId = EntryId { at_ms: 0, seq: 0 };
/// A lease that doesn't end in a test.
const LONG: Duration = Duration::from_secs(60);
/// A lease that ends in a test.
const SHORT: Duration = Duration::from_millis(250);
const AFTER_SHORT: Duration = Duration::from_millis(500);
const NO_WAIT: Duration = Duration::ZERO;

/// Calls a macro with the name of every function of the suite.
#[macro_export]
macro_rules! conformance_suite {
    ($with:ident) => {
        $with! {
            entries_come_back_in_order_and_byte_by_byte, an_empty_log_reads_as_nothing, partitions_are_apart,
            large_entries_are_read_in_parts,
            a_full_log_takes_all_or_none, what_is_out_of_bounds_is_refused, a_waiting_read_is_woken,
            a_blocked_read_blocks_nobody, many_reads_wait_at_once, appends_at_the_same_time_are_all_there,
            a_claim_is_new_resumed_or_held, an_expired_lease_is_for_the_taking, a_renewed_lease_holds,
            a_released_partition_is_free, a_superseded_owner_is_fenced, a_checkpoint_trims_exactly,
            a_checkpoint_never_goes_back, a_checkpoint_keeps_large_states, a_checkpoint_is_whole_while_it_is_replaced,
            a_fallback_stands_with_its_log_beside_the_newest, only_what_is_there_is_kept,
            a_later_checkpoint_takes_the_place_of_a_fallback, a_fallback_never_fills_a_log, waiting_counts_what_is_not_applied,
            replies_come_in_batches, replies_of_others_stay_away, a_domain_is_declared_once,
            a_configuration_keeps_task_and_partitions, members_expire_and_leave, one_candidate_leads,
            terms_grow, an_assignment_is_fenced_by_the_term, a_note_outlives_its_leader,
        }
    };
}

fn key(domain: &str) -> PartitionKey {
    PartitionKey { domain: domain.to_owned(), index: 0 }
}

fn record(entry: impl Into<Vec<u8>>) -> Record {
    Record { entry: entry.into().into(), reply_to: None }
}

fn records(count: usize) -> Vec<Record> {
    (0..count).map(|n| record(n.to_string())).collect()
}

async fn new_claim(store: &impl Log, key: &PartitionKey, owner: &str, lease: Duration) -> Result<Claim, LogError> {
    match store.claim(key, owner, None, lease).await? {
        Claimed::New(claim) => Ok(claim),
        other => Err(LogError::Corrupt(format!("a new claim was wanted, {other:?} came"))),
    }
}
