//! Whether a rule holds on a target at a time.

use std::time::Duration;

use hebb_api::{Absence, AlertRule, Anomaly, Expression, Operator, Trend};
use jiff::Timestamp;

use crate::history::{History, Point, aggregate, mean};
use crate::time::elapsed;

/// Values of the past that an anomaly is measured against, at least: fewer say little about what is usual.
const PAST_MIN: usize = 8;
/// Values that a line is drawn through, at least.
const LINE_MIN: usize = 5;
/// A spread below this share of the mean is taken for this share: a value that hardly ever moves isn't unusual for moving a hair.
const SPREAD_MIN: f64 = 0.01;

/// What a rule says, with the value that it says it of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It holds.
    Breach(f64),
    /// It doesn't.
    Clear(f64),
    /// It can't be told.
    NoData,
}

impl Verdict {
    fn of(breach: bool, value: f64) -> Self {
        if breach { Verdict::Breach(value) } else { Verdict::Clear(value) }
    }

    /// The value, where there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Verdict::Breach(value) | Verdict::Clear(value) => Some(value),
            Verdict::NoData => None,
        }
    }
}

/// What `rule` says of `target` now.
pub fn evaluate(rule: &AlertRule, history: &History, target: &str, now: Timestamp) -> Verdict {
    if let Some(expr) = &rule.expr {
        return expression(expr, history, target, now);
    }
    if let Some(all) = &rule.all {
        return conjunction(all.iter().map(|expr| expression(expr, history, target, now)));
    }
    if let Some(rule) = &rule.anomaly {
        return anomaly(rule, history, target, now);
    }
    if let Some(rule) = &rule.trend {
        return trend(rule, history, target, now);
    }
    rule.absence.as_ref().map_or(Verdict::NoData, |rule| absence(rule, history, target, now))
}

fn passes(value: f64, operator: Operator, threshold: f64) -> bool {
    match operator {
        Operator::GreaterThan => value > threshold,
        Operator::LessThan => value < threshold,
    }
}

fn expression(expr: &Expression, history: &History, target: &str, now: Timestamp) -> Verdict {
    match aggregate(expr.aggregation, history.window(target, &expr.indicator, now, expr.window.0)) {
        Some(value) => Verdict::of(passes(value, expr.operator, expr.threshold), value),
        None => Verdict::NoData,
    }
}

/// All of them, with the value of the first; one that is known not to hold decides even when others can't be told.
fn conjunction(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let verdicts: Vec<Verdict> = verdicts.collect();
    if let Some(clear) = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Clear(_))) {
        return *clear;
    }
    if verdicts.contains(&Verdict::NoData) {
        return Verdict::NoData;
    }
    verdicts.first().copied().unwrap_or(Verdict::NoData)
}

/// The distance of the newest value from the mean of those before it, in their standard deviations.
fn anomaly(rule: &Anomaly, history: &History, target: &str, now: Timestamp) -> Verdict {
    let Some((newest_at, newest)) = history.newest(target, &rule.indicator, now) else { return Verdict::NoData };
    let past = history.window(target, &rule.indicator, now, rule.window.0).filter(|(at, _)| *at < newest_at);
    let values = past.map(|(_, value)| value);
    if values.clone().count() < PAST_MIN {
        return Verdict::NoData;
    }
    let usual = mean(values.clone());
    let spread = mean(values.map(|value| (value - usual).powi(2))).sqrt();
    let spread = spread.max(SPREAD_MIN * usual.abs()).max(f64::MIN_POSITIVE);
    let distance = ((newest - usual) / spread).clamp(-f64::MAX, f64::MAX);
    Verdict::of(rule.z_score < distance.abs(), distance)
}

/// Where the line through the window leads. A line is drawn only where the values span half of the window: a few values of the
/// first minute say nothing about the next hours.
fn trend(rule: &Trend, history: &History, target: &str, now: Timestamp) -> Verdict {
    if history.newest(target, &rule.indicator, now).is_none() {
        return Verdict::NoData;
    }
    let points: Vec<Point> = history.window(target, &rule.indicator, now, rule.window.0).collect();
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return Verdict::NoData };
    if points.len() < LINE_MIN || elapsed(*last, *first) < rule.window.0 / 2 {
        return Verdict::NoData;
    }
    let Some((present, slope)) = line(&points, now) else { return Verdict::NoData };
    let future = present + slope * rule.within.0.as_secs_f64();
    let passing = |value| passes(value, rule.operator, rule.threshold);
    Verdict::of(passing(present) || passing(future), future)
}

/// Least squares: the line's value at `now` and its slope per second.
fn line(points: &[Point], now: Timestamp) -> Option<(f64, f64)> {
    let x = |at: Timestamp| -elapsed(now, at).as_secs_f64();
    let mean_x = mean(points.iter().map(|(at, _)| x(*at)));
    let mean_y = mean(points.iter().map(|(_, value)| *value));
    let covariance: f64 = points.iter().map(|(at, value)| (x(*at) - mean_x) * (value - mean_y)).sum();
    let variance: f64 = points.iter().map(|(at, _)| (x(*at) - mean_x).powi(2)).sum();
    let slope = covariance / variance;
    slope.is_finite().then_some((mean_y - slope * mean_x, slope))
}

/// Seconds without a value. A watcher that hasn't looked for long enough can't tell.
fn absence(rule: &Absence, history: &History, target: &str, now: Timestamp) -> Verdict {
    if history.window(target, &rule.indicator, now, rule.window.0).next().is_some() {
        return Verdict::Clear(0.0);
    }
    match history.watched_since(target, now) {
        Some(since) if rule.window.0 <= elapsed(now, since) => Verdict::Breach(elapsed(now, since).as_secs_f64()),
        _ => Verdict::NoData,
    }
}

/// The longest window that a rule has for each indicator it names.
pub(crate) fn windows(rule: &AlertRule) -> Vec<(&str, Duration)> {
    let mut windows: Vec<(&str, Duration)> = Vec::new();
    for expr in rule.expr.iter().chain(rule.all.iter().flatten()) {
        windows.push((&expr.indicator, expr.window.0));
    }
    windows.extend(rule.anomaly.iter().map(|rule| (rule.indicator.as_str(), rule.window.0)));
    windows.extend(rule.trend.iter().map(|rule| (rule.indicator.as_str(), rule.window.0)));
    windows.extend(rule.absence.iter().map(|rule| (rule.indicator.as_str(), rule.window.0)));
    windows
}

/// The threshold and the window that templates may name.
pub(crate) fn bounds(rule: &AlertRule) -> (Option<f64>, Option<Duration>) {
    let first = rule.expr.as_ref().or_else(|| rule.all.as_ref().and_then(|all| all.first()));
    let threshold = first
        .map(|expr| expr.threshold)
        .or(rule.trend.as_ref().map(|trend| trend.threshold))
        .or(rule.anomaly.as_ref().map(|anomaly| anomaly.z_score));
    (threshold, windows(rule).first().map(|(_, window)| *window))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rule(yaml: &str) -> AlertRule {
        serde_yaml::from_str(&format!("{{name: r, {yaml}}}")).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// What the rule says after these values, one each 15 s; a gap where there is none.
    fn check(yaml: &str, values: &[Option<f64>]) -> Verdict {
        let rule = rule(yaml);
        let keep: BTreeMap<String, Duration> =
            windows(&rule).into_iter().map(|(name, window)| (name.to_owned(), window)).collect();
        let mut history = History::new(Duration::from_secs(15), keep);
        let mut now = at(0);
        for (step, value) in values.iter().enumerate() {
            now = at(step as i64 * 15);
            let samples = value.iter().map(|value| ("up".to_owned(), *value)).collect();
            history.observe(now, "a", &samples);
        }
        evaluate(&rule, &history, "a", now)
    }

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn an_expression_compares_an_aggregate() {
        let over = "expr: {indicator: up, aggregation: Avg, operator: GreaterThan, threshold: 2}";
        assert_eq!(check(over, &some(&[1.0, 5.0])), Verdict::Breach(3.0));
        assert_eq!(check(over, &some(&[1.0, 3.0])), Verdict::Clear(2.0));
        assert_eq!(check(over, &[None, None]), Verdict::NoData);
        let under = "expr: {indicator: up, operator: LessThan, threshold: 1}";
        assert_eq!(check(under, &some(&[0.0])), Verdict::Breach(0.0));
    }

    #[test]
    fn a_conjunction_needs_all_and_one_that_fails_decides() {
        let all = |first: &str, second: &str| {
            format!(
                "all: [{{indicator: {first}, operator: GreaterThan, threshold: 1}}, {{indicator: {second}, operator: GreaterThan, threshold: 4}}]"
            )
        };
        assert_eq!(check(&all("up", "up"), &some(&[5.0])), Verdict::Breach(5.0));
        assert_eq!(check(&all("up", "up"), &some(&[3.0])), Verdict::Clear(3.0));
        assert_eq!(check(&all("up", "accuracy"), &some(&[5.0])), Verdict::NoData);
        assert_eq!(check(&all("up", "accuracy"), &some(&[0.0])), Verdict::Clear(0.0));
    }

    #[test]
    fn an_anomaly_is_far_from_the_past_and_needs_one() {
        let yaml = "anomaly: {indicator: up}";
        let mut values = vec![10.0, 11.0, 9.0, 10.0, 11.0, 9.0, 10.0, 11.0, 9.0];
        assert!(matches!(check(yaml, &some(&values)), Verdict::Clear(_)));
        values.push(20.0);
        assert!(matches!(check(yaml, &some(&values)), Verdict::Breach(z) if z > 10.0));
        assert_eq!(check(yaml, &some(&values[..5])), Verdict::NoData);
        let mut constant = vec![100.0; 10];
        constant.push(100.5);
        assert!(matches!(check(yaml, &some(&constant)), Verdict::Clear(_)), "half a percent is no anomaly");
        let mut silent = some(&values);
        silent.extend([None; 6]);
        assert_eq!(check(yaml, &silent), Verdict::NoData, "an old value isn't the newest");
    }

    #[test]
    fn a_trend_looks_ahead_along_a_line() {
        let yaml = "trend: {indicator: up, window: 5m, within: 1h, operator: GreaterThan, threshold: 100}";
        let rising: Vec<f64> = (0..20).map(f64::from).collect();
        assert!(matches!(check(yaml, &some(&rising)), Verdict::Breach(value) if (value - 259.0).abs() < 0.01));
        assert!(matches!(check(yaml, &some(&[5.0; 20])), Verdict::Clear(value) if (value - 5.0).abs() < 1e-9));
        assert_eq!(check(yaml, &some(&rising[..8])), Verdict::NoData, "too short for a line");
        let falling: Vec<f64> = (0..20).map(|step| 110.0 - f64::from(step)).collect();
        assert!(matches!(check(yaml, &some(&falling)), Verdict::Clear(_)), "it is past the threshold no more");
    }

    #[test]
    fn absence_is_told_only_by_one_who_looked() {
        let yaml = "absence: {indicator: up, window: 1m}";
        assert_eq!(check(yaml, &some(&[1.0])), Verdict::Clear(0.0));
        assert_eq!(check(yaml, &[None, None]), Verdict::NoData);
        assert_eq!(check(yaml, &[None; 5]), Verdict::Breach(60.0));
        assert_eq!(check(yaml, &[Some(1.0), None, None, None]), Verdict::Clear(0.0));
        assert!(matches!(check(yaml, &[Some(1.0), None, None, None, None]), Verdict::Breach(_)));
    }
}
