//! One entry of a log applied to its partition: the same in the live run, in a replay and in a backup.

use hebb_engine::{Entry, EntryId, Outcome, Partition, Query, Rejection};

/// Applies an encoded entry; what can't be read is rejected.
pub fn apply(partition: &mut Partition, id: EntryId, entry: &[u8]) -> Outcome {
    match Entry::decode(entry) {
        Ok(entry) => partition.apply(id, &entry),
        Err(_) => {
            // A read in its place moves the position on, in every replay alike.
            partition.apply(id, &Entry::Query(Query::Statistics));
            Outcome::Rejected(Rejection::Unreadable)
        }
    }
}

/// Whether an entry that was applied is missing in the state, because only a newer version can read it.
pub fn is_lost(outcome: &Outcome, entry: &[u8]) -> bool {
    matches!(outcome, Outcome::Rejected(Rejection::Unreadable)) && !Entry::is_expendable(entry)
}
