//! What a call may carry, checked by every store before anything is sent or stored.

use crate::{
    Batch, Domain, EntryId, LogError, MAX_HISTORY_BYTES, MAX_SERIES_BYTES, Member, PartitionKey, Record, Tier,
};

/// The most records of one append.
pub const MAX_RECORDS: usize = 10_000;
/// The most bytes of one append or one batch of replies.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// The most bytes of one checkpoint: Redis allows 512 MiB a value, and such a value blocks it for a second.
pub const MAX_STATE_BYTES: usize = 256 << 20;
/// The most entries of one read.
pub const MAX_READ: usize = 10_000;
/// A read that has brought so many bytes may end, whatever follows.
pub const READ_ENOUGH_BYTES: usize = 8 << 20;
/// The most bytes of a name: that of a Kubernetes object.
pub const MAX_NAME_BYTES: usize = 253;
/// The most bytes of a member's report and of a domain's configuration.
pub const MAX_REPORT_BYTES: usize = 1 << 20;
/// The most partitions of a domain.
pub const MAX_PARTITIONS: u32 = 65_536;
/// The most bytes of an assignment: 65,536 owners of 100 bytes and their keys.
pub const MAX_ASSIGNMENT_BYTES: usize = 16 << 20;

/// The most bytes of a leader's note.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// A name that is part of a key: what would change the key's hash tag is refused.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn name(what: &str, name: &str) -> Result<(), LogError> {
    let allowed = |c: char| !c.is_control() && !matches!(c, '{' | '}' | '/' | ' ');
    if name.is_empty() || MAX_NAME_BYTES < name.len() || !name.chars().all(allowed) {
        return Err(LogError::Invalid(format!(
            "{what} has to be 1 to {MAX_NAME_BYTES} bytes without braces, slashes and spaces"
        )));
    }
    Ok(())
}

/// A partition's address.
///
/// # Errors
/// [`LogError::Invalid`], as of all here.
pub fn partition(key: &PartitionKey) -> Result<(), LogError> {
    name("the domain's name", &key.domain)
}

/// The bytes of anything that has a bound.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn size(what: &str, size: usize, max: usize) -> Result<(), LogError> {
    if max < size {
        return Err(LogError::Invalid(format!("{what} has {size} bytes, {max} are allowed")));
    }
    Ok(())
}

/// A leader's note.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn note(name: &str, note: &[u8]) -> Result<(), LogError> {
    self::name("a note's name", name)?;
    size("a note", note.len(), MAX_NOTE_BYTES)
}

pub(crate) fn batch(tier: Tier, batch: &Batch) -> Result<(), LogError> {
    if tier.beginning(batch.at) != batch.at {
        return Err(LogError::Invalid(format!("no span of {} s begins at {}", tier.length(), batch.at)));
    }
    if batch.series.iter().any(|(name, _)| name.is_empty()) {
        return Err(LogError::Invalid("a series has to have a name".to_owned()));
    }
    for (name, _) in &batch.series {
        size("the name of a series", name.len(), MAX_SERIES_BYTES)?;
    }
    size("a batch of the history", batch.bytes(), MAX_HISTORY_BYTES)
}

/// A domain that is declared.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn domain(domain: &Domain) -> Result<(), LogError> {
    name("the domain's name", &domain.name)?;
    if domain.partitions == 0 || MAX_PARTITIONS < domain.partitions {
        return Err(LogError::Invalid(format!("a domain has 1 to {MAX_PARTITIONS} partitions")));
    }
    Ok(())
}

/// A node that beats.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn member(member: &Member) -> Result<(), LogError> {
    name("the member's id", &member.id)?;
    size("the member's report", member.report.len(), MAX_REPORT_BYTES)
}

/// Checks the records of an append and returns their bytes.
///
/// # Errors
/// [`LogError::Invalid`].
pub fn records(records: &[Record]) -> Result<usize, LogError> {
    if MAX_RECORDS < records.len() {
        return Err(LogError::Invalid(format!("{} records in one append, {MAX_RECORDS} are allowed", records.len())));
    }
    let mut bytes = 0;
    for record in records {
        bytes += record.entry.len();
        if let Some(reply_to) = &record.reply_to {
            name("the gateway's id", &reply_to.gateway)?;
            bytes += reply_to.gateway.len();
        }
    }
    size("the append", bytes, MAX_BATCH_BYTES)?;
    Ok(bytes)
}

/// The bytes of entries that were read.
pub(crate) fn bytes(entries: &[(EntryId, Record)]) -> usize {
    entries.iter().map(|(_, record)| record.entry.len()).sum()
}

/// Whether a read for `max` entries that brought these may have left some behind: it brought as many, or so many bytes that
/// it may have ended early.
pub fn may_go_on(entries: &[(EntryId, Record)], max: usize) -> bool {
    max <= entries.len() || READ_ENOUGH_BYTES <= bytes(entries)
}
