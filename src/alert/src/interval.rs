//! Hours of the week, in a time zone.

use hebb_api::{TimeInterval, Weekday};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time interval, ready to be used.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    spec: TimeInterval,
    zone: TimeZone,
}

impl Interval {
    pub(crate) fn new(spec: &TimeInterval) -> Result<Self, String> {
        let zone = match &spec.location {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone, write Europe/Berlin"))?,
        };
        Ok(Self { spec: spec.clone(), zone })
    }

    /// Whether `now` is in it.
    pub(crate) fn contains(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(self.zone.clone());
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let weekday = match local.weekday() {
            jiff::civil::Weekday::Monday => Weekday::Monday,
            jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
            jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
            jiff::civil::Weekday::Thursday => Weekday::Thursday,
            jiff::civil::Weekday::Friday => Weekday::Friday,
            jiff::civil::Weekday::Saturday => Weekday::Saturday,
            jiff::civil::Weekday::Sunday => Weekday::Sunday,
        };
        let days = &self.spec.weekdays;
        let times = &self.spec.times;
        (days.is_empty() || days.contains(&weekday))
            && (times.is_empty() || times.iter().any(|range| (range.start.0..range.end.0).contains(&minute)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, now: &str, expected: bool) {
        let interval = Interval::new(&serde_yaml::from_str(yaml).unwrap()).unwrap();
        assert_eq!(interval.contains(now.parse().unwrap()), expected, "{yaml} at {now}");
    }

    #[test]
    fn hours_and_days_are_those_of_the_zone() {
        let office =
            "{name: n, location: Europe/Berlin, weekdays: [Monday, Friday], times: [{start: '09:00', end: '17:00'}]}";
        check(office, "2026-11-23T08:00:00Z", true);
        check(office, "2026-11-23T07:59:59Z", false);
        check(office, "2026-11-23T15:59:59Z", true);
        check(office, "2026-11-23T16:00:00Z", false);
        check(office, "2026-11-24T10:00:00Z", false);
        // An hour earlier in summer.
        check(office, "2026-07-20T07:00:00Z", true);
        check("{name: n}", "2026-11-23T07:00:00Z", true);
        check("{name: n, times: [{start: '23:00', end: '24:00'}]}", "2026-11-23T23:59:59Z", true);
        check("{name: n, weekdays: [Sunday], location: Asia/Tokyo}", "2026-11-21T15:00:00Z", true);
    }

    #[test]
    fn a_zone_that_nobody_knows_is_refused() {
        let spec = TimeInterval { location: Some("Mars/Olympus".to_owned()), ..TimeInterval::default() };
        assert!(Interval::new(&spec).is_err());
    }
}
