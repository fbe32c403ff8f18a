//! Exponential, logarithm and extremes, made of basic arithmetic only; and how large a number may be.
//!
//! The platform's mathematical library is not used: glibc picks a variant by the processor, musl has another, and their last
//! digits differ. A replay on another machine must end in the same bytes.

use multiversion::multiversion;

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
    /// Added to a small number it leaves no room for a fraction: the nearest integer then stands in the lowest bits.
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    let x = x.clamp(-700.0, 700.0);
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
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
    sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

/// The natural logarithm of a positive number, within 1e-12; of anything smaller than 1e-300, that of 1e-300.
#[inline]
pub fn ln(x: f64) -> f64 {
    /// An integer that is put into its lowest bits is added to it.
    const SHIFT: f64 = (1u64 << 52) as f64;
    let bits = larger(1e-300, x).to_bits();
    let mut exponent = f64::from_bits(SHIFT.to_bits() | (bits >> 52)) - (SHIFT + 1023.0);
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

/// [`exp`] of each, many at once where the processor can; the results are the same.
pub fn exp_all(values: &mut [f64]) {
    #[multiversion(targets("x86_64+avx2+avx512bw+avx512dq+avx512f+avx512vl", "x86_64+avx2"))]
    fn eight(values: &mut [f64; 8]) {
        for value in values {
            *value = exp(*value);
        }
    }
    by_eights(values, eight);
}

/// [`ln`] of each, as [`exp_all`].
pub fn ln_all(values: &mut [f64]) {
    #[multiversion(targets("x86_64+avx2+avx512bw+avx512dq+avx512f+avx512vl", "x86_64+avx2"))]
    fn eight(values: &mut [f64; 8]) {
        for value in values {
            *value = ln(*value);
        }
    }
    by_eights(values, eight);
}

/// Has a function replace numbers, eight at once: of a number that it doesn't know, the compiler takes less than some dozens one by
/// one.
pub fn by_eights(values: &mut [f64], eight: impl Fn(&mut [f64; 8])) {
    let (eights, rest) = values.as_chunks_mut();
    eights.iter_mut().for_each(&eight);
    if !rest.is_empty() {
        let mut filled = [1.0; 8];
        for (place, value) in rest.iter().enumerate() {
            filled[place] = *value;
        }
        eight(&mut filled);
        for (value, other) in rest.iter_mut().zip(filled) {
            *value = other;
        }
    }
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
    fn many_at_once_are_the_same_as_one_by_one() {
        let values: Vec<f64> = (0..1_003).map(|number| f64::from(number) * 0.37 - 150.0).collect();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let (mut exponentials, mut logarithms) = (values.clone(), values.clone());
        exp_all(&mut exponentials);
        ln_all(&mut logarithms);
        assert_eq!(bits(&exponentials), bits(&values.iter().map(|x| exp(*x)).collect::<Vec<_>>()));
        assert_eq!(bits(&logarithms), bits(&values.iter().map(|x| ln(*x)).collect::<Vec<_>>()));
    }

    #[test]
    fn of_two_zeros_the_first_is_the_extreme_on_every_processor() {
        for (a, b) in [(0.0_f32, -0.0_f32), (-0.0, 0.0)] {
            assert_eq!((smaller(a, b).to_bits(), larger(a, b).to_bits()), (a.to_bits(), a.to_bits()));
        }
        assert_eq!((smaller(1.0, -2.0), larger(1.0, -2.0), larger(1.0, f64::NAN)), (-2.0, 1.0, 1.0));
    }
}
