//! Where a number is counted from. Learners hold 32 bits of a number, of which 24 are digits: of a time of 1.7e12 milliseconds
//! the last two minutes would be lost, though they may be all that varies. So what the values of a large number have in common is
//! taken off in 64 bits first.

use serde::{Deserialize, Serialize};

/// Numbers below this are taken as they are: 32 bits tell them to a 32nd at worst.
const LARGE: f64 = (1u32 << 19) as f64;
/// Two values that differ by a smaller share have the rest in common. Of others, 32 bits hold the difference to 14 digits of
/// two at least.
const ALIKE: f64 = 1.0 / (1u32 << 10) as f64;
/// A value is away from the origin where it is so many times nearer to zero.
const AWAY: f64 = 16.0;
/// So many values away, one after the other, and the origin is given up.
const AWAY_MAX: u8 = 32;

/// The origin of a number, decided by its first values: two in succession, of the first three that differ, which are large and
/// alike. Otherwise it is 0, and so it is at once where the first value isn't large. What was read before it was decided is near
/// 0 then, as it is where an origin stays; at most two values are read as 0 that aren't.
///
/// An origin stays for good, as learners know values by it. The difference loses digits again as a stream leaves its origin, if
/// more slowly than the number itself would: that of a time in milliseconds, a year later, is known to about two seconds. Only a
/// stream that goes on near zero gives it up, and then for good: it may have begun with values that were wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Origin {
    /// No value was seen.
    #[default]
    Unknown,
    /// 0, for good.
    Zero,
    /// A large value, until one that differs comes.
    Tried {
        value: f64,
        /// Whether another was tried before.
        is_second: bool,
    },
    Kept {
        value: f64,
        /// Values away from it until now, one after the other.
        away: u8,
    },
}

impl Origin {
    /// Takes note of the next value.
    pub fn learn(&mut self, number: f64) {
        let is_large = number.abs() >= LARGE;
        *self = match *self {
            Self::Unknown if is_large => Self::Tried { value: number, is_second: false },
            Self::Tried { value, .. } if number == value => return,
            Self::Tried { value, .. } if (number - value).abs() <= ALIKE * value.abs() => Self::Kept { value, away: 0 },
            Self::Tried { is_second: false, .. } if is_large => Self::Tried { value: number, is_second: true },
            Self::Kept { value, away } if AWAY * number.abs() < (number - value).abs() => {
                if away + 1 < AWAY_MAX {
                    Self::Kept { value, away: away + 1 }
                } else {
                    Self::Zero
                }
            }
            Self::Kept { value, .. } => Self::Kept { value, away: 0 },
            Self::Unknown | Self::Zero | Self::Tried { .. } => Self::Zero,
        };
    }

    /// A number as it is learned.
    pub fn relative(self, number: f64) -> f64 {
        match self {
            Self::Unknown | Self::Zero => number,
            Self::Tried { value, .. } | Self::Kept { value, .. } => number - value,
        }
    }

    /// The number that is learned as `relative`.
    pub fn absolute(self, relative: f64) -> f64 {
        match self {
            Self::Unknown | Self::Zero => relative,
            Self::Tried { value, .. } | Self::Kept { value, .. } => relative + value,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each of these is learned as.
    fn learned(numbers: &[f64]) -> Vec<f64> {
        let mut origin = Origin::default();
        let learn = |number: &f64| {
            origin.learn(*number);
            assert_eq!(origin.absolute(origin.relative(*number)), *number);
            origin.relative(*number)
        };
        numbers.iter().map(learn).collect()
    }

    #[test]
    fn large_numbers_that_are_alike_are_counted_from_the_first() {
        for offset in [1.7e12, 1.7e9, 5_000_000.0, -3e15] {
            assert_eq!(learned(&[offset, offset + 0.5, offset - 2.0, 7.0]), [0.0, 0.5, -2.0, 7.0 - offset]);
        }
        let constant = learned(&[1e9, 1e9, 1e9, 1e9 + 1.0]);
        assert_eq!(constant, [0.0, 0.0, 0.0, 1.0], "what is the same tells nothing, and needs no digits");
    }

    #[test]
    fn a_first_value_that_is_wrong_decides_nothing() {
        assert_eq!(learned(&[1e15, 5.0, 6.0, 5.5]), [0.0, 5.0, 6.0, 5.5]);
        assert_eq!(learned(&[1e15, 1.7e12, 1.7e12 + 9.0, 1.7e12 - 3.0]), [0.0, 0.0, 9.0, -3.0]);
        assert_eq!(learned(&[1e15, 1e15, 5.0, 6.0]), [0.0, 0.0, 5.0, 6.0], "the same twice");
    }

    #[test]
    fn large_numbers_that_are_not_alike_are_taken_as_they_are_from_the_third_on() {
        let numbers = [6e5, 9e6, -7e5, -7e5 + 1.0, 9e6];
        assert_eq!(learned(&numbers)[2..], numbers[2..]);
    }

    #[test]
    fn an_origin_that_a_stream_leaves_for_zero_is_given_up_for_good() {
        let mut numbers = vec![4e9, 4e9 - 1.0];
        numbers.extend([5.25; 31]);
        numbers.push(4e9);
        numbers.extend([5.25; 33]);
        numbers.extend([4e9, 4e9 + 1.0]);
        let learned = learned(&numbers);
        assert_eq!(learned[..4], [0.0, -1.0, 5.25 - 4e9, 5.25 - 4e9]);
        assert_eq!((learned[33], learned[64]), (0.0, 5.25 - 4e9), "one that is near, and the 31 after it");
        assert_eq!(learned[65..], [5.25, 5.25, 4e9, 4e9 + 1.0]);
    }

    proptest! {
        #[test]
        fn numbers_that_are_not_large_stay_what_they_are(
            first in -LARGE + 1.0..LARGE - 1.0,
            rest in prop::collection::vec(prop_oneof![-1e6f64..1e6, -1e16f64..1e16], 0..50)
        ) {
            let mut numbers = vec![first];
            numbers.extend(rest);
            prop_assert_eq!(learned(&numbers), numbers);
        }
    }
}
