//! Exponential, logarithm and extremes, made of basic arithmetic only; and how large a number may be.
//!
//! The platform's mathematical library is not used: glibc picks a variant by the processor, musl has another, and their last
//! digits differ. A replay on another machine must end in the same bytes.

const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The largest number that is learned from, either way. Of 20,000 numbers as far apart as that, as of the samples of the longest
/// signal, 32 bits hold the sum of the squares: without a bound one number made a mean NaN for good.
pub const NUMBER_MAX: f64 = 1e16;

/// Whether a number can be learned from; NaN can't.
pub fn in_range(number: f64) -> bool {
    number.abs() <= NUMBER_MAX
}

/// The smaller of two numbers; of two zeros, and beside NaN, the first. Which zero `f32::min` returns, 0 or −0, depends on the
/// processor.
#[inline]
pub fn smaller<N: PartialOrd>(a: N, b: N) -> N {
    if b < a { b } else { a }
}

/// The larger of two numbers, as [`smaller`].
#[inline]
pub fn larger<N: PartialOrd>(a: N, b: N) -> N {
    if b > a { b } else { a }
}

/// e to the power of `x`, within 1e-14 relative; saturates outside ±700.
#[inline]
pub fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let scaled = x * std::f64::consts::LOG2_E;
    let n = (if scaled >= 0.0 { scaled + 0.5 } else { scaled - 0.5 }) as i32;
    let r = x - f64::from(n) * LN_2_HIGH - f64::from(n) * LN_2_LOW;
    // |r| ≤ 0.35: the Taylor series to the 11th power is exact to rounding.
    let mut sum = 1.0 / 39_916_800.0;
    for c in [
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * r + c;
    }
    sum * f64::from_bits(((i64::from(n) + 1023) as u64) << 52)
}

/// The natural logarithm of a positive number, within 1e-12; of anything smaller than 1e-300, that of 1e-300.
#[inline]
pub fn ln(x: f64) -> f64 {
    let bits = x.max(1e-300).to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series =
        1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0))))));
    2.0 * s * series + exponent * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_and_logarithm_agree_with_the_platform() {
        let mut x = -40.0_f64;
        while x < 40.0 {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "exp({x})");
            assert!((ln(x.exp()) - x).abs() < 1e-11, "ln(exp({x}))");
            x += 0.0371;
        }
        assert!(exp(-1e9) < 1e-300 && exp(1e9) > 1e300);
        assert!(ln(0.0) < -600.0);
    }

    #[test]
    fn of_two_zeros_the_first_is_the_extreme_on_every_processor() {
        for (a, b) in [(0.0_f32, -0.0_f32), (-0.0, 0.0)] {
            assert_eq!((smaller(a, b).to_bits(), larger(a, b).to_bits()), (a.to_bits(), a.to_bits()));
        }
        assert_eq!((smaller(1.0, -2.0), larger(1.0, -2.0), larger(1.0, f64::NAN)), (-2.0, 1.0, 1.0));
    }
}
