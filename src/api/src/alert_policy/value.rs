//! Small values with a notation of their own: shares of a whole and times of day.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of something: a number, or a percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl Share {
    /// The part of `whole`: a percentage is rounded up, so that a guard of 20 % lets one of three pass.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Share::Count(count) => count.min(whole),
            Share::Percent(percent) => {
                let part = (u64::from(whole) * u64::from(percent.min(100))).div_ceil(100);
                u32::try_from(part).unwrap_or(whole)
            }
        }
    }
}

/// Minutes since midnight; 24:00 is the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(pub u16);

/// Not in the notation that is expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No share.
    #[error("{0:?} is no share: write a number such as 2 or a percentage such as 20%")]
    Share(String),
    /// No time of day.
    #[error("{0:?} is no time of day: write 00:00 to 24:00")]
    TimeOfDay(String),
}

impl FromStr for Share {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Share(text.to_owned());
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u32>().map_err(|_| error()),
            false => Err(error()),
        };
        match text.strip_suffix('%') {
            Some(digits) => number(digits).and_then(|n| if n <= 100 { Ok(Share::Percent(n)) } else { Err(error()) }),
            None => number(text).map(Share::Count),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Count(count) => write!(f, "{count}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for TimeOfDay {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::TimeOfDay(text.to_owned());
        let (hours, minutes) = text.split_once(':').ok_or_else(error)?;
        let number = |digits: &str| match digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u16>().map_err(|_| error()),
            false => Err(error()),
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let good = minutes < 60 && (hours < 24 || (hours == 24 && minutes == 0));
        if good { Ok(TimeOfDay(hours * 60 + minutes)) } else { Err(error()) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $schema:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

as_text!(
    Share,
    "Share",
    json_schema!({"type": "string", "pattern": "^([0-9]{1,4}|(100|[0-9]{1,2})%)$", "maxLength": 4})
);
as_text!(
    TimeOfDay,
    "TimeOfDay",
    json_schema!({"type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", "maxLength": 5})
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_the_whole() {
        for (share, whole, part) in [
            ("20%", 1, 1),
            ("20%", 10, 2),
            ("20%", 11, 3),
            ("0%", 9, 0),
            ("100%", 7, 7),
            ("3", 2, 2),
            ("0", 5, 0),
            ("20%", 0, 0),
        ] {
            assert_eq!(share.parse::<Share>().unwrap().of(whole), part, "{share} of {whole}");
            assert_eq!(share.parse::<Share>().unwrap().to_string(), share);
        }
        for text in ["", "%", "101%", "-1", "+1", "1.5", "a"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_day_read_and_print_as_users_write_them() {
        for (text, minutes) in [("00:00", 0), ("09:30", 570), ("23:59", 1439), ("24:00", 1440)] {
            assert_eq!(text.parse::<TimeOfDay>().unwrap(), TimeOfDay(minutes));
            assert_eq!(TimeOfDay(minutes).to_string(), text);
        }
        for text in ["", "9:30", "24:01", "12:60", "+1:00", "12", "1200"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }
}
