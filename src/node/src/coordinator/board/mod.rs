//! What people look at: the overview, its history, and the page that shows both.
//!
//! The leader takes stock every two seconds. Without a listener that is all that happens: text is made when somebody
//! looks. The history is in memory; where the store keeps one, a new leader goes on from it.

mod alerts;
mod analysis;
mod api;
mod assets;
mod findings;
mod history;
mod kept;
mod looks;
mod overview;
mod quality;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use self::alerts::Alerts;
pub use self::alerts::{AlertNotice, PolicyReport};
pub use self::api::router;
use self::history::History;
pub use self::kept::keep;
use self::looks::Looks;
use self::overview::Observer;
pub use self::overview::{DomainDetail, Node, Overview, Role};
use super::ClusterStatus;
use super::status::Said;
use crate::report::started_at;

/// How often the leader takes stock: five samples a bucket.
const OBSERVE_EVERY: Duration = Duration::from_secs(2);
/// Who may listen to the stream at once: each takes a connection and a frame.
const LISTENERS_MAX: usize = 32;

/// What listeners are told.
#[derive(Clone, Debug, Default)]
enum Frame {
    /// This coordinator doesn't lead, or hasn't looked yet.
    #[default]
    None,
    /// The cluster as of the last look.
    Overview(Arc<Overview>),
    /// The process stops.
    Closed,
}

/// The overview and its history.
pub struct Board {
    state: Mutex<State>,
    frames: watch::Sender<Frame>,
    listeners: Arc<Semaphore>,
    looks: Looks,
}

#[derive(Default)]
struct State {
    observer: Observer,
    history: History,
    alerts: Alerts,
    observed_at: Option<Instant>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            frames: watch::Sender::default(),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            looks: Looks::default(),
        }
    }
}

impl Board {
    /// Takes stock, if it is time to.
    pub fn observe(&self, status: &ClusterStatus, said: &Said<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.observed_at.is_some_and(|at| at.elapsed() < OBSERVE_EVERY) {
            return;
        }
        state.observed_at = Some(Instant::now());
        let now = Timestamp::now().as_millisecond() as f64 / 1e3;
        let mut overview = state.observer.observe(now, status.clone(), said, started_at());
        overview.firing = state.alerts.firing();
        state.history.record(overview.at, &overview);
        self.frames.send_replace(Frame::Overview(Arc::new(overview)));
    }

    /// Events applied a second as of the last look, of all domains; nothing where that isn't known.
    pub fn events_per_second(&self) -> Option<f64> {
        match &*self.frames.borrow() {
            Frame::Overview(overview) => overview.events_per_second,
            Frame::None | Frame::Closed => None,
        }
    }

    /// Another coordinator leads, or nobody knows who does.
    pub fn pause(&self) {
        self.frames.send_if_modified(|frame| {
            let shows = matches!(frame, Frame::Overview(_));
            if shows {
                *frame = Frame::None;
            }
            shows
        });
    }

    /// Ends every stream, so that none holds up the stop.
    pub fn close(&self) {
        self.frames.send_replace(Frame::Closed);
    }
}
