//! What a row is beside those before it: how far each slot is from its own recent averages. In a series, such as one of prices
//! or temperatures, a class is often about that and not about the level.
//!
//! Only slots that follow themselves have such deviations: that of a number which is independent of those before it says
//! nothing more than the number.

use serde::{Deserialize, Serialize};

/// Rows that the averages of a slot look back, about: exponentially weighted ones (Roberts, "Control Chart Tests Based on
/// Geometric Moving Averages", Technometrics 1, 1959), so that a weighted sum of them is near any other average.
const PACES: [f32; 4] = [2.0, 8.0, 32.0, 128.0];
/// A slot follows itself from this correlation on between one value and the next.
const FOLLOWS: f32 = 0.5;
/// Share that stays with each row of what is known of it.
const KEEP: f32 = 0.999;
/// Rows before anything is known of it.
const ROWS_MIN: u64 = 100;
/// Slots of the widest row that has deviations, which make it five times as wide.
const WIDTH_MAX: usize = 32;

/// Deviations further out say no more than so many.
const FAR: f32 = 5.0;

/// The rows so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    rows: u64,
    slots: Vec<Slot>,
    /// Whether any slot ever followed itself.
    is_series: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    averages: [f32; PACES.len()],
    /// Faded means of the squared distances from them.
    variances: [f32; PACES.len()],
    last: f32,
    /// Faded sums: of the values times those before them, and of their squares.
    products: f32,
    squares: f32,
}

impl Slot {
    fn follows(&self) -> bool {
        self.products > FOLLOWS * self.squares
    }

    fn deviations(&self, value: f32) -> [f32; PACES.len()] {
        std::array::from_fn(|pace| match self.variances[pace] {
            variance if variance > 0.0 => ((value - self.averages[pace]) / variance.sqrt()).clamp(-FAR, FAR),
            _ => 0.0,
        })
    }
}

impl Trend {
    /// Puts a standardised row beside those before it: by slot, the value, then its deviations from the averages. Leaves nothing
    /// where the rows are no series.
    pub fn compare(&self, standard: &[f32], beside: &mut Vec<f32>) {
        beside.clear();
        if !self.is_series || standard.len() > WIDTH_MAX {
            return;
        }
        for (place, value) in standard.iter().enumerate() {
            let slot = self.slots.get(place).filter(|slot| slot.follows());
            beside.push(*value);
            beside.extend(slot.map_or([0.0; PACES.len()], |slot| slot.deviations(*value)));
        }
    }

    /// Takes in a standardised row.
    pub fn insert(&mut self, standard: &[f32]) {
        if standard.len() > WIDTH_MAX {
            return;
        }
        self.rows += 1;
        self.slots.resize(self.slots.len().max(standard.len()), Slot::default());
        // As long as there are few rows, the mean of them.
        let rate = |rows: f32| 1.0 / rows.min(self.rows as f32);
        let (rates, rate) = (PACES.map(rate), rate(1.0 / (1.0 - KEEP)));
        for (slot, value) in self.slots.iter_mut().zip(standard) {
            for ((average, variance), pace) in slot.averages.iter_mut().zip(&mut slot.variances).zip(rates) {
                let distance = value - *average;
                *variance += rate * (distance * distance - *variance);
                *average += pace * distance;
            }
            slot.products = slot.products * KEEP + slot.last * value;
            slot.squares = slot.squares * KEEP + value * value;
            slot.last = *value;
        }
        self.is_series |= self.rows > ROWS_MIN && self.slots.iter().any(Slot::follows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn after(rows: impl Iterator<Item = Vec<f32>>) -> Trend {
        let mut trend = Trend::default();
        rows.for_each(|row| trend.insert(&row));
        trend
    }

    fn beside(trend: &Trend, row: &[f32]) -> Vec<f32> {
        let mut beside = Vec::new();
        trend.compare(row, &mut beside);
        beside
    }

    #[test]
    fn only_slots_that_follow_themselves_have_deviations() {
        let mut random = Random::new(1);
        let mut noise = || (random.unit() - 0.5) as f32;
        let independent = after((0..2_000).map(|_| vec![noise(), noise()]));
        assert!(beside(&independent, &[0.1, 0.2]).is_empty());
        let wave = |number: usize| ((number % 100) as f32 - 50.0).abs() / 25.0 - 1.0;
        let series = after((0..2_000).map(|number| vec![noise(), wave(number)]));
        let row = beside(&series, &[2.0, wave(2_000) + 1.0]);
        let [of_noise, of_wave] = row.as_chunks::<5>().0 else { panic!("five a slot: {row:?}") };
        assert_eq!(of_noise, &[2.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(of_wave[1..].iter().all(|deviation| *deviation > 1.0), "{of_wave:?}");
    }

    #[test]
    fn wide_rows_are_left_alone() {
        let rows = |width: usize| (0..500).map(move |number| vec![(number / 100) as f32; width]);
        assert_eq!(beside(&after(rows(WIDTH_MAX)), &[1.0; WIDTH_MAX]).len(), 5 * WIDTH_MAX);
        assert!(beside(&after(rows(WIDTH_MAX + 1)), &[1.0; WIDTH_MAX + 1]).is_empty());
    }

    #[test]
    fn a_slot_that_comes_later_moves_no_other() {
        let slow = |number: usize| (number as f32 / 40.0).floor() % 3.0 - 1.0;
        let series = after((0..600).map(|number| vec![slow(number), slow(number + 7)]));
        let (narrow, wide) = (beside(&series, &[1.0, 0.5]), beside(&series, &[1.0, 0.5, 0.25]));
        assert_eq!((&wide[..10], &wide[10..]), (&narrow[..], &[0.25, 0.0, 0.0, 0.0, 0.0][..]));
    }
}
