//! The recent past of every indicator: rings of values in memory. A value that is missing isn't there; it is not zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hebb_api::{Aggregation, SAMPLES_MAX};
use jiff::Timestamp;

use crate::time::{after, before, elapsed};

/// Values of one series: twice as many as a window may hold intervals, since two values are half an interval apart at least.
const RING_MAX: usize = 2 * SAMPLES_MAX as usize + 2;
/// Intervals without an observation after which the watching has begun anew.
const GAP_INTERVALS: u32 = 3;
/// A shorter silence than this is no gap, however short the interval is.
const GAP_MIN: Duration = Duration::from_secs(60);

/// A value at a time.
pub type Point = (Timestamp, f64);

/// The past of a policy's targets.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How long each indicator is kept: the longest window that a rule has for it.
    keep: BTreeMap<String, Duration>,
    /// Of values that come closer than this only the newest is kept, however often somebody looks.
    least: Duration,
    /// A silence longer than this is a gap, and a value older than this is not the newest any more.
    gap: Duration,
    targets: BTreeMap<String, Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// Since when there has been no gap.
    since: Timestamp,
    seen: Timestamp,
    series: BTreeMap<String, VecDeque<Point>>,
}

impl History {
    /// Keeps the indicators of `keep`, each so long, for a policy that is evaluated every `interval`.
    pub fn new(interval: Duration, keep: BTreeMap<String, Duration>) -> Self {
        let gap = interval.saturating_mul(GAP_INTERVALS).max(GAP_MIN);
        let keep = keep.into_iter().map(|(indicator, window)| (indicator, window.max(gap))).collect();
        Self { keep, least: interval / 2, gap, targets: BTreeMap::new() }
    }

    /// Takes over the past of a policy whose spec has changed.
    pub fn inherit(&mut self, former: History) {
        self.targets = former.targets;
    }

    /// What was seen of a target. Samples that no rule names and numbers that are none are left out.
    pub fn observe(&mut self, now: Timestamp, target: &str, samples: &BTreeMap<String, f64>) {
        let watched = self.targets.entry(target.to_owned()).or_insert_with(|| Watched {
            since: now,
            seen: now,
            series: BTreeMap::new(),
        });
        // A clock that was set back, and a watcher that was away, both begin anew.
        if now < watched.seen || self.gap < elapsed(now, watched.seen) {
            watched.since = now;
        }
        watched.seen = now;
        watched.series.retain(|indicator, _| self.keep.contains_key(indicator));
        for (indicator, keep) in &self.keep {
            let series = watched.series.entry(indicator.clone()).or_default();
            while series.back().is_some_and(|(at, _)| now <= *at) {
                series.pop_back();
            }
            let oldest = before(now, *keep);
            while series.front().is_some_and(|(at, _)| *at <= oldest) {
                series.pop_front();
            }
            if let Some(value) = samples.get(indicator).filter(|value| value.is_finite()) {
                let before_last = series.len().checked_sub(2).and_then(|place| series.get(place));
                if let (Some((before, _)), Some((last, _))) = (before_last, series.back())
                    && elapsed(*last, *before) < self.least
                {
                    series.pop_back();
                }
                if series.len() == RING_MAX {
                    series.pop_front();
                }
                series.push_back((now, *value));
            }
        }
    }

    /// Forgets every other target.
    pub fn retain(&mut self, targets: &BTreeSet<&str>) {
        self.targets.retain(|target, _| targets.contains(target.as_str()));
    }

    /// The values of the last `window`, oldest first.
    pub fn window(
        &self,
        target: &str,
        indicator: &str,
        now: Timestamp,
        window: Duration,
    ) -> impl Iterator<Item = Point> + Clone + '_ {
        let series = self.targets.get(target).and_then(|watched| watched.series.get(indicator));
        let oldest = before(now, window);
        series.into_iter().flatten().copied().filter(move |(at, _)| oldest < *at && *at <= now)
    }

    /// The newest value, unless it is old.
    pub fn newest(&self, target: &str, indicator: &str, now: Timestamp) -> Option<Point> {
        self.window(target, indicator, now, self.gap).last()
    }

    /// Since when the target has been watched without a gap.
    pub fn watched_since(&self, target: &str, now: Timestamp) -> Option<Timestamp> {
        let watched = self.targets.get(target)?;
        (now <= after(watched.seen, self.gap)).then_some(watched.since)
    }
}

/// A window's values as one; nothing where there are too few of them.
pub fn aggregate(aggregation: Aggregation, points: impl Iterator<Item = Point>) -> Option<f64> {
    let points: Vec<Point> = points.collect();
    if points.is_empty() {
        return None;
    }
    let values = || points.iter().map(|(_, value)| *value);
    match aggregation {
        Aggregation::Avg => Some(mean(values())),
        Aggregation::Min => values().reduce(f64::min),
        Aggregation::Max => values().reduce(f64::max),
        Aggregation::Sum => Some(values().sum()),
        Aggregation::Count => Some(points.len() as f64),
        Aggregation::Rate => rate(&points),
        Aggregation::P50 => Some(percentile(values().collect(), 0.5)),
        Aggregation::P90 => Some(percentile(values().collect(), 0.9)),
        Aggregation::P95 => Some(percentile(values().collect(), 0.95)),
        Aggregation::P99 => Some(percentile(values().collect(), 0.99)),
    }
}

/// The mean of at least one value.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / f64::from(count)
}

/// The increase per second. A counter that fell began again from zero.
fn rate(points: &[Point]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let seconds = elapsed(last.0, first.0).as_secs_f64();
    let increase: f64 = points
        .iter()
        .zip(points.iter().skip(1))
        .map(|((_, earlier), (_, later))| if later < earlier { *later } else { later - earlier })
        .sum();
    (seconds > 0.0).then_some(increase / seconds)
}

/// A percentile by linear interpolation between the two nearest of at least one value.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = share * (values.len() - 1) as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(values.len() - 1);
    values[below] + (values[above] - values[below]) * (rank - rank.floor())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn history(keep: u64) -> History {
        let keep = [("x".to_owned(), Duration::from_secs(keep))].into();
        History::new(Duration::from_secs(15), keep)
    }

    fn sample(value: f64) -> BTreeMap<String, f64> {
        [("x".to_owned(), value)].into()
    }

    fn check(aggregation: Aggregation, values: &[f64], expected: Option<f64>) {
        let points = values.iter().enumerate().map(|(second, value)| (at(second as i64), *value));
        assert_eq!(aggregate(aggregation, points), expected, "{aggregation:?} of {values:?}");
    }

    #[test]
    fn aggregates() {
        let values = [4.0, 1.0, 3.0, 2.0];
        check(Aggregation::Avg, &values, Some(2.5));
        check(Aggregation::Min, &values, Some(1.0));
        check(Aggregation::Max, &values, Some(4.0));
        check(Aggregation::Sum, &values, Some(10.0));
        check(Aggregation::Count, &values, Some(4.0));
        check(Aggregation::P50, &values, Some(2.5));
        check(Aggregation::P90, &[0.0, 10.0], Some(9.0));
        check(Aggregation::P99, &[7.0], Some(7.0));
        check(Aggregation::Rate, &[0.0, 2.0, 4.0], Some(2.0));
        check(Aggregation::Rate, &[5.0, 7.0, 1.0], Some(1.5));
        check(Aggregation::Rate, &[5.0], None);
    }

    #[test]
    fn missing_is_not_zero() {
        for aggregation in [Aggregation::Avg, Aggregation::Sum, Aggregation::Count, Aggregation::Min, Aggregation::P50]
        {
            check(aggregation, &[], None);
        }
        let mut history = history(60);
        history.observe(at(0), "a", &sample(f64::NAN));
        history.observe(at(1), "a", &BTreeMap::new());
        assert_eq!(history.window("a", "x", at(1), Duration::from_secs(60)).count(), 0);
    }

    #[test]
    fn a_window_is_open_at_its_far_end_and_only_what_is_named_is_kept() {
        let mut history = history(30);
        for second in [0, 15, 30, 45] {
            let mut samples = sample(second as f64);
            samples.insert("y".to_owned(), 1.0);
            history.observe(at(second), "a", &samples);
        }
        let values: Vec<f64> =
            history.window("a", "x", at(45), Duration::from_secs(30)).map(|(_, value)| value).collect();
        assert_eq!(values, [30.0, 45.0]);
        assert_eq!(history.window("a", "y", at(45), Duration::from_secs(30)).count(), 0);
    }

    #[test]
    fn looking_more_often_shortens_no_window() {
        let mut history = history(3_600);
        for second in 0..3_600 {
            history.observe(at(second), "a", &sample(second as f64));
        }
        let points: Vec<Point> = history.window("a", "x", at(3_599), Duration::from_secs(3_600)).collect();
        assert!(points.len() <= 3_600 * 2 / 15 + 1, "{}", points.len());
        assert_eq!((points.first().unwrap().1, points.last().unwrap().1), (0.0, 3_599.0));
    }

    #[test]
    fn watching_begins_anew_after_a_gap_and_when_the_clock_goes_back() {
        let mut history = history(600);
        history.observe(at(0), "a", &sample(1.0));
        history.observe(at(50), "a", &BTreeMap::new());
        assert_eq!(history.watched_since("a", at(50)), Some(at(0)));
        assert_eq!(history.newest("a", "x", at(50)), Some((at(0), 1.0)));
        assert_eq!(history.newest("a", "x", at(61)), None);
        history.observe(at(200), "a", &BTreeMap::new());
        assert_eq!(history.watched_since("a", at(200)), Some(at(200)));
        history.observe(at(100), "a", &sample(2.0));
        assert_eq!(history.watched_since("a", at(100)), Some(at(100)));
        assert_eq!(history.watched_since("b", at(100)), None);
    }

    proptest! {
        #[test]
        fn a_ring_is_bounded_and_in_order(steps in proptest::collection::vec((-50i64..200, any::<f64>()), 0..400)) {
            let mut history = history(3_600);
            let mut now = 1_000_000;
            for (step, value) in steps {
                now += step;
                history.observe(at(now), "a", &sample(value));
                let points: Vec<Point> = history.window("a", "x", at(now), Duration::from_secs(3_600)).collect();
                prop_assert!(points.len() <= RING_MAX);
                prop_assert!(points.is_sorted_by(|(earlier, _), (later, _)| earlier < later));
            }
        }
    }
}
