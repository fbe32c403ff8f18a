//! The file: a magic word, a version, blocks, and a SHA-256 of all of it at the end.
//!
//! A block is a kind, a length and a body. The head comes first, then the domains, then each partition with its state. A
//! reader hands blocks out before it has seen the end, so whoever acts on them reads the file twice.

use std::io::{Read, Write};

use hebb_log::{Domain, EntryId, MAX_STATE_BYTES};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"HEBBBKUP";
/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Bytes of a block that is no state: a domain's configuration has some hundred.
const BLOCK_MAX: usize = 1 << 20;
/// Bytes of a SHA-256.
const SUM: usize = 32;

const HEAD: u8 = 1;
const DOMAIN: u8 = 2;
const PARTITION: u8 = 3;
const STATE: u8 = 4;
const END: u8 = 5;

/// Bytes that are no backup, or none that this version reads.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It doesn't begin like one.
    #[error("it is no backup of Hebb")]
    NotABackup,
    /// Written by a newer version.
    #[error(
        "it has version {found}, this program reads up to {VERSION}; use the program that wrote it, or a newer one"
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// Cut short, changed, or put together wrongly.
    #[error("it is corrupt: {0}")]
    Corrupt(String),
    /// The file can't be read or written.
    #[error("it can't be read or written")]
    Io(#[from] std::io::Error),
}

impl FormatError {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

/// Whose state it is, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The cluster's name in the store.
    pub cluster: String,
    /// When the backup began: it holds everything that was acknowledged before.
    pub created_at: Timestamp,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionHead {
    /// The domain's name.
    pub domain: String,
    /// The partition's number within it.
    pub index: u32,
    /// The last entry that the state contains.
    pub position: EntryId,
    /// Events that were applied.
    pub events: u64,
    /// The sum of the digests of their ids.
    pub applied_digest: u64,
    /// SHA-256 of the state, in hexadecimal digits: equal for equal states.
    pub digest: String,
}

/// What a file is made of.
#[derive(Debug, PartialEq)]
pub enum Block {
    Domain(Domain),
    Partition(PartitionHead, Vec<u8>),
}

/// SHA-256 in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file from its beginning to its end.
pub struct Writer<W> {
    inner: W,
    sum: Sha256,
}

impl<W: Write> Writer<W> {
    pub fn begin(inner: W, head: &Head) -> Result<Self, FormatError> {
        let mut writer = Self { inner, sum: Sha256::new() };
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.json(HEAD, head)?;
        Ok(writer)
    }

    pub fn domain(&mut self, domain: &Domain) -> Result<(), FormatError> {
        self.json(DOMAIN, domain)
    }

    pub fn partition(&mut self, head: &PartitionHead, state: &[u8]) -> Result<(), FormatError> {
        self.json(PARTITION, head)?;
        self.block(STATE, state)
    }

    pub fn end(mut self) -> Result<W, FormatError> {
        let sum = self.sum.clone().finalize();
        self.block(END, &sum)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) -> Result<(), FormatError> {
        let body = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        self.block(kind, &body)
    }

    fn block(&mut self, kind: u8, body: &[u8]) -> Result<(), FormatError> {
        self.put(&[kind])?;
        self.put(&(body.len() as u64).to_le_bytes())?;
        self.put(body)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.sum.update(bytes);
        Ok(self.inner.write_all(bytes)?)
    }
}

/// Reads a file block by block; an end without an error says that nothing of it was changed.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    sum: Sha256,
    head: Head,
}

impl<R: Read> Reader<R> {
    pub fn open(inner: R) -> Result<Self, FormatError> {
        let head = Head { cluster: String::new(), created_at: Timestamp::UNIX_EPOCH };
        let mut reader = Self { inner, sum: Sha256::new(), head };
        let mut magic = [0; 8];
        reader.get(&mut magic)?;
        if magic != MAGIC {
            return Err(FormatError::NotABackup);
        }
        let mut version = [0; 4];
        reader.get(&mut version)?;
        let found = u32::from_le_bytes(version);
        if found > VERSION {
            return Err(FormatError::Version { found });
        }
        if found == 0 {
            return Err(FormatError::corrupt("there is no version 0"));
        }
        reader.head = match reader.block()? {
            (HEAD, body) => json(&body)?,
            _ => return Err(FormatError::corrupt("its head is missing")),
        };
        Ok(reader)
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next block; nothing once the end was reached and is right.
    pub fn next(&mut self) -> Result<Option<Block>, FormatError> {
        let before = self.sum.clone().finalize();
        match self.block()? {
            (DOMAIN, body) => Ok(Some(Block::Domain(json(&body)?))),
            (PARTITION, body) => {
                let head: PartitionHead = json(&body)?;
                let (STATE, state) = self.block()? else {
                    return Err(FormatError::corrupt(format!(
                        "the state of {}/{} is missing",
                        head.domain, head.index
                    )));
                };
                Ok(Some(Block::Partition(head, state)))
            }
            (END, sum) => {
                if sum != before[..] {
                    return Err(FormatError::corrupt("its checksum is not what its end says"));
                }
                if self.inner.read(&mut [0])? != 0 {
                    return Err(FormatError::corrupt("something follows its end"));
                }
                Ok(None)
            }
            (kind, _) => Err(FormatError::corrupt(format!("a block of kind {kind}"))),
        }
    }

    fn block(&mut self) -> Result<(u8, Vec<u8>), FormatError> {
        let mut head = [0; 9];
        self.get(&mut head)?;
        let [kind, length @ ..] = head;
        let max = match kind {
            STATE => MAX_STATE_BYTES,
            END => SUM,
            _ => BLOCK_MAX,
        };
        let length = usize::try_from(u64::from_le_bytes(length)).ok().filter(|length| *length <= max);
        let length = length.ok_or_else(|| FormatError::corrupt("a block is longer than allowed"))?;
        let mut body = Vec::new();
        // Not allocated by what the file says: that may be wrong.
        let read = (&mut self.inner).take(length as u64).read_to_end(&mut body)?;
        if read < length {
            return Err(cut());
        }
        self.sum.update(&body);
        Ok((kind, body))
    }

    fn get(&mut self, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => cut(),
            _ => FormatError::Io(error),
        })?;
        self.sum.update(bytes);
        Ok(())
    }
}

fn cut() -> FormatError {
    FormatError::corrupt("it is cut short")
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(body).map_err(|error| FormatError::corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use hebb_engine::{PartitionConfig, Task};
    use proptest::prelude::*;

    use super::*;

    fn file(states: &[Vec<u8>]) -> Vec<u8> {
        let head = Head { cluster: "ns.demo".to_owned(), created_at: Timestamp::UNIX_EPOCH };
        let mut writer = Writer::begin(Vec::new(), &head).unwrap();
        let config = PartitionConfig { seed: u64::MAX, ..PartitionConfig::new(Task::Regression) };
        writer.domain(&Domain { name: "d".to_owned(), partitions: states.len() as u32, config }).unwrap();
        for (index, state) in states.iter().enumerate() {
            writer.partition(&partition(index as u32, state), state).unwrap();
        }
        writer.end().unwrap()
    }

    fn partition(index: u32, state: &[u8]) -> PartitionHead {
        let position = EntryId { at_ms: u64::MAX, seq: 1 };
        let digest = digest(state);
        PartitionHead { domain: "d".to_owned(), index, position, events: 7, applied_digest: u64::MAX - 1, digest }
    }

    fn read(bytes: &[u8]) -> Result<Vec<Block>, FormatError> {
        let mut reader = Reader::open(bytes)?;
        let mut blocks = Vec::new();
        while let Some(block) = reader.next()? {
            blocks.push(block);
        }
        Ok(blocks)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_any_change_of_it_is_refused(
            states in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4),
            place: prop::sample::Index, bits in 1..=u8::MAX, more: u8,
        ) {
            let bytes = file(&states);
            let blocks = read(&bytes).unwrap();
            prop_assert_eq!(blocks.len(), 1 + states.len());
            for (index, state) in states.iter().enumerate() {
                let wanted = Block::Partition(partition(index as u32, state), state.clone());
                prop_assert_eq!(&blocks[1 + index], &wanted);
            }
            let mut changed = bytes.clone();
            changed[place.index(bytes.len())] ^= bits;
            prop_assert!(read(&changed).is_err(), "a changed byte");
            prop_assert!(read(&bytes[..place.index(bytes.len())]).is_err(), "a cut file");
            let longer = [bytes, vec![more]].concat();
            prop_assert!(read(&longer).is_err(), "a file that goes on");
        }
    }

    #[test]
    fn each_byte_of_a_file_is_guarded() {
        let bytes = file(&[b"a state".to_vec()]);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(read(&changed).is_err(), "byte {place} of {}", bytes.len());
            assert!(read(&bytes[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_says_so() {
        let mut bytes = file(&[]);
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, FormatError::Version { found: 2 }), "{error}");
        assert!(matches!(read(b"something else altogether"), Err(FormatError::NotABackup)));
    }
}
