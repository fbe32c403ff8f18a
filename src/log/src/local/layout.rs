//! How records are laid out as values of the log's table. Small ones share a value, so that a commit touches few pages.
//!
//! A record is one byte, 0 where nobody waits for its outcome, or else the length of the gateway's name and one; the name;
//! the number of the request, in 8 bytes; and the entry. A value is one record, as all were in earlier versions, or
//! [`SEVERAL`], their number in 2 bytes, and each with its length in 4 bytes before it. Numbers are little-endian. The ids
//! of a value's records follow each other, and its key is the last of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::{EntryId, LogError, Record, ReplyTo};

/// Begins a value of several records. No name is as long as the first byte says and none begins with the second, so that an
/// earlier version says that it can't read the value.
const SEVERAL: [u8; 2] = [255; 2];
/// What comes before the records of such a value.
const HEAD: usize = SEVERAL.len() + size_of::<u16>();
/// The most bytes of one: with its key, and what redb adds, it fits into a page of 4 KiB.
const VALUE_BYTES: usize = 4_000;

/// The records of an append, copied once: from here they go into the file and to who reads them.
pub(super) struct Encoded {
    buffer: Bytes,
    /// Where each value ends in the buffer, and how many records it and those before it have.
    values: Vec<(usize, usize)>,
    records: Vec<Record>,
}

impl Encoded {
    /// `bytes` are those of the entries and of the names.
    pub(super) fn new(records: &[Record], bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + records.len() * (size_of::<u32>() + 9) + HEAD);
        let mut ends = Vec::with_capacity(records.len());
        let mut values = Vec::new();
        while ends.len() < records.len() {
            let rest = &records[ends.len()..];
            let count = fitting(rest);
            if count > 1 {
                buffer.extend_from_slice(&SEVERAL);
                // Those that fit are fewer than there are bytes.
                buffer.extend_from_slice(&(count as u16).to_le_bytes());
            }
            for record in &rest[..count] {
                if count > 1 {
                    // Neither has one more bytes than fit.
                    buffer.extend_from_slice(&(size(record) as u32).to_le_bytes());
                }
                write(&mut buffer, record);
                ends.push(buffer.len());
            }
            values.push((buffer.len(), ends.len()));
        }
        let buffer = Bytes::from(buffer);
        let shared = |(record, end): (&Record, &usize)| Record {
            entry: buffer.slice(end - record.entry.len()..*end),
            reply_to: record.reply_to.clone(),
        };
        let records = records.iter().zip(&ends).map(shared).collect();
        Self { buffer, values, records }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The values, each with the number of the records in it and before it.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let starts = std::iter::once(0).chain(self.values.iter().map(|(end, _)| *end));
        starts.zip(&self.values).map(|(start, (end, count))| (*count, &self.buffer[start..*end]))
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }
}

/// How many of the records go into one value: the first of them in any case.
fn fitting(records: &[Record]) -> usize {
    let mut bytes = HEAD;
    let fit = records.iter().take_while(|record| {
        bytes += size_of::<u32>() + size(record);
        bytes <= VALUE_BYTES
    });
    fit.count().max(1)
}

fn size(record: &Record) -> usize {
    1 + record.reply_to.as_ref().map_or(0, |to| to.gateway.len() + size_of::<u64>()) + record.entry.len()
}

fn write(buffer: &mut Vec<u8>, Record { entry, reply_to }: &Record) {
    match reply_to {
        None => buffer.push(0),
        // A name has at most 253 bytes, so its length and one are less than what begins several records.
        Some(ReplyTo { gateway, request }) => {
            buffer.push(u8::try_from(gateway.len() + 1).unwrap_or(u8::MAX));
            buffer.extend_from_slice(gateway.as_bytes());
            buffer.extend_from_slice(&request.to_le_bytes());
        }
    }
    buffer.extend_from_slice(entry);
}

/// The number of records in a value.
pub(super) fn count(value: &[u8]) -> u64 {
    several(value).map_or(1, |(count, _)| u64::from(count))
}

fn several(value: &[u8]) -> Option<(u16, &[u8])> {
    let (count, records) = value.strip_prefix(&SEVERAL)?.split_first_chunk()?;
    Some((u16::from_le_bytes(*count), records))
}

/// Takes the first of several records off; the record and those after it.
fn split(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = records.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// Takes the records up to a place off a value whose last record is behind it: how many they are, and the value without
/// them. Nothing where there are none, or where the value can't be taken apart.
pub(super) fn without(value: &[u8], last: EntryId, until: EntryId) -> Option<(u64, Vec<u8>)> {
    let (count, mut records) = several(value)?;
    let behind = if last.at_ms == until.at_ms { last.seq.checked_sub(until.seq)? } else { return None };
    let gone = count.checked_sub(u16::try_from(behind).ok()?).filter(|gone| *gone > 0)?;
    for _ in 0..gone {
        (_, records) = split(records)?;
    }
    let count = (count - gone).to_le_bytes();
    Some((u64::from(gone), [&SEVERAL[..], &count, records].concat()))
}

/// The records of a value and their ids, in their order.
///
/// # Errors
/// [`LogError::Corrupt`].
pub(super) fn decode(value: &[u8], last: EntryId) -> Result<Vec<(EntryId, Record)>, LogError> {
    let value = Bytes::copy_from_slice(value);
    let Some((count, mut records)) = several(&value) else {
        return Ok(vec![(last, record(&value, &value, None)?)]);
    };
    let mut decoded: Vec<(EntryId, Record)> = Vec::with_capacity(count.into());
    for behind in (0..u64::from(count)).rev() {
        let (first, rest) = split(records).ok_or_else(cut_off)?;
        let seq = last.seq.checked_sub(behind).ok_or_else(cut_off)?;
        let before = decoded.last().and_then(|(_, record)| record.reply_to.as_ref());
        let record = record(&value, first, before.map(|to| &to.gateway))?;
        decoded.push((EntryId { at_ms: last.at_ms, seq }, record));
        records = rest;
    }
    Ok(decoded)
}

/// One record of a value; its gateway is mostly that of the record before it.
fn record(value: &Bytes, bytes: &[u8], known: Option<&Arc<str>>) -> Result<Record, LogError> {
    let (first, rest) = bytes.split_first().ok_or_else(cut_off)?;
    let Some(length) = first.checked_sub(1) else {
        return Ok(Record { entry: value.slice_ref(rest), reply_to: None });
    };
    let (gateway, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(cut_off)?;
    let (request, entry) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let gateway = match known {
        Some(known) if known.as_bytes() == gateway => known.clone(),
        _ => std::str::from_utf8(gateway).map_err(|_| cut_off())?.into(),
    };
    let reply_to = Some(ReplyTo { gateway, request: u64::from_le_bytes(*request) });
    Ok(Record { entry: value.slice_ref(entry), reply_to })
}

fn cut_off() -> LogError {
    LogError::Corrupt("a record is cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize, gateway: Option<&str>) -> Record {
        let reply_to = gateway.map(|gateway| ReplyTo { gateway: gateway.into(), request: bytes as u64 });
        Record { entry: vec![bytes as u8; bytes].into(), reply_to }
    }

    fn id(seq: u64) -> EntryId {
        EntryId { at_ms: 7, seq }
    }

    fn encode(records: &[Record]) -> Vec<(usize, Vec<u8>)> {
        let bytes = records.iter().map(size).sum();
        Encoded::new(records, bytes).values().map(|(count, value)| (count, value.to_vec())).collect()
    }

    #[test]
    fn records_come_back_from_values_that_fit_into_a_page() {
        let long = "g".repeat(253);
        let gateways = [None, Some("gateway-0"), Some("gateway-1"), Some(long.as_str())];
        let sizes = (0..60).chain([3_900, 20, 4_000, 20, 20, 100_000, 0, 0]);
        let records: Vec<Record> = sizes.map(|bytes| record(bytes, gateways[bytes % 4])).collect();
        let mut decoded = Vec::new();
        for (count, value) in encode(&records) {
            let several = decode(&value, id(count as u64)).unwrap();
            assert!(several.len() == 1 || value.len() <= VALUE_BYTES, "{} bytes", value.len());
            assert_eq!(several.len() as u64, super::count(&value));
            decoded.extend(several);
        }
        let wanted = (1..).map(id).zip(records.clone());
        assert!(decoded.into_iter().eq(wanted));
        assert_eq!(Encoded::new(&records, 0).into_records(), records, "the same without the file");
        assert!(encode(&records).len() < records.len() / 4);
    }

    #[test]
    fn a_record_alone_is_laid_out_as_ever() {
        let to = ReplyTo { gateway: "ab".into(), request: 258 };
        let records = [Record { entry: Bytes::from_static(b"xyz"), reply_to: Some(to) }];
        assert_eq!(encode(&records), [(1, b"\x03ab\x02\x01\0\0\0\0\0\0xyz".to_vec())]);
        assert_eq!(encode(&[record(1, None)]), [(1, vec![0, 1])]);
    }

    #[test]
    fn what_an_earlier_version_reads_of_several_is_nonsense_to_it() {
        let value = &encode(&[record(1, None), record(2, None)])[0].1;
        let (length, name) = (usize::from(value[0] - 1), &value[1..]);
        assert!(name.len() < length || std::str::from_utf8(&name[..length]).is_err());
        let long = [value.as_slice(), &[0; 300]].concat();
        assert!(std::str::from_utf8(&long[1..=length]).is_err());
    }

    #[test]
    fn the_records_up_to_a_place_are_taken_off() {
        let records: Vec<Record> = (1..=9).map(|bytes| record(bytes, Some("gateway-0"))).collect();
        let (_, value) = &encode(&records)[0];
        let decoded = decode(value, id(19)).unwrap();
        for until in 11..19 {
            let (gone, rest) = without(value, id(19), id(until)).unwrap();
            assert_eq!(gone, until - 10);
            assert_eq!(decode(&rest, id(19)).unwrap(), decoded[gone as usize..]);
        }
        for before in [id(10), id(3), EntryId { at_ms: 6, seq: 15 }] {
            assert_eq!(without(value, id(19), before), None);
        }
        assert_eq!(without(&value[..HEAD + 2], id(19), id(12)), None, "cut off");
        assert_eq!(without(&[0, 1, 2], id(19), id(18)), None, "one record");
    }

    #[test]
    fn a_value_that_is_cut_off_is_corrupt() {
        let (_, value) = &encode(&[record(5, Some("gateway-0")), record(6, None)])[0];
        for length in 0..value.len() {
            assert!(matches!(decode(&value[..length], id(9)), Err(LogError::Corrupt(_))), "{length} bytes");
        }
        assert!(decode(value, id(0)).is_err(), "more records than ids");
    }
}
