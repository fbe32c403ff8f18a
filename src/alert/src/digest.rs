//! Digests that are the same in every process and version: what they name is kept over restarts.

use sha2::{Digest, Sha256};

/// The first eight bytes of a digest of `parts`, in hexadecimal digits. The parts' lengths count, so no two lists look alike.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let number = number(parts);
    format!("{number:016x}")
}

/// The first eight bytes of a digest of `parts`.
pub(crate) fn number<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_pinned_and_knows_where_a_part_ends() {
        assert_eq!(digest(["a", "b"]), "3c9d591045bc8876");
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_ne!(digest(["a"]), digest(["a", ""]));
    }
}
