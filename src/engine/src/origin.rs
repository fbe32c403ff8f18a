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

/// The origin of a number, decided by its first three values: one of them that is large, where the next or the next but one is
/// like it and not the same. Otherwise it is 0, and so it is at once where neither the first nor the second is large. One of the
/// three may so be wrong, or stand for nothing known yet. Of one that stays the same nothing has to be kept but that; it is decided
/// when it changes.
///
/// Until then a large value is read as 0. Where an origin is found, so it is by that; where none is, these are the only values, two
/// at most, that aren't read as they are.
///
/// An origin stays, as learners know values by it. The difference loses digits again as a stream goes away from its origin, if no
/// faster than the number itself would: that of a time in milliseconds, a year later, is known to about two seconds. Only a stream
/// that goes on near zero gives its origin up, and then for good: it may have begun with values that were wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Origin {
    /// No value was seen.
    #[default]
    Unknown,
    /// Not decided yet.
    Tried {
        first: f64,
        /// One that isn't like the first.
        second: Option<f64>,
    },
    /// 0, for good.
    Zero,
    Kept {
        value: f64,
        /// Values away from it until now, one after the other.
        away: u8,
    },
}

fn is_large(number: f64) -> bool {
    number.abs() >= LARGE
}

impl Origin {
    /// Takes note of the next value.
    #[inline]
    pub fn learn(&mut self, number: f64) {
        // As almost all are.
        if !matches!(self, Self::Zero) {
            *self = self.decided(number);
        }
    }

    fn decided(self, number: f64) -> Self {
        let is_like = |other: f64| is_large(other) && number != other && (number - other).abs() <= ALIKE * other.abs();
        match self {
            Self::Unknown => Self::Tried { first: number, second: None },
            Self::Tried { first, .. } if is_like(first) => Self::Kept { value: first, away: 0 },
            Self::Tried { second: Some(second), .. } if is_like(second) => Self::Kept { value: second, away: 0 },
            Self::Tried { first, second } if is_large(number) && number == second.unwrap_or(first) => self,
            Self::Tried { first, second: None } if is_large(first) || is_large(number) => {
                Self::Tried { first, second: Some(number) }
            }
            Self::Tried { .. } | Self::Zero => Self::Zero,
            Self::Kept { value, away } if AWAY * number.abs() < (number - value).abs() => {
                if away + 1 < AWAY_MAX {
                    Self::Kept { value, away: away + 1 }
                } else {
                    Self::Zero
                }
            }
            Self::Kept { value, .. } => Self::Kept { value, away: 0 },
        }
    }

    /// What is taken off now; nothing where numbers stay what they are.
    fn value(self) -> Option<f64> {
        match self {
            Self::Unknown | Self::Zero => None,
            Self::Tried { first, second } => Some(second.unwrap_or(first)).filter(|value| is_large(*value)),
            Self::Kept { value, .. } => Some(value),
        }
    }

    /// A number as it is learned.
    #[inline]
    pub fn relative(self, number: f64) -> f64 {
        self.value().map_or(number, |value| number - value)
    }

    /// The number that is learned as `relative`.
    pub fn absolute(self, relative: f64) -> f64 {
        self.value().map_or(relative, |value| relative + value)
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
        assert_eq!(learned(&[1e9, 1e9, 1e9, 1e9 + 1.0]), [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn one_of_the_first_values_that_is_wrong_decides_nothing() {
        assert_eq!(learned(&[1e15, 5.0, 6.0, 5.5]), [0.0, 5.0, 6.0, 5.5]);
        assert_eq!(learned(&[1e15, 1e15, 5.0, 6.0]), [0.0, 0.0, 5.0, 6.0]);
        assert_eq!(learned(&[1e15, 5.0, 1e15, 6.0]), [0.0, 5.0, 1e15, 6.0], "one that comes again");
        for wrong in [1e15, 1e7] {
            assert_eq!(learned(&[wrong, 1.7e12, 1.7e12 + 9.0, 1.7e12 - 3.0]), [0.0, 0.0, 9.0, -3.0]);
            assert_eq!(learned(&[1.7e12, wrong, 1.7e12 + 9.0, 1.7e12 - 3.0]), [0.0, 0.0, 9.0, -3.0]);
        }
        for nothing in [0.0, -1.0] {
            assert_eq!(learned(&[nothing, 1.7e12, 1.7e12 + 9.0]), [nothing, 0.0, 9.0]);
            assert_eq!(learned(&[1.7e12, nothing, 1.7e12 + 9.0]), [0.0, nothing, 9.0]);
        }
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
        fn small_numbers_stay_what_they_are_and_so_do_large_ones_after_two_that_are_small(
            first in prop::array::uniform2(-LARGE + 1.0..LARGE - 1.0),
            rest in prop::collection::vec(prop_oneof![-1e6f64..1e6, -1e16f64..1e16], 0..50)
        ) {
            let numbers = [&first[..], &rest].concat();
            prop_assert_eq!(learned(&numbers), numbers);
        }

        #[test]
        fn large_numbers_that_are_not_alike_stay_what_they_are_from_the_third_on(
            start in 1e6f64..1e9, shares in prop::array::uniform3(1.01f64..1.2), rest in prop::collection::vec(-1e16f64..1e16, 0..50)
        ) {
            let mut numbers: Vec<f64> = vec![start, start * shares[0], -start * shares[1], start * shares[0] * shares[2]];
            numbers.extend(rest);
            prop_assert_eq!(&learned(&numbers)[2..], &numbers[2..]);
        }
    }
}
