//! Learns the schema of a domain from its events: which feature stands in which slot of a row.
//!
//! A number has a slot of its own, in which it is counted from an [`Origin`]; a category has a slot a value, which is 1 where the
//! value holds. What an event doesn't say of a number is missing and stands as NaN. Past [`CATEGORIES_MAX`] a new category shares
//! a slot with others by hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::answer::Rejection;
use crate::entry::{Features, Value, event_digest};
use crate::math::in_range;
use crate::origin::Origin;

/// Slots of a row: the bound of everything that grows with features.
pub const SLOTS_MAX: usize = 4_096;
/// Of them, those of categories: a feature with ever new values, such as a user's id, leaves room for numbers.
const CATEGORIES_MAX: usize = SLOTS_MAX / 4 * 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Slot of a number by name, and of a category by name, a zero character and the value.
    named: BTreeMap<String, u16>,
    slots: Vec<Slot>,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Slot {
    /// 0 where an event doesn't say so.
    Category,
    Number(Origin),
}

impl Slot {
    fn is_category(&self) -> bool {
        matches!(self, Self::Category)
    }

    /// Takes note of a number that comes into the slot.
    fn learn(&mut self, number: f64) {
        if let Self::Number(origin) = self {
            origin.learn(number);
        }
    }

    /// A number as it stands in a row.
    fn value(&self, number: f64) -> f32 {
        match self {
            Self::Category => number as f32,
            Self::Number(origin) => origin.relative(number) as f32,
        }
    }
}

/// A schema of versions 1 to 4 of the snapshot, in which every number was counted from 0. What learners know of those is in these
/// units, so they stay.
#[derive(Deserialize)]
pub struct SchemaOf4 {
    named: BTreeMap<String, u16>,
    /// Which slots belong to categories.
    categorical: Vec<bool>,
}

impl From<SchemaOf4> for Schema {
    fn from(SchemaOf4 { named, categorical }: SchemaOf4) -> Self {
        let slot = |category| if category { Slot::Category } else { Slot::Number(Origin::Zero) };
        Self { named, slots: categorical.into_iter().map(slot).collect() }
    }
}

impl Schema {
    /// Slots so far.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes note of an event's features, then writes them into `row`: slots that a learner hasn't seen are made, and numbers
    /// decide their origins.
    pub fn row(&mut self, features: &Features, row: &mut Vec<f32>) -> Result<(), Rejection> {
        check(features)?;
        match features {
            Features::Dense(values) => {
                while self.slots.len() < values.len() {
                    self.slots.push(Slot::Number(Origin::default()));
                }
                self.blank(row);
                for ((place, slot), value) in row.iter_mut().zip(&mut self.slots).zip(values) {
                    slot.learn(*value);
                    *place = slot.value(*value);
                }
            }
            Features::Named(values) => {
                let (mut filled, mut category) = (Vec::with_capacity(values.len()), String::new());
                for (name, value) in values {
                    match value {
                        Value::Number(number) => {
                            if let Some(place) = self.slot(name, false) {
                                self.slots[place].learn(*number);
                                filled.push((place, self.slots[place].value(*number)));
                            }
                        }
                        Value::Text(text) => {
                            category.clear();
                            category.extend([name, "\0", text]);
                            if let Some(place) = self.slot(&category, true) {
                                filled.push((place, 1.0));
                            }
                        }
                        Value::Missing => {}
                    }
                }
                self.blank(row);
                for (place, value) in filled {
                    row[place] = value;
                }
            }
        }
        Ok(())
    }

    /// Writes the features that are known already into `row`: a mere question teaches no name, and no origin.
    pub fn read(&self, features: &Features, row: &mut Vec<f32>) -> Result<(), Rejection> {
        check(features)?;
        self.blank(row);
        match features {
            Features::Dense(values) => {
                for ((place, slot), value) in row.iter_mut().zip(&self.slots).zip(values) {
                    *place = slot.value(*value);
                }
            }
            Features::Named(values) => {
                for (name, value) in values {
                    match value {
                        Value::Number(number) => {
                            if let Some(place) = self.known(name, false) {
                                row[place] = self.slots[place].value(*number);
                            }
                        }
                        Value::Text(text) => {
                            if let Some(place) = self.known(&format!("{name}\0{text}"), true) {
                                row[place] = 1.0;
                            }
                        }
                        Value::Missing => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn blank(&self, row: &mut Vec<f32>) {
        row.clear();
        row.extend(self.slots.iter().map(|slot| if slot.is_category() { 0.0 } else { f32::NAN }));
    }

    /// The slot of a name; a number that comes too late has none, a category shares one.
    fn slot(&mut self, name: &str, categorical: bool) -> Option<usize> {
        let known = self.known(name, categorical);
        if known.is_some() || !self.has_room(categorical) {
            return known;
        }
        let place = self.slots.len();
        self.named.insert(name.to_owned(), place as u16);
        self.slots.push(if categorical { Slot::Category } else { Slot::Number(Origin::default()) });
        Some(place)
    }

    /// Whether there is a slot for one more.
    fn has_room(&self, categorical: bool) -> bool {
        let categories = || self.slots.iter().filter(|slot| slot.is_category()).count();
        self.slots.len() < SLOTS_MAX && !(categorical && categories() >= CATEGORIES_MAX)
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
            self.slots.iter().enumerate().filter(|(_, slot)| slot.is_category()).map(|(place, _)| place).collect();
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
    fn what_a_large_number_varies_by_is_kept_also_where_it_is_missing_in_between() {
        let (mut schema, mut row, mut asked) = (Schema::default(), Vec::new(), Vec::new());
        let at = |time: f64| named(&[("at", Value::Number(time)), ("c", Value::Text("red".to_owned()))]);
        for (event, value) in [
            (at(1.7e12), 0.0),
            (named(&[("at", Value::Missing), ("c", Value::Text("red".to_owned()))]), f32::NAN),
            (at(1.7e12 + 1.0), 1.0),
            (at(1.7e12 - 25.5), -25.5),
        ] {
            // A question decides nothing.
            schema.read(&at(5.0), &mut asked).unwrap();
            schema.row(&event, &mut row).unwrap();
            assert!(row[0] == value || row[0].is_nan() && value.is_nan(), "{event:?}: {row:?}");
            assert_eq!(row[1], 1.0);
            schema.read(&event, &mut asked).unwrap();
            assert_eq!(format!("{asked:?}"), format!("{row:?}"));
        }
    }

    #[test]
    fn a_schema_from_before_origins_counts_from_zero_for_good_and_new_numbers_from_theirs() {
        let old =
            SchemaOf4 { named: [("a".to_owned(), 0), ("c\0red".to_owned(), 1)].into(), categorical: vec![false, true] };
        let (mut schema, mut row) = (Schema::from(old), Vec::new());
        for time in [1.7e12, 1.7e12 + 1.0, 1.7e12 + 2.0] {
            schema.row(&named(&[("a", Value::Number(time)), ("b", Value::Number(time))]), &mut row).unwrap();
            assert_eq!(row, [time as f32, 0.0, (time - 1.7e12) as f32]);
        }
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
