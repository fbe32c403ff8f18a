//! Backups of learned state: one file holds every domain and the exact state of every partition.
//!
//! [`take`] reads a store and never claims anything, so it disturbs no owner. [`restore()`] fills a store that holds nothing,
//! and goes on where an earlier run of it broke off. Neither knows which store it is.

mod folder;
mod format;
mod restore;
mod take;

pub use self::folder::{FolderError, Found, Summary, check, choose, list, prune};
pub use self::format::{FormatError, Head, PartitionHead, VERSION};
pub use self::restore::{RestoreError, restore};
pub use self::take::{TakeError, take};
