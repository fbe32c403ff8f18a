//! Which requests a queue that fills up refuses first. Pure, but for the counters.
//!
//! A partition's queue has one bound and a mark for each priority below it. A request is admitted while the queue stays
//! within the mark of its priority, so that what is left above the marks is for those of higher priority: a label finds
//! room in a queue that a bulk load has filled.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use prometheus::{IntCounterVec, Opts, Registry};

use super::admission::Admitted;
use super::reply::Failure;

/// The header by which a request says how much it matters.
pub const HEADER: &str = "hebb-priority";

/// How much a request matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Refused first: what can be sent again at any time.
    Low,
    /// What says nothing of itself.
    Normal,
    /// Refused last: a label, unless it says something else.
    High,
}

impl Priority {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The word in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }

    /// Most entries that may wait in a queue of `max` after one of this priority was appended: a half for the low, 95 %
    /// for the normal, everything for the high. At least one wherever `max` is.
    pub fn mark(self, max: u64) -> u64 {
        match self {
            Self::Low => max - max / 2,
            Self::Normal => max - max / 20,
            Self::High => max,
        }
    }
}

impl From<hebb_api::Priority> for Priority {
    fn from(priority: hebb_api::Priority) -> Self {
        match priority {
            hebb_api::Priority::Low => Self::Low,
            hebb_api::Priority::Normal => Self::Normal,
            hebb_api::Priority::High => Self::High,
        }
    }
}

/// What a request says of its priority, and the most that its key may have.
#[derive(Clone, Copy, Debug)]
pub struct Urgency {
    wish: Option<Priority>,
    most: Priority,
}

impl Urgency {
    /// The priority of a request that has `usual` where it says nothing.
    pub fn or(self, usual: Priority) -> Priority {
        self.wish.unwrap_or(usual).min(self.most)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Urgency {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let wish = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) => Some(value.to_str().ok().and_then(Priority::parse).ok_or(Failure::Priority)?),
            (Some(_), Some(_)) => return Err(Failure::Priority),
        };
        let most = parts.extensions.get::<Admitted>().map_or(Priority::High, Admitted::priority_max);
        Ok(Self { wish, most })
    }
}

/// What became of entries, by priority.
#[derive(Clone)]
pub struct QueueMetrics {
    appended: IntCounterVec,
    refused: IntCounterVec,
}

impl QueueMetrics {
    /// # Errors
    /// A metric that can't be registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let appended = IntCounterVec::new(
            Opts::new("hebb_queue_appended_total", "Entries that were appended to a log, by priority"),
            &["priority"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new("hebb_queue_refused_total", "Requests that a full queue refused, by priority"),
            &["priority"],
        )?;
        registry.register(Box::new(appended.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        // A rate can be told only of what was there before.
        for priority in Priority::ALL {
            appended.with_label_values(&[priority.as_str()]);
            refused.with_label_values(&[priority.as_str()]);
        }
        Ok(Self { appended, refused })
    }

    pub fn appended(&self, priority: Priority, count: usize) {
        self.appended.with_label_values(&[priority.as_str()]).inc_by(count as u64);
    }

    pub fn refused(&self, priority: Priority) {
        self.refused.with_label_values(&[priority.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the log decides by: see `Log::append`.
    fn is_admitted(priority: Priority, waiting: u64, count: u64, max: u64) -> bool {
        waiting.saturating_add(count) <= priority.mark(max)
    }

    proptest! {
        #[test]
        fn whoever_matters_more_is_never_refused_where_another_is_admitted(
            waiting in 0u64..3_000, count in 1u64..600, max in 1u64..2_000,
        ) {
            let admitted = Priority::ALL.map(|priority| is_admitted(priority, waiting, count, max));
            prop_assert!(admitted.is_sorted(), "{:?}", admitted);
        }

        #[test]
        fn no_priority_passes_the_bound_and_an_empty_queue_takes_an_entry_of_each(max in 1u64..=1_000_000) {
            for priority in Priority::ALL {
                prop_assert!((1..=max).contains(&priority.mark(max)));
            }
            prop_assert_eq!(Priority::High.mark(max), max);
        }

        #[test]
        fn a_queue_keeps_its_bound_and_the_room_of_the_higher_whoever_comes_in_whatever_order(
            max in 1u64..200, arrivals in prop::collection::vec((0usize..3, 1u64..20, 0u64..15), 1..200),
        ) {
            let mut waiting = 0u64;
            for (priority, count, applied) in arrivals {
                let priority = Priority::ALL[priority];
                let before = waiting;
                if is_admitted(priority, waiting, count, max) {
                    waiting += count;
                }
                prop_assert!(waiting <= max);
                prop_assert!(waiting <= priority.mark(max) || waiting == before);
                waiting = waiting.saturating_sub(applied);
            }
        }
    }

    #[test]
    fn marks_of_the_default_queue() {
        assert_eq!(Priority::ALL.map(|priority| priority.mark(1_000)), [500, 950, 1_000]);
        assert_eq!(Priority::ALL.map(|priority| priority.mark(1)), [1, 1, 1]);
    }

    #[test]
    fn a_key_has_no_higher_priority_than_its_tier_allows() {
        let of = |wish, most| Urgency { wish, most }.or(Priority::High);
        assert_eq!(of(None, Priority::High), Priority::High);
        assert_eq!(of(None, Priority::Normal), Priority::Normal);
        assert_eq!(of(Some(Priority::High), Priority::Low), Priority::Low);
        assert_eq!(of(Some(Priority::Low), Priority::High), Priority::Low);
    }

    #[test]
    fn a_priority_is_one_of_three_words() {
        for priority in Priority::ALL {
            assert_eq!(Priority::parse(priority.as_str()), Some(priority));
        }
        for word in ["", "HIGH", "urgent", "high, low", "1"] {
            assert_eq!(Priority::parse(word), None, "{word:?}");
        }
    }
}
