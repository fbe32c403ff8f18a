//! Quantiles and the mean of times over the last minute, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The window moves on in spans of this length.
const SPAN: Duration = Duration::from_secs(10);
/// A minute of them.
const SPANS: usize = 6;
/// The bound of the first bucket, in seconds.
const FIRST: f64 = 1e-5;
/// Each bucket's bound is that of the one before times this, so that a quantile is at most a tenth too large.
const GROWTH: f64 = 1.1;
/// Buckets up to 40 s, four times as long as a client waits.
const BUCKETS: usize = 160;

/// Times of the last minute.
#[derive(Default)]
pub struct Window(Mutex<VecDeque<Span>>);

struct Span {
    begun: Instant,
    sum: f64,
    counts: [u32; BUCKETS],
}

impl Window {
    /// Takes note of `count` times of `seconds` each.
    pub fn observe(&self, seconds: f64, count: u32) {
        self.observe_at(Instant::now(), seconds, count);
    }

    /// The time that a share `q`, 0 to 1, of the last minute's doesn't exceed, in seconds; nothing where there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.quantile_at(Instant::now(), q)
    }

    /// The mean of the last minute's times, in seconds; nothing where there are none.
    pub fn mean(&self) -> Option<f64> {
        self.mean_at(Instant::now())
    }

    fn observe_at(&self, now: Instant, seconds: f64, count: u32) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.back().is_none_or(|span| now.duration_since(span.begun) >= SPAN) {
            spans.push_back(Span { begun: now, sum: 0.0, counts: [0; BUCKETS] });
            if spans.len() > SPANS {
                spans.pop_front();
            }
        }
        let Some(span) = spans.back_mut() else { return };
        span.sum += seconds.max(0.0) * f64::from(count);
        if let Some(count_of) = span.counts.get_mut(bucket(seconds)) {
            *count_of = count_of.saturating_add(count);
        }
    }

    fn mean_at(&self, now: Instant) -> Option<f64> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || spans.iter().filter(|span| now.duration_since(span.begun) < SPAN * SPANS as u32);
        let count: u64 = recent().flat_map(|span| &span.counts).map(|count| u64::from(*count)).sum();
        (count > 0).then(|| recent().map(|span| span.sum).sum::<f64>() / count as f64)
    }

    fn quantile_at(&self, now: Instant, q: f64) -> Option<f64> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || spans.iter().filter(|span| now.duration_since(span.begun) < SPAN * SPANS as u32);
        let count = |bucket: usize| recent().map(|span| u64::from(span.counts[bucket])).sum::<u64>();
        let total: u64 = (0..BUCKETS).map(count).sum();
        let wanted = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        (0..BUCKETS)
            .find(|bucket| {
                seen += count(*bucket);
                seen >= wanted
            })
            .map(bound)
    }
}

fn bucket(seconds: f64) -> usize {
    if seconds <= FIRST {
        return 0;
    }
    (((seconds / FIRST).ln() / GROWTH.ln()).ceil() as usize).min(BUCKETS - 1)
}

fn bound(bucket: usize) -> f64 {
    FIRST * GROWTH.powi(bucket as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let window = Window::default();
        let began = Instant::now();
        assert_eq!(window.quantile_at(began, 0.5), None);
        window.observe_at(began, 1.0, 1_000);
        window.observe_at(began + Duration::from_secs(30), 0.001, 10);
        assert!(window.quantile_at(began + Duration::from_secs(30), 0.99).is_some_and(|p99| p99 > 0.9));
        assert!(window.quantile_at(began + Duration::from_secs(70), 0.99).is_some_and(|p99| p99 < 0.002));
        assert_eq!(window.quantile_at(began + Duration::from_secs(200), 0.99), None);
        let mean =
            |seconds| window.mean_at(began + Duration::from_secs(seconds)).map(|mean| (mean * 1e6).round() / 1e6);
        assert_eq!((mean(30), mean(70), mean(200)), (Some(0.990_109), Some(0.001), None));
    }

    #[test]
    fn a_time_beyond_all_bounds_is_the_longest() {
        let window = Window::default();
        window.observe(1e9, 1);
        window.observe(f64::NAN, 1);
        window.observe(-1.0, 1);
        assert!(window.quantile(1.0).is_some_and(|longest| longest > 30.0));
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_tenth_too_large(mut times in prop::collection::vec(1e-4..10.0f64, 1..300), q in 0.01..1.0f64) {
            let window = Window::default();
            for time in &times {
                window.observe(*time, 1);
            }
            times.sort_by(f64::total_cmp);
            let exact = times[((times.len() as f64 * q).ceil() as usize).max(1) - 1];
            let found = window.quantile(q).unwrap();
            prop_assert!(exact * 0.999 <= found && found <= exact * GROWTH * 1.001, "{} for {}", found, exact);
        }
    }
}
