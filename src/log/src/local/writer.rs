//! The one thread that writes: everything that queued up while the disk was busy goes into the next commit.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Durability;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::file::File;
use super::state::State;
use super::tables::Tables;
use super::{Stopped, lock};
use crate::LogError;

/// Steps that share one commit; a thousand appends of one record are some milliseconds of work.
const MAX_JOBS: usize = 1024;
/// How long unsynced commits stay unsynced.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// Answers the caller once the commit has succeeded or failed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), LogError>) + Send>;
/// One step of a commit.
pub(super) type Job = Box<dyn FnOnce(&mut Tables<'_>, &Mutex<State>) -> Result<Answer, redb::Error> + Send>;

#[derive(Clone, Debug, thiserror::Error)]
#[error("the commit failed: {0}")]
struct Failed(String);

/// The thread and its queue; dropping it waits until the queue is written.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(file: Arc<File>, state: Arc<Mutex<State>>, synced: bool) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(MAX_JOBS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let desk = Desk { file, state, synced, stale: false, broken: false };
        let thread =
            std::thread::Builder::new().name("hebb-log".to_owned()).spawn(move || runtime.block_on(desk.work(jobs)))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) async fn submit(&self, job: Job) -> Result<(), LogError> {
        let Some(queue) = &self.queue else {
            return Err(LogError::unavailable(Stopped));
        };
        queue.send(job).await.map_err(|_| LogError::unavailable(Stopped))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the writer has panicked");
        }
    }
}

struct Desk {
    file: Arc<File>,
    state: Arc<Mutex<State>>,
    synced: bool,
    /// A commit failed and the state hasn't been read again since.
    stale: bool,
    /// The file couldn't be read or written, and hasn't been opened anew since.
    broken: bool,
}

impl Desk {
    async fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        let mut sync_at: Option<Instant> = None;
        loop {
            let received = match sync_at {
                None => jobs.recv_many(&mut batch, MAX_JOBS).await,
                Some(at) => match timeout_at(at, jobs.recv_many(&mut batch, MAX_JOBS)).await {
                    Ok(received) => received,
                    Err(_) => {
                        sync_at = None;
                        self.sync();
                        continue;
                    }
                },
            };
            if received == 0 {
                break;
            }
            self.commit(batch.drain(..));
            if !self.synced {
                // A steady stream of jobs must not put it off for ever.
                let at = *sync_at.get_or_insert_with(|| Instant::now() + SYNC_PERIOD);
                if at <= Instant::now() {
                    sync_at = None;
                    self.sync();
                }
            }
        }
        if sync_at.is_some() {
            self.sync();
        }
    }

    fn commit(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut answers = Vec::new();
        let committed = self.try_commit(jobs, &mut answers).map_err(|error| {
            error!(%error, "a commit failed and was undone");
            self.failed(&error);
            Failed(error.to_string())
        });
        for answer in answers {
            answer(committed.clone().map_err(LogError::unavailable));
        }
    }

    fn try_commit(&mut self, jobs: impl Iterator<Item = Job>, answers: &mut Vec<Answer>) -> Result<(), redb::Error> {
        if self.broken {
            self.file.reopen()?;
            self.broken = false;
            info!("the file is open again after an I/O error");
        }
        let database = self.file.get().map_err(std::io::Error::other)?;
        if self.stale {
            // Who doesn't know what the file holds would give out epochs twice, and remove what belongs to a checkpoint.
            lock(&self.state).reload(&database).map_err(std::io::Error::other)?;
            self.stale = false;
        }
        let mut write = database.begin_write()?;
        let mut tables = Tables::open(&write)?;
        for job in jobs {
            answers.push(job(&mut tables, &self.state)?);
        }
        let (effects, is_synced) = (std::mem::take(&mut tables.effects), tables.is_synced);
        drop(tables);
        if !self.synced && !is_synced {
            write.set_durability(Durability::None)?;
        }
        write.commit()?;
        lock(&self.state).settle(effects);
        Ok(())
    }

    fn failed(&mut self, error: &redb::Error) {
        self.stale = true;
        lock(&self.state).doubt();
        self.broken |= matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo);
    }

    /// A synced commit brings the unsynced ones before it to the disk.
    fn sync(&mut self) {
        let sync = || Ok::<_, redb::Error>(self.file.get().map_err(std::io::Error::other)?.begin_write()?.commit()?);
        if let Err(error) = sync() {
            error!(%error, "what was written in the last second isn't on the disk");
            self.failed(&error);
        }
    }
}
