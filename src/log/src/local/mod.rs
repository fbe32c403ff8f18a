//! The stores of one process: one redb file in a directory, or in memory.
//! What ends with the process lives in memory: leases, progress, replies, members, the leader and its assignment.

mod directory;
mod file;
mod fresh;
mod layout;
mod log;
mod pieces;
mod replies;
mod state;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, DatabaseError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::directory::Office;
use self::file::File;
use self::replies::Switchboard;
use self::state::State;
use self::tables::Tables;
use self::writer::{Job, Writer};
use crate::{Durability, LogError};

/// The file in the directory.
const FILE: &str = "hebb.redb";
/// How long a write waits: for the batches before it, and for a disk that takes seconds to answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How a local store keeps what it's given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalConfig {
    /// [`Durability::Async`] loses up to a second in a crash of the process. redb has nothing between that and a synced
    /// commit, so [`Durability::EverySecond`] syncs each commit, as [`Durability::Always`] does: it loses nothing, and
    /// appends at the same time share one. [`Durability::Replicated`] is refused.
    pub durability: Durability,
}

/// Why a local store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One process has no replicas.
    #[error("a local store has no replicas; use Redis for replicated durability")]
    Replicated,
    /// The file is locked.
    #[error("another process has {} open", .0.display())]
    InUse(PathBuf),
    /// The directory or the file can't be made.
    #[error("can't create {}", path.display())]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// Why it wasn't.
        source: std::io::Error,
    },
    /// The file isn't what it should be, or can't be read.
    #[error("can't open the database")]
    Database(#[source] Box<redb::Error>),
    /// The file holds what this version can't read.
    #[error("can't load the database")]
    Load(#[source] LogError),
    /// There is no thread for writing.
    #[error("can't start the writer")]
    Thread(#[source] std::io::Error),
}

/// The log, the replies and the directory of one process. Clones are the same store; dropping the last one writes and
/// syncs what is outstanding.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<File>,
    state: Arc<Mutex<State>>,
    writer: Writer,
    switchboard: Mutex<Switchboard>,
    office: Mutex<Office>,
    /// A commit has pieces of one state at most, and whoever has some comes to its turn.
    turns: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// Opens the store in a directory, which is made when it's missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(directory: impl Into<PathBuf>, config: LocalConfig) -> Result<Self, OpenError> {
        let directory = directory.into();
        // Opening a file after a crash reads it all.
        match tokio::task::spawn_blocking(move || Self::open_blocking(&directory, config)).await {
            Ok(opened) => opened,
            Err(error) => Err(OpenError::Thread(std::io::Error::other(error))),
        }
    }

    fn open_blocking(directory: &Path, config: LocalConfig) -> Result<Self, OpenError> {
        let synced = match config.durability {
            Durability::Async => false,
            Durability::EverySecond | Durability::Always => true,
            Durability::Replicated { .. } => return Err(OpenError::Replicated),
        };
        create_private(directory).map_err(|source| OpenError::Create { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        create_private_file(&path).map_err(|source| OpenError::Create { path: path.clone(), source })?;
        Self::start(
            File::open(&path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path),
                error => OpenError::Database(Box::new(error.into())),
            })?,
            synced,
        )
    }

    /// A store that ends with the process, for demonstrations and tests.
    ///
    /// # Errors
    /// [`OpenError::Thread`].
    pub fn in_memory() -> Result<Self, OpenError> {
        let file = File::in_memory().map_err(|error| OpenError::Database(Box::new(error.into())))?;
        Self::start(file, false)
    }

    fn start(file: File, synced: bool) -> Result<Self, OpenError> {
        let mut state = State::default();
        {
            let database = file.get().map_err(|closed| OpenError::Load(LogError::unavailable(closed)))?;
            tables::create(&database).map_err(|error| OpenError::Database(Box::new(error)))?;
            state.reload(&database).map_err(OpenError::Load)?;
            tables::sweep(&database, &state).map_err(|error| OpenError::Database(Box::new(error)))?;
        }
        let (file, state) = (Arc::new(file), Arc::new(Mutex::new(state)));
        let writer = Writer::start(Arc::clone(&file), Arc::clone(&state), synced).map_err(OpenError::Thread)?;
        Ok(Self {
            inner: Arc::new(Inner {
                file,
                state,
                writer,
                switchboard: Mutex::default(),
                office: Mutex::default(),
                turns: Arc::default(),
            }),
        })
    }

    /// Has the writer do a step in its next commit. The inner result is the step's answer; it may have written only
    /// where that is good. The outer one undoes the whole commit.
    async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tables<'_>, &Mutex<State>) -> Result<Result<T, LogError>, redb::Error> + Send + 'static,
    ) -> Result<T, LogError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |tables, state| {
            let answer = step(tables, state)?;
            // Who stopped waiting doesn't want the answer.
            Ok(Box::new(move |committed| drop(sender.send(committed.and(answer)))))
        });
        let written = async {
            self.inner.writer.submit(job).await?;
            receiver.await.unwrap_or_else(|_| Err(LogError::unavailable(Stopped)))
        };
        timeout(WRITE_DEADLINE, written).await.unwrap_or_else(|_| Err(LogError::unavailable(Slow)))
    }

    /// Reads on a thread that may block.
    async fn read_blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Database) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let file = Arc::clone(&self.inner.file);
        let read = move || step(&*file.get().map_err(LogError::unavailable)?);
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            Err(error) => Err(LogError::unavailable(error)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the writer undid the batch or has stopped")]
struct Stopped;

#[derive(Debug, thiserror::Error)]
#[error("the disk didn't answer within {WRITE_DEADLINE:?}")]
struct Slow;

#[cfg(unix)]
fn create_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)
}

fn create_private_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Claimed, EntryId, Log, PartitionKey, Record};

    #[tokio::test]
    async fn nothing_is_written_while_the_file_cannot_be_read_again() {
        let store = LocalStore::in_memory().unwrap();
        let key = PartitionKey { domain: "unread".to_owned(), index: 0 };
        let claim = async || store.claim(&key, "worker-0", None, Duration::ZERO).await;
        assert!(matches!(claim().await, Ok(Claimed::New(claim)) if claim.epoch == 1));
        let unreadable = store.write(|tables, _| {
            tables.partitions.insert("no partition's name", 99)?;
            Ok(Ok(()))
        });
        unreadable.await.unwrap();
        assert!(matches!(claim().await, Ok(Claimed::New(claim)) if claim.epoch == 2));
        let failed = store.write(|_, _| Err::<Result<(), LogError>, _>(redb::Error::ValueTooLarge(0))).await;
        assert!(matches!(failed, Err(LogError::Unavailable(_))));
        for _ in 0..2 {
            assert!(matches!(claim().await, Err(LogError::Unavailable(_))));
        }
    }

    #[tokio::test]
    async fn what_a_failed_commit_had_is_not_read_and_what_comes_after_it_is() {
        let store = LocalStore::in_memory().unwrap();
        let key = PartitionKey { domain: "failed".to_owned(), index: 0 };
        let records = |name: &str| -> Vec<Record> {
            (0..3).map(|n| Record { entry: format!("{name}-{n}").into(), reply_to: None }).collect()
        };
        let before = store.append(&key, &records("before"), 100).await.unwrap();
        // What comes while the writer is busy shares the next commit.
        let ((begin, begun), (release, released)) = (oneshot::channel(), std::sync::mpsc::channel());
        let writing = store.clone();
        let busy = tokio::spawn(async move {
            let step = move |_: &mut Tables<'_>, _: &Mutex<State>| {
                begin.send(()).unwrap();
                released.recv().unwrap();
                Ok(Ok(()))
            };
            writing.write(step).await
        });
        begun.await.unwrap();
        let lost = records("lost");
        let lost = store.append(&key, &lost, 100);
        let failing = store.write(|_, _| Err::<Result<(), LogError>, _>(redb::Error::ValueTooLarge(0)));
        let released = async {
            tokio::task::yield_now().await;
            release.send(()).unwrap();
        };
        let (lost, failing, ()) = tokio::join!(lost, failing, released);
        busy.await.unwrap().unwrap();
        assert!(matches!((lost, failing), (Err(LogError::Unavailable(_)), Err(LogError::Unavailable(_)))));

        let after = store.append(&key, &records("after"), 100).await.unwrap();
        let ids = [before, after].concat();
        let wanted: Vec<_> = ids.iter().copied().zip([records("before"), records("after")].concat()).collect();
        // From memory and from the file.
        for known in [3, 0, 6, 1] {
            let place = if known == 0 { EntryId::default() } else { ids[known - 1] };
            assert_eq!(store.read(&key, place, 100, Duration::ZERO).await.unwrap(), wanted[known..]);
        }
        assert_eq!(store.status(&key).await.unwrap().length, 6);
    }
}
