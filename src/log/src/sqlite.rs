//! The history of one process: a file of SQLite, which other programs can read while the process runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use crate::{Batch, History, LogError, Samples, Tier, bounds};

/// The file in the directory.
const FILE: &str = "history.sqlite";
/// The layout of the tables.
const VERSION: i64 = 1;
/// How long a write waits for a reader of another process that holds the file.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// The most pages of 4 KiB: 128 MiB, three times what is kept at most, for indexes and half-empty pages.
const PAGES_MAX: u32 = 128 << 8;

const TABLES: &str = "
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE samples (
  span INTEGER NOT NULL, series INTEGER NOT NULL REFERENCES series, at INTEGER NOT NULL,
  count INTEGER NOT NULL, min REAL NOT NULL, max REAL NOT NULL, sum REAL NOT NULL,
  PRIMARY KEY (span, series, at)) WITHOUT ROWID;
CREATE INDEX samples_at ON samples (span, at);
CREATE VIEW history AS
  SELECT name AS series, span AS seconds, datetime(at, 'unixepoch') AS beginning, count, min, max, sum / count AS avg
  FROM samples JOIN series ON series.id = samples.series;
";

/// Why a history can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite says why.
    #[error("can't open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why it can't be opened.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer version has made it.
    #[error("{} has the layout {found}, this version knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
}

/// The history of one process. Clones are the same.
#[derive(Clone)]
pub struct SqliteHistory {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    connection: Connection,
    /// The newest term that has written: whoever led before it is refused. Terms end with the process.
    term: u64,
}

impl SqliteHistory {
    /// Opens the history in a directory that is there, and makes it when it's missing.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn open(directory: &Path) -> Result<Self, HistoryError> {
        let path = directory.join(FILE);
        let opened = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || open(&path)).await
        };
        match opened {
            Ok(opened) => opened.map(|connection| Self { inner: Arc::new(Mutex::new(Inner { connection, term: 0 })) }),
            Err(_) => Err(HistoryError::Open { path, source: rusqlite::Error::InvalidQuery }),
        }
    }

    /// Works with the file on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || step(&mut inner.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.unwrap_or_else(|panic| Err(LogError::unavailable(panic)))
    }
}

fn open(path: &Path) -> Result<Connection, HistoryError> {
    let failed = |source| HistoryError::Open { path: path.to_owned(), source };
    // SQLite would let every user read a file that it makes, and its `-wal` and `-shm` have the mode of the file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A file that is there stays as it is; where none can be made, SQLite says why.
        let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_MAX).map_err(failed)?;
    // A crash of the machine may cost the last seconds of the history, never its file.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    connection.pragma_update(None, "max_page_count", PAGES_MAX).map_err(failed)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match found {
        VERSION => {}
        0 => {
            let made = connection.transaction().and_then(|write| {
                write.execute_batch(TABLES)?;
                write.pragma_update(None, "user_version", VERSION)?;
                write.commit()
            });
            made.map_err(failed)?;
        }
        found => return Err(HistoryError::Version { path: path.to_owned(), found }),
    }
    Ok(connection)
}

impl Inner {
    /// A write in the name of a term, wholly or not at all.
    fn write<T>(
        &mut self,
        term: u64,
        step: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LogError> {
        if term < self.term {
            return Err(LogError::Fenced);
        }
        self.term = term;
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        write
            .and_then(|write| {
                let done = step(&write)?;
                write.commit()?;
                Ok(done)
            })
            .map_err(LogError::unavailable)
    }
}

#[async_trait]
impl History for SqliteHistory {
    async fn record(&self, term: u64, tier: Tier, batch: &Batch) -> Result<(), LogError> {
        bounds::batch(tier, batch)?;
        let batch = batch.clone();
        self.with(move |inner| {
            inner.write(term, |write| {
                let (span, at) = (tier.length(), batch.at);
                write.prepare_cached("DELETE FROM samples WHERE span = ?1 AND at = ?2")?.execute(params![span, at])?;
                let mut name = write.prepare_cached("INSERT OR IGNORE INTO series (name) VALUES (?1)")?;
                let mut samples = write.prepare_cached(
                    "INSERT OR REPLACE INTO samples (span, series, at, count, min, max, sum)
                     SELECT ?1, id, ?2, ?4, ?5, ?6, ?7 FROM series WHERE name = ?3",
                )?;
                for (series, Samples { count, min, max, sum }) in &batch.series {
                    name.execute(params![series])?;
                    samples.execute(params![span, at, series, count, min, max, sum])?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn read(&self, tier: Tier, series: Option<&str>, since: u32, until: u32) -> Result<Vec<Batch>, LogError> {
        let series = series.map(str::to_owned);
        self.with(move |inner| {
            let mut select = inner
                .connection
                .prepare_cached(
                    "SELECT at, name, count, min, max, sum FROM samples JOIN series ON series.id = samples.series
                     WHERE span = ?1 AND at BETWEEN ?2 AND ?3 AND (?4 IS NULL OR name = ?4) ORDER BY at, name",
                )
                .map_err(LogError::unavailable)?;
            let rows = select.query_map(params![tier.length(), since, until, series], |row| {
                let samples = Samples { count: row.get(2)?, min: row.get(3)?, max: row.get(4)?, sum: row.get(5)? };
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, samples))
            });
            let mut batches: Vec<Batch> = Vec::new();
            for row in rows.map_err(LogError::unavailable)? {
                let (at, name, samples) = row.map_err(LogError::unavailable)?;
                match batches.last_mut() {
                    Some(batch) if batch.at == at => batch.series.push((name, samples)),
                    _ => batches.push(Batch { at, series: vec![(name, samples)] }),
                }
            }
            Ok(batches)
        })
        .await
    }

    async fn prune(&self, term: u64, tier: Tier, before: u32) -> Result<u64, LogError> {
        self.with(move |inner| {
            inner.write(term, |write| {
                let span = tier.length();
                let count = "SELECT COUNT(DISTINCT at) FROM samples WHERE span = ?1 AND at < ?2";
                let spans = write.query_row(count, params![span, before], |row| row.get::<_, i64>(0))?;
                write.execute("DELETE FROM samples WHERE span = ?1 AND at < ?2", params![span, before])?;
                write.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM samples)", params![])?;
                Ok(spans.unsigned_abs())
            })
        })
        .await
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_history_is_for_its_user_alone_whatever_its_folder_allows() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let _history = SqliteHistory::open(folder.path()).await.unwrap();
        let modes: Vec<u32> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
            .collect();
        // The file, its -wal and its -shm.
        assert_eq!(modes, [0o600; 3]);
    }
}
