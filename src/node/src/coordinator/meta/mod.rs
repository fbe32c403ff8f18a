//! Meta-learning, driven by the leader: it writes the control entries into the partitions' logs and collects what they report.
//!
//! What it knows is a note in the store, written before anybody is told: the next leader, or the next life of this process,
//! goes on with it.

mod api;
mod state;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hebb_engine::{Control, CycleReport, Entry, Outcome, Partition};
use hebb_log::{Domain, LogError, PartitionKey, Record};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

pub use self::api::{port_router, router};
use self::state::{Cycle, Heard, MetricsSource, State};
use super::Shared;
use super::ask::Asker;
use crate::memory::Memory;
use crate::stop::Stop;

/// How often the leader looks whether a cycle is due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the partitions may take to report; those that didn't are simulated.
const REPORT_WITHIN: Duration = Duration::from_secs(10);
/// A cycle that takes longer hangs, and is given up: half a minute after it counts as stuck, so that rules see it.
const CYCLE_WITHIN: Duration = Duration::from_secs(90);
/// Wait after a cycle that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Partitions of a cycle.
const PARTITIONS_MAX: usize = 1_024;
/// Partitions whose checkpoints are replayed in a cycle, one at a time: the leader's memory is small.
const SIMULATED_MAX: usize = 16;
/// Cycles that a boost is for.
const BOOST_CYCLES: u32 = 5;
/// What clients may have asked for at once: a cycle each, one after the other.
const ASKED_MAX: usize = 16;
/// Name of the note.
const NOTE: &str = "meta-learning";
/// A control entry is never refused for a full queue.
const NO_WAITING_MAX: u64 = u64::MAX;

/// What a coordinator holds of it.
#[derive(Default)]
pub struct Meta {
    /// The state and the term in which it was read; nothing on a follower.
    state: Mutex<Option<(u64, Arc<State>)>>,
    /// Held while the state is changed and stored.
    turn: tokio::sync::Mutex<()>,
    /// Held while a cycle runs.
    cycling: tokio::sync::Mutex<()>,
    /// Since when the present cycle runs.
    since: Mutex<Option<Instant>>,
    /// What clients asked for and is under way; nothing unless cycles are driven.
    asked: Mutex<Option<JoinSet<()>>>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// Another coordinator leads, or none does.
    #[error("this coordinator doesn't lead")]
    NotLeading,
    /// The store is away.
    #[error(transparent)]
    Store(#[from] LogError),
    /// The stored note can't be read, or the new one not written.
    #[error("the note of meta-learning can't be read or written")]
    Note(#[from] serde_json::Error),
    /// It hung.
    #[error("the cycle took longer than {CYCLE_WITHIN:?} and was given up")]
    Stuck,
    /// Too many ask.
    #[error("{ASKED_MAX} are under way already; try again")]
    Busy,
}

impl Meta {
    pub fn state(&self) -> Option<Arc<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, state)| state.clone())
    }

    /// How long the present cycle has run, if one does.
    pub fn running(&self) -> Option<Duration> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn publish(&self, state: Option<(u64, Arc<State>)>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn set_running(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn run(&self, since: Instant) -> Running<'_> {
        self.set_running(Some(since));
        Running(self)
    }

    fn take_requests(&self) -> Requests<'_> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(JoinSet::new());
        Requests(self)
    }

    /// Does what a client asked for to its end, also where the client hangs up meanwhile: half of it would be a cycle that
    /// the partitions ran and nobody remembers.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, MetaError>> + Send + 'static,
    ) -> Result<T, MetaError> {
        let (tell, told) = oneshot::channel();
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = asked.as_mut().ok_or(MetaError::NotLeading)?;
            while asked.try_join_next().is_some() {}
            if asked.len() >= ASKED_MAX {
                return Err(MetaError::Busy);
            }
            asked.spawn(async move {
                // An error says that the client has gone.
                let _ = tell.send(work.await);
            });
        }
        told.await.unwrap_or(Err(MetaError::NotLeading))
    }
}

/// Requests are taken until this is dropped, and what they began ends with it.
struct Requests<'a>(&'a Meta);

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A cycle under way. It ends however its future does.
struct Running<'a>(&'a Meta);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set_running(None);
    }
}

/// Runs the cycles that are due, while this coordinator leads, until the stop.
pub async fn drive(shared: &Shared, mut stop: Stop) {
    let _requests = shared.meta.take_requests();
    while !stop.is_asked() {
        let pause = match step(shared).await {
            Ok(()) => LOOK_EVERY,
            Err(MetaError::NotLeading) => {
                shared.meta.publish(None);
                LOOK_EVERY
            }
            Err(error) => {
                warn!(%error, "meta-learning can't go on; trying again");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = stop.asked() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The indicators of meta-learning. Nothing is told on a follower, and before the leader has read the note.
pub fn indicators(shared: &Shared, own: Memory) -> BTreeMap<String, f64> {
    let running = shared.meta.running();
    let known = shared.meta.state.lock().unwrap_or_else(PoisonError::into_inner);
    known.as_ref().map(|(_, state)| state.indicators(running, own.bytes, Timestamp::now())).unwrap_or_default()
}

async fn step(shared: &Shared) -> Result<(), MetaError> {
    let term = term(shared)?;
    let known = shared.meta.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(term, _)| *term);
    if known != Some(term) {
        let _turn = shared.meta.turn.lock().await;
        let mut state: State = match shared.store.directory.noted(NOTE).await? {
            Some(note) => serde_json::from_slice(&note)?,
            None => State::default(),
        };
        state.take_up(&shared.options.meta, Timestamp::now());
        store(shared, term, state).await?;
    }
    if shared.meta.state().is_some_and(|state| state.is_due(Timestamp::now())) {
        cycle(shared, true).await.map(drop)?;
    }
    Ok(())
}

fn term(shared: &Shared) -> Result<u64, MetaError> {
    let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
    view.leadership.as_ref().filter(|_| view.leads).map(|leadership| leadership.term).ok_or(MetaError::NotLeading)
}

async fn store(shared: &Shared, term: u64, state: State) -> Result<Arc<State>, MetaError> {
    let note = serde_json::to_vec(&state)?;
    match shared.store.directory.note(term, NOTE, &note).await {
        Ok(()) => {
            let state = Arc::new(state);
            shared.meta.publish(Some((term, state.clone())));
            Ok(state)
        }
        Err(LogError::Fenced) => Err(MetaError::NotLeading),
        Err(error) => Err(error.into()),
    }
}

/// Changes the state: stored first, then told.
pub async fn change<T>(shared: &Shared, how: impl FnOnce(&mut State) -> T) -> Result<(T, Arc<State>), MetaError> {
    let _turn = shared.meta.turn.lock().await;
    let known = shared.meta.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (term, known) = known.ok_or(MetaError::NotLeading)?;
    let mut state = (*known).clone();
    let answer = how(&mut state);
    Ok((answer, store(shared, term, state).await?))
}

/// One cycle over all partitions; one at a time.
pub async fn cycle(shared: &Shared, continuous: bool) -> Result<Cycle, MetaError> {
    let _cycling = shared.meta.cycling.lock().await;
    if continuous {
        // First, so that a cycle that ends this process isn't the first thing that the next leader does.
        change(shared, |state| state.went_by(Timestamp::now())).await?;
    }
    let began = Instant::now();
    let running = shared.meta.run(began);
    let heard = tokio::time::timeout(CYCLE_WITHIN, hear(shared)).await;
    drop(running);
    let now = Timestamp::now();
    let Ok(heard) = heard else {
        change(shared, |state| state.stuck_at = Some(now)).await?;
        return Err(MetaError::Stuck);
    };
    let heard = heard?;
    let duration_ms = began.elapsed().as_millis() as u64;
    let record = |state: &mut State| {
        let cycle = state.record(&heard, duration_ms, now);
        let boost = state.wants_boost();
        if boost {
            state.boosted();
        }
        (cycle, boost)
    };
    let ((cycle, wants_boost), _) = change(shared, record).await?;
    info!(
        cycle = cycle.cycle, score = cycle.score, delta = cycle.delta, adopted = cycle.adopted.len(),
        source = ?cycle.metrics_source, milliseconds = duration_ms, "a cycle of meta-learning"
    );
    if wants_boost {
        info!("a plateau: exploration is boosted");
        tell(shared, &Control::Boost { cycles: BOOST_CYCLES }).await?;
    }
    Ok(cycle)
}

/// Boosts exploration, because somebody asks for it.
pub async fn boost(shared: &Shared) -> Result<Arc<State>, MetaError> {
    let ((), state) = change(shared, State::boosted).await?;
    tell(shared, &Control::Boost { cycles: BOOST_CYCLES }).await?;
    Ok(state)
}

/// Forgets what meta-learning has found, here and in the partitions.
pub async fn reset(shared: &Shared) -> Result<Arc<State>, MetaError> {
    tell(shared, &Control::ResetMeta).await?;
    change(shared, State::reset).await.map(|((), state)| state)
}

async fn partitions(shared: &Shared) -> Result<Vec<PartitionKey>, LogError> {
    let domains = shared.store.directory.domains().await?;
    let keys = domains.iter().flat_map(Domain::keys);
    Ok(keys.take(PARTITIONS_MAX).collect())
}

/// Writes a control entry into every partition's log.
async fn tell(shared: &Shared, control: &Control) -> Result<(), LogError> {
    let entry = Bytes::from(Entry::Control(control.clone()).encode());
    for key in partitions(shared).await? {
        let record = Record { entry: entry.clone(), reply_to: None };
        shared.store.log.append(&key, &[record], NO_WAITING_MAX).await?;
    }
    Ok(())
}

/// Has every partition that somebody owns run a cycle; those that don't answer are replayed from their checkpoints.
async fn hear(shared: &Shared) -> Result<Vec<Heard>, MetaError> {
    let mut asker = Asker::new(&shared.store, "meta").await?;
    let entry = Entry::Control(Control::Cycle);
    let mut silent: BTreeMap<u64, PartitionKey> = (0u64..).zip(partitions(shared).await?).collect();
    let mut asked = 0;
    for (request, key) in &silent {
        // An entry that waited for an owner would pile up with those of later cycles.
        if shared.store.log.status(key).await?.owner.is_some() {
            asker.ask(*request, key, &entry, NO_WAITING_MAX).await?;
            asked += 1;
        }
    }
    let mut heard = Vec::new();
    for (request, outcome) in asker.hear(asked, REPORT_WITHIN).await {
        let Some(key) = silent.remove(&request) else { continue };
        if let Outcome::Cycle(report) = outcome {
            heard.push(Heard { partition: key.to_string(), report: *report, source: MetricsSource::Live });
        }
    }
    for key in silent.into_values().take(SIMULATED_MAX) {
        if let Some(report) = simulate(shared, &key).await? {
            heard.push(Heard { partition: key.to_string(), report, source: MetricsSource::Simulated });
        }
    }
    Ok(heard)
}

/// Whether a process with this limit of memory can take in a checkpoint of so many bytes: as it comes and as the partition
/// that is made of it, it takes five times as many.
fn has_room(checkpoint_bytes: u64, limit: Option<u64>) -> bool {
    limit.is_none_or(|limit| checkpoint_bytes <= limit / 8)
}

/// What a cycle would report of a partition's checkpoint. Nothing is kept of it.
async fn simulate(shared: &Shared, key: &PartitionKey) -> Result<Option<CycleReport>, LogError> {
    let bytes = shared.store.log.status(key).await?.checkpoint_bytes;
    if !has_room(bytes, Memory::now().limit) {
        debug!(partition = %key, bytes, "its checkpoint is too large to be replayed here");
        return Ok(None);
    }
    let Some(checkpoint) = shared.store.log.load(key).await? else { return Ok(None) };
    let replay = move || {
        let mut partition = Partition::restore(&checkpoint.state).ok()?;
        let position = partition.position();
        match partition.apply(position, &Entry::Control(Control::Cycle)) {
            Outcome::Cycle(report) => Some(*report),
            _ => None,
        }
    };
    let replayed = tokio::task::spawn_blocking(replay).await;
    Ok(replayed.unwrap_or_else(|error| {
        debug!(partition = %key, %error, "a checkpoint could not be replayed");
        None
    }))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_client_asked_for_goes_on_without_it_and_ends_with_the_role() {
        let meta = Meta::default();
        let nobody = meta.to_its_end(async { Ok(()) }).await;
        assert!(matches!(nobody, Err(MetaError::NotLeading)));
        let requests = meta.take_requests();
        assert_eq!(meta.to_its_end(async { Ok(1) }).await.unwrap(), 1);

        let done = Arc::new(());
        let asked = meta.to_its_end({
            let done = done.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                drop(done);
                Ok(())
            }
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err(), "the client hangs up");
        assert_eq!(Arc::strong_count(&done), 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(Arc::strong_count(&done), 1);

        let held = done.clone();
        let never = meta.to_its_end(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        });
        let (never, ()) = tokio::join!(never, async {
            tokio::task::yield_now().await;
            for _ in 1..ASKED_MAX {
                let _ = meta.to_its_end(std::future::pending::<Result<(), _>>()).now_or_never();
            }
            assert!(matches!(meta.to_its_end(async { Ok(()) }).await, Err(MetaError::Busy)));
            drop(requests);
        });
        assert!(never.is_err());
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&done), 1);
    }

    #[test]
    fn a_checkpoint_that_would_take_the_memory_of_the_coordinator_is_left_alone() {
        let limit = Some(128 << 20);
        assert!(has_room(16 << 20, limit) && !has_room((16 << 20) + 1, limit));
        assert!(has_room(u64::MAX, None), "without a limit nothing is known of what it can take");
    }
}
