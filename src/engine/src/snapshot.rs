//! States as bytes: a head with magic, version, length and checksum, then the state.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Stored bytes that are no state.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Cut short, changed or not a snapshot at all.
    #[error("the snapshot is corrupt: {0}")]
    Corrupt(String),
    /// Written by a newer version.
    #[error(
        "the snapshot has version {found}, this engine reads up to {supported}; run the version that wrote it, or a newer one"
    )]
    Version {
        /// The snapshot's version.
        found: u16,
        /// The newest that this engine reads.
        supported: u16,
    },
}

const MAGIC: [u8; 4] = *b"HEBB";
/// The version of snapshots that is written, and the newest that is read.
pub const VERSION: u16 = 5;
/// Magic, version, length, checksum.
const HEAD: usize = 4 + 2 + 8 + 8;

/// FNV-1a over words of 64 bits, then over the rest: fast enough for states of megabytes.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        let word = word.iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 32)
}

/// A state with its head.
pub fn write(state: &impl Serialize) -> Vec<u8> {
    // Writing plain data to a growable buffer has no way to fail.
    let body = postcard::to_stdvec(state).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(checksum(&body).to_le_bytes());
    bytes.extend(body);
    bytes
}

fn corrupt(what: &str) -> SnapshotError {
    SnapshotError::Corrupt(what.to_owned())
}

fn head(bytes: &[u8]) -> Result<&[u8; HEAD], SnapshotError> {
    let head = bytes.first_chunk::<HEAD>().ok_or_else(|| corrupt("it is shorter than its head"))?;
    if head[..4] != MAGIC {
        return Err(corrupt("it doesn't begin like one"));
    }
    Ok(head)
}

/// The version of a snapshot, whether this engine can read it or not.
///
/// # Errors
/// [`SnapshotError::Corrupt`] when the bytes don't begin like a snapshot.
pub fn version_of(bytes: &[u8]) -> Result<u16, SnapshotError> {
    head(bytes).map(|head| u16::from_le_bytes([head[4], head[5]]))
}

/// The version of a snapshot and the bytes of its state, when its head is right.
pub fn open(bytes: &[u8]) -> Result<(u16, &[u8]), SnapshotError> {
    let head = head(bytes)?;
    let number =
        |from: usize| head[from..from + 8].iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
    let version = version_of(bytes)?;
    if version > VERSION {
        return Err(SnapshotError::Version { found: version, supported: VERSION });
    }
    let body = &bytes[HEAD..];
    if number(6) != body.len() as u64 {
        return Err(corrupt("its length is not what its head says"));
    }
    if number(14) != checksum(body) {
        return Err(corrupt("its checksum is not what its head says"));
    }
    Ok((version, body))
}

/// The state that the bytes are, in the layout of one version.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, SnapshotError> {
    postcard::from_bytes(body).map_err(|error| SnapshotError::Corrupt(error.to_string()))
}
