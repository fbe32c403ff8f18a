//! The open database. redb refuses everything after an I/O error, such as a full disk, until its file is opened anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError};

use super::tables;

/// What the file may keep in memory; redb's default of 1 GiB is more than a laptop has to spare.
const CACHE_BYTES: usize = 64 << 20;
/// How long reads may go on before the file is given up for now: one takes milliseconds, and a long one seconds.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The file was closed to be opened anew, and that hasn't succeeded yet.
#[derive(Debug, thiserror::Error)]
#[error("the file is closed after an I/O error")]
pub(super) struct Closed;

/// A database that can be opened anew.
pub(super) struct File {
    /// Nothing of a database in memory.
    path: Option<PathBuf>,
    open: RwLock<Option<Arc<Database>>>,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let database = create(path)?;
        Ok(Self { path: Some(path.to_owned()), open: RwLock::new(Some(Arc::new(database))) })
    }

    pub(super) fn in_memory() -> Result<Self, DatabaseError> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(InMemoryBackend::new())?;
        Ok(Self { path: None, open: RwLock::new(Some(Arc::new(database))) })
    }

    /// The database; whoever holds it for long holds up [`File::reopen`].
    pub(super) fn get(&self) -> Result<Arc<Database>, Closed> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Closed)
    }

    /// Closes the file, when nobody reads any more, and opens it anew.
    pub(super) fn reopen(&self) -> Result<(), redb::Error> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = open.take() {
            let deadline = Instant::now() + CLOSE_WITHIN;
            while Arc::strong_count(&database) > 1 {
                if Instant::now() > deadline {
                    *open = Some(database);
                    return Err(redb::Error::PreviousIo);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let database = create(path)?;
        tables::create(&database)?;
        *open = Some(Arc::new(database));
        Ok(())
    }
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).create(path)
}
