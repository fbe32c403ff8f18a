//! Learns the schema of a domain from its events: which feature stands in which slot of a row.
//!
//! A number has a slot of its own; a category has a slot a value, which is 1 where the value holds. What an event doesn't
//! say of a number is missing and stands as NaN. Past [`CATEGORIES_MAX`] a new category shares a slot with others by hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::answer::Rejection;
use crate::entry::{Features, Value, event_digest};
use crate::math::in_range;

/// Slots of a row: the bound of everything that grows with features.
pub const SLOTS_MAX: usize = 4_096;
/// Of them, those of categories: a feature with ever new values, such as a user's id, leaves room for numbers.
const CATEGORIES_MAX: usize = SLOTS_MAX / 4 * 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Slot of a number by name, and of a category by name, a zero character and the value.
    named: BTreeMap<String, u16>,
    /// Which slots belong to categories: 0 where an event doesn't say so.
    categorical: Vec<bool>,
}

impl Schema {
    /// Slots so far.
    pub fn len(&self) -> usize {
        self.categorical.len()
    }

    /// Writes an event's features into `row`. Slots that a learner hasn't seen are made if `learn`.
    pub fn row(&mut self, features: &Features, row: &mut Vec<f32>) -> Result<(), Rejection> {
        check(features)?;
        match features {
            Features::Dense(values) => {
                while self.categorical.len() < values.len() {
                    self.categorical.push(false);
                }
                self.blank(row);
                for (slot, value) in row.iter_mut().zip(values) {
                    *slot = *value as f32;
                }
            }
            Features::Named(values) => {
                let mut filled = Vec::with_capacity(values.len());
                for (name, value) in values {
                    match value {
                        Value::Number(number) => {
                            if let Some(slot) = self.slot(name.clone(), false) {
                                filled.push((slot, *number as f32));
                            }
                        }
                        Value::Text(text) => {
                            if let Some(slot) = self.slot(format!("{name}\0{text}"), true) {
                                filled.push((slot, 1.0));
                            }
                        }
                        Value::Missing => {}
                    }
                }
                self.blank(row);
                for (slot, value) in filled {
                    row[slot] = value;
                }
            }
        }
        Ok(())
    }

    /// Writes the features that are known already into `row`: a mere question teaches no name.
    pub fn read(&self, features: &Features, row: &mut Vec<f32>) -> Result<(), Rejection> {
        check(features)?;
        self.blank(row);
        match features {
            Features::Dense(values) => {
                for (slot, value) in row.iter_mut().zip(values) {
                    *slot = *value as f32;
                }
            }
            Features::Named(values) => {
                for (name, value) in values {
                    let (slot, value) = match value {
                        Value::Number(number) => (self.known(name, false), *number as f32),
                        Value::Text(text) => (self.known(&format!("{name}\0{text}"), true), 1.0),
                        Value::Missing => continue,
                    };
                    if let Some(slot) = slot {
                        row[slot] = value;
                    }
                }
            }
        }
        Ok(())
    }

    fn blank(&self, row: &mut Vec<f32>) {
        row.clear();
        row.extend(self.categorical.iter().map(|categorical| if *categorical { 0.0 } else { f32::NAN }));
    }

    /// The slot of a name; a number that comes too late has none, a category shares one.
    fn slot(&mut self, name: String, categorical: bool) -> Option<usize> {
        let known = self.known(&name, categorical);
        if known.is_some() || !self.has_room(categorical) {
            return known;
        }
        let slot = self.categorical.len();
        self.named.insert(name, slot as u16);
        self.categorical.push(categorical);
        Some(slot)
    }

    /// Whether there is a slot for one more.
    fn has_room(&self, categorical: bool) -> bool {
        let categories = || self.categorical.iter().filter(|categorical| **categorical).count();
        self.categorical.len() < SLOTS_MAX && !(categorical && categories() >= CATEGORIES_MAX)
    }

    /// The slot that a name has without making one.
    fn known(&self, name: &str, categorical: bool) -> Option<usize> {
        if let Some(slot) = self.named.get(name) {
            return Some(usize::from(*slot));
        }
        if !categorical || self.has_room(true) {
            return None;
        }
        let shared: Vec<usize> =
            self.categorical.iter().enumerate().filter(|(_, shared)| **shared).map(|(slot, _)| slot).collect();
        if shared.is_empty() {
            return None;
        }
        shared.get(event_digest(name) as usize % shared.len()).copied()
    }
}

fn check(features: &Features) -> Result<(), Rejection> {
    if features.len() > SLOTS_MAX {
        return Err(Rejection::TooManyFeatures { max: SLOTS_MAX as u32 });
    }
    match features {
        Features::Dense(values) => match values.iter().position(|value| !in_range(*value)) {
            Some(place) => Err(Rejection::OutOfRange(format!("feature {place}"))),
            None => Ok(()),
        },
        Features::Named(values) => {
            let bad = values.iter().find(|(_, value)| matches!(value, Value::Number(number) if !in_range(*number)));
            match bad {
                Some((name, _)) => Err(Rejection::OutOfRange(format!("feature {name}"))),
                None => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, Value)]) -> Features {
        Features::Named(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn numbers_keep_their_slots_and_categories_get_one_a_value() {
        let mut schema = Schema::default();
        let mut row = Vec::new();
        schema.row(&named(&[("a", Value::Number(2.0)), ("c", Value::Text("red".to_owned()))]), &mut row).unwrap();
        assert_eq!(row, [2.0, 1.0]);
        schema.row(&named(&[("c", Value::Text("blue".to_owned())), ("b", Value::Number(5.0))]), &mut row).unwrap();
        assert!(row[0].is_nan());
        assert_eq!(row[1..], [0.0, 1.0, 5.0]);
    }

    #[test]
    fn a_question_is_read_as_an_event_and_teaches_nothing() {
        let mut schema = Schema::default();
        let (mut row, mut asked) = (Vec::new(), Vec::new());
        let known = named(&[("a", Value::Number(2.0)), ("c", Value::Text("red".to_owned()))]);
        schema.row(&known, &mut row).unwrap();
        schema.read(&known, &mut asked).unwrap();
        assert_eq!(row, asked);
        schema.read(&named(&[("b", Value::Number(1.0)), ("c", Value::Text("new".to_owned()))]), &mut asked).unwrap();
        assert!(asked[0].is_nan() && asked[1] == 0.0 && schema.len() == 2);
    }

    #[test]
    fn categories_without_end_stay_within_the_slots() {
        let mut schema = Schema::default();
        let mut row = Vec::new();
        for number in 0..10_000 {
            schema.row(&named(&[("c", Value::Text(number.to_string()))]), &mut row).unwrap();
            assert_eq!(row.iter().filter(|value| **value == 1.0).count(), 1);
        }
        assert_eq!(schema.len(), CATEGORIES_MAX);
        schema.row(&named(&[("late", Value::Number(5.0))]), &mut row).unwrap();
        assert_eq!(row.last(), Some(&5.0), "a number that comes late is seen all the same");
    }

    #[test]
    fn what_no_learner_can_take_is_refused_before_anything_is_learned() {
        let mut schema = Schema::default();
        let error = schema.row(&Features::Dense(vec![1.0, f64::NAN]), &mut Vec::new());
        assert_eq!(error, Err(Rejection::OutOfRange("feature 1".to_owned())));
        assert!(schema.row(&Features::Dense(vec![1.1e16]), &mut Vec::new()).is_err());
        assert_eq!(schema.len(), 0);
    }
}
