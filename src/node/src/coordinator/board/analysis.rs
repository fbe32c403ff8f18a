//! What buckets tell: how they are spread, where they go, and which stand out.

use serde::Serialize;

use super::history::{Bucket, Metric};

/// How many standard deviations from the mean a bucket is when it stands out.
pub const ANOMALY_Z: f64 = 2.0;
/// Fewer buckets say nothing about spread or direction.
const POINTS_MIN: usize = 8;
/// Anomalies of one answer: those that stand out most.
const ANOMALIES_MAX: usize = 100;
/// The least share of the variance that a line must explain to be called a trend.
const TREND_R2_MIN: f64 = 0.25;

/// Minimum, maximum and mean are of the samples; the rest is of the buckets' values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many samples.
    pub count: u64,
    /// The smallest sample.
    pub min: f64,
    /// The greatest sample.
    pub max: f64,
    /// The mean of the samples; of what adds up, the mean of the buckets.
    pub avg: f64,
    /// The standard deviation of the buckets.
    pub stddev: f64,
    /// The median of the buckets.
    pub p50: f64,
    /// The value that 95 % of the buckets don't exceed.
    pub p95: f64,
    /// The value that 99 % of the buckets don't exceed.
    pub p99: f64,
    /// The newest bucket.
    pub last: f64,
}

/// A bucket that stands out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Anomaly {
    /// Its beginning in seconds since 1970.
    pub at: u32,
    /// Its value.
    pub value: f64,
    /// How many standard deviations it is above the mean, or below.
    pub z: f64,
}

/// Where a series goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Up.
    Rising,
    /// Down.
    Falling,
    /// Neither, or too scattered to tell.
    Steady,
}

/// The line of least squares through the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trend {
    /// By how much it rises in an hour.
    pub per_hour: f64,
    /// The share of the variance that it explains, 0 to 1.
    pub r2: f64,
    /// Where it is an hour after the newest bucket, within what the metric can be.
    pub in_an_hour: f64,
    /// What that means.
    pub direction: Direction,
}

/// How the buckets are spread; nothing without any.
pub fn summary(metric: Metric, buckets: &[Bucket]) -> Option<Summary> {
    let values: Vec<f64> = buckets.iter().map(|bucket| bucket.value(metric)).collect();
    let last = *values.last()?;
    let count: u64 = buckets.iter().map(|bucket| u64::from(bucket.count)).sum();
    let sum: f64 = buckets.iter().map(|bucket| f64::from(bucket.sum)).sum();
    let (mean, stddev) = spread(&values);
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| sorted[((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1];
    Some(Summary {
        count,
        min: buckets.iter().map(|bucket| f64::from(bucket.min)).fold(f64::INFINITY, f64::min),
        max: buckets.iter().map(|bucket| f64::from(bucket.max)).fold(f64::NEG_INFINITY, f64::max),
        avg: if metric.adds_up() { mean } else { sum / count.max(1) as f64 },
        stddev,
        p50: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
        last,
    })
}

/// The buckets whose z-score is 2 or more, in the order of time; the greatest hundred where there are more.
pub fn anomalies(metric: Metric, buckets: &[Bucket]) -> Vec<Anomaly> {
    let values: Vec<f64> = buckets.iter().map(|bucket| bucket.value(metric)).collect();
    let (mean, stddev) = spread(&values);
    // Samples are kept in single precision: what differs by less than that is the same.
    if values.len() < POINTS_MIN || stddev <= mean.abs() * f64::from(f32::EPSILON) {
        return Vec::new();
    }
    let mut found: Vec<Anomaly> = buckets
        .iter()
        .zip(&values)
        .map(|(bucket, value)| Anomaly { at: bucket.at, value: *value, z: (value - mean) / stddev })
        .filter(|anomaly| ANOMALY_Z <= anomaly.z.abs())
        .collect();
    found.sort_by(|a, b| b.z.abs().total_cmp(&a.z.abs()));
    found.truncate(ANOMALIES_MAX);
    found.sort_by_key(|anomaly| anomaly.at);
    found
}

/// Where the buckets go; nothing where there are too few.
pub fn trend(metric: Metric, buckets: &[Bucket]) -> Option<Trend> {
    let last = f64::from(buckets.last()?.at);
    if buckets.len() < POINTS_MIN {
        return None;
    }
    let hours: Vec<f64> = buckets.iter().map(|bucket| (f64::from(bucket.at) - last) / 3600.0).collect();
    let values: Vec<f64> = buckets.iter().map(|bucket| bucket.value(metric)).collect();
    let (mean_hours, spread_hours) = spread(&hours);
    let (mean, stddev) = spread(&values);
    let products = hours.iter().zip(&values).map(|(hour, value)| (hour - mean_hours) * (value - mean));
    let covariance = products.sum::<f64>() / buckets.len() as f64;
    // Buckets differ in time, so that their spread isn't zero.
    let per_hour = covariance / (spread_hours * spread_hours);
    let is_flat = stddev <= mean.abs() * f64::from(f32::EPSILON);
    let r2 = if is_flat { 0.0 } else { (covariance / (spread_hours * stddev)).powi(2).min(1.0) };
    let (least, greatest) = metric.range();
    let direction = match per_hour {
        _ if r2 < TREND_R2_MIN => Direction::Steady,
        rise if rise > 0.0 => Direction::Rising,
        _ => Direction::Falling,
    };
    Some(Trend { per_hour, r2, in_an_hour: (mean + per_hour * (1.0 - mean_hours)).clamp(least, greatest), direction })
}

/// Mean and standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(values: &[f32]) -> Vec<Bucket> {
        let bucket = |(number, value): (usize, &f32)| Bucket {
            at: number as u32 * 10,
            count: 2,
            min: *value,
            max: *value,
            sum: value * 2.0,
        };
        values.iter().enumerate().map(bucket).collect()
    }

    #[test]
    fn the_summary_is_of_the_samples_and_percentiles_are_of_the_buckets() {
        let values: Vec<f32> = (1..=100).map(|value| value as f32).collect();
        let summary = summary(Metric::Lag, &buckets(&values)).unwrap();
        assert_eq!((summary.count, summary.min, summary.max, summary.avg), (200, 1.0, 100.0, 50.5));
        assert_eq!((summary.p50, summary.p95, summary.p99, summary.last), (50.0, 95.0, 99.0, 100.0));
        assert_eq!(super::summary(Metric::Lag, &[]), None);
    }

    #[test]
    fn what_adds_up_is_summed_within_a_bucket() {
        assert_eq!(buckets(&[3.0])[0].value(Metric::Drifts), 6.0);
        assert_eq!(buckets(&[3.0])[0].value(Metric::Lag), 3.0);
    }

    #[test]
    fn a_spike_stands_out_and_a_constant_does_not() {
        let mut values = vec![10.0; 50];
        assert_eq!(anomalies(Metric::Lag, &buckets(&values)), []);
        values[20] = 500.0;
        let found = anomalies(Metric::Lag, &buckets(&values));
        assert_eq!(found.iter().map(|anomaly| (anomaly.at, anomaly.value)).collect::<Vec<_>>(), [(200, 500.0)]);
        assert!(found[0].z > 6.9);
        assert_eq!(anomalies(Metric::Lag, &buckets(&values[17..23])), [], "too few to tell");
    }

    #[test]
    fn a_line_is_continued_within_what_the_metric_can_be() {
        let rising: Vec<f32> = (0..60).map(|step| 0.5 + step as f32 / 600.0).collect();
        let found = trend(Metric::Accuracy, &buckets(&rising)).unwrap();
        assert_eq!(found.direction, Direction::Rising);
        assert!((found.per_hour - 0.6).abs() < 1e-3, "{found:?}");
        assert_eq!(found.in_an_hour, 1.0, "an accuracy is no more than 1");
        let lag = trend(Metric::Lag, &buckets(&rising)).unwrap();
        assert!((lag.in_an_hour - (rising[59] as f64 + 0.6)).abs() < 1e-3, "{lag:?}");
        let flat = trend(Metric::Lag, &buckets(&[1.0; 20])).unwrap();
        assert_eq!((flat.direction, flat.per_hour), (Direction::Steady, 0.0));
        assert_eq!(trend(Metric::Lag, &buckets(&[1.0; 3])), None);
    }

    proptest! {
        #[test]
        fn whatever_was_measured_gives_finite_numbers(values in prop::collection::vec(0f32..1e9, 1..400)) {
            let buckets = buckets(&values);
            let summary = summary(Metric::Lag, &buckets).unwrap();
            prop_assert!(summary.min <= summary.p50 && summary.p50 <= summary.p95 && summary.p95 <= summary.max);
            prop_assert!([summary.avg, summary.stddev].iter().all(|number| number.is_finite()));
            prop_assert!(anomalies(Metric::Lag, &buckets).iter().all(|anomaly| anomaly.z.is_finite()));
            if let Some(trend) = trend(Metric::Lag, &buckets) {
                prop_assert!([trend.per_hour, trend.r2, trend.in_an_hour].iter().all(|number| number.is_finite()));
            }
        }
    }
}
