//! Labelled streams: a CSV file, or the drifting stream that the demo makes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use hebb_engine::{Features, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// One labelled event.
pub struct Labelled {
    pub features: Features,
    pub label: String,
}

/// Why a file is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("can't read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is not a CSV file with a header")]
    Csv { path: String, source: csv::Error },
    #[error("{path} has no column {column:?}; its columns are {columns}")]
    NoColumn { path: String, column: String, columns: String },
    #[error("{path} holds no events")]
    Empty { path: String },
    #[error("the label {label:?} of event {event} is no number: --task classification takes it as a class")]
    NoNumber { label: String, event: usize },
}

/// Bytes of a file, unpacked: a stream of some ten million events.
const FILE_MAX: u64 = 4 << 30;

/// Reads a CSV file with a header; a name that ends in `.gz` is unpacked. A column whose cells are all numbers is numeric,
/// others are categories, and an empty cell is missing.
pub fn read_csv(path: &Path, label: &str) -> Result<Vec<Labelled>, StreamError> {
    let shown = path.display().to_string();
    let csv_error = |source| StreamError::Csv { path: shown.clone(), source };
    let file = std::fs::File::open(path).map_err(|source| StreamError::Read { path: shown.clone(), source })?;
    let unpacked: Box<dyn Read> =
        if shown.ends_with(".gz") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut reader = csv::Reader::from_reader(unpacked.take(FILE_MAX));
    let columns: Vec<String> = reader.headers().map_err(csv_error)?.iter().map(str::to_owned).collect();
    let label_at = columns.iter().position(|column| column == label).ok_or_else(|| StreamError::NoColumn {
        path: shown.clone(),
        column: label.to_owned(),
        columns: columns.join(", "),
    })?;
    let mut events = Vec::new();
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let cells = || {
            record.iter().enumerate().filter(|(place, _)| *place != label_at).map(|(place, cell)| (place, cell.trim()))
        };
        let numbers: Option<Vec<f64>> =
            cells().map(|(_, cell)| cell.parse::<f64>().ok().filter(|number| number.is_finite())).collect();
        let features = match numbers {
            Some(numbers) => Features::Dense(numbers),
            None => Features::Named(cells().map(|(place, cell)| (columns[place].clone(), value(cell))).collect()),
        };
        events.push(Labelled { features, label: record.get(label_at).unwrap_or_default().trim().to_owned() });
    }
    if events.is_empty() {
        return Err(StreamError::Empty { path: shown });
    }
    // One form for all events: names, as soon as one event needs them.
    if events.iter().any(|event| matches!(event.features, Features::Named(_))) {
        let names: Vec<&String> =
            columns.iter().enumerate().filter(|(place, _)| *place != label_at).map(|(_, name)| name).collect();
        for event in &mut events {
            if let Features::Dense(numbers) = &event.features {
                let named = names.iter().zip(numbers).map(|(name, number)| ((*name).clone(), Value::Number(*number)));
                event.features = Features::Named(named.collect());
            }
        }
    }
    Ok(events)
}

fn value(cell: &str) -> Value {
    match cell.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::Number(number),
        _ if cell.is_empty() => Value::Missing,
        _ => Value::Text(cell.to_owned()),
    }
}

/// A stream whose concept changes: two of three numbers decide the class, and what they must add up to is another one in
/// each quarter (the SEA concepts of Street and Kim, KDD 2001), with one label in twenty wrong.
pub fn drifting(events: usize, seed: u64) -> Vec<Labelled> {
    const THRESHOLDS: [f64; 4] = [8.0, 13.0, 5.0, 9.5];
    let mut random = StdRng::seed_from_u64(seed);
    let quarter = events.div_ceil(THRESHOLDS.len()).max(1);
    (0..events)
        .map(|place| {
            let numbers: Vec<f64> = (0..3).map(|_| random.random_range(0.0..10.0)).collect();
            let above = numbers[0] + numbers[1] > THRESHOLDS[place / quarter];
            let told = if random.random_bool(0.05) { !above } else { above };
            Labelled { features: Features::Dense(numbers), label: if told { "above" } else { "below" }.to_owned() }
        })
        .collect()
}

/// What two learners without an idea would reach: the last label again, and the most frequent one so far.
#[derive(Default)]
pub struct Baselines {
    seen: u64,
    no_change: u64,
    majority: u64,
    last: Option<String>,
    counts: BTreeMap<String, u64>,
}

/// How far off predictions of numbers were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Errors {
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
}

/// Sums of errors, of which [`Errors`] are means.
#[derive(Default)]
pub struct ErrorSums {
    count: u64,
    absolute: f64,
    squared: f64,
}

impl ErrorSums {
    /// Adds the error of one prediction.
    pub fn add(&mut self, predicted: f64, told: f64) {
        let error = predicted - told;
        self.count += 1;
        self.absolute += error.abs();
        self.squared += error * error;
    }

    /// Their means; zero before the first.
    pub fn means(&self) -> Errors {
        let count = self.count.max(1) as f64;
        Errors { mae: self.absolute / count, rmse: (self.squared / count).sqrt() }
    }

    /// How many predictions there were.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl Baselines {
    /// Tests both, then shows them the label.
    pub fn observe(&mut self, label: &str) {
        self.seen += 1;
        self.no_change += u64::from(self.last.as_deref() == Some(label));
        let most = self.counts.iter().max_by_key(|(_, count)| **count).map(|(class, _)| class.as_str());
        self.majority += u64::from(most == Some(label));
        self.last = Some(label.to_owned());
        *self.counts.entry(label.to_owned()).or_insert(0) += 1;
    }

    /// Accuracy of the last label.
    pub fn no_change(&self) -> f64 {
        self.no_change as f64 / self.seen.max(1) as f64
    }

    /// Accuracy of the most frequent label.
    pub fn majority(&self) -> f64 {
        self.majority as f64 / self.seen.max(1) as f64
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Result<Vec<Labelled>, StreamError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream.csv");
        std::fs::write(&path, text).unwrap();
        read_csv(&path, "y")
    }

    #[test]
    fn numbers_stay_numbers_and_the_rest_becomes_categories() {
        let events = csv("a,y,b\n1,up,2\n3,down,4\n").unwrap();
        assert!(matches!(&events[1].features, Features::Dense(values) if values == &[3.0, 4.0]));
        let events = csv("a,y,b\n1,up,red\n,down,4\n").unwrap();
        assert!(
            matches!(&events[1].features, Features::Named(values) if values[0] == ("a".to_owned(), Value::Missing))
        );
    }

    #[test]
    fn a_missing_label_column_is_named_with_what_there_is() {
        let error = csv("a,b\n1,2\n").err().unwrap().to_string();
        assert!(error.contains("no column \"y\"; its columns are a, b"), "{error}");
    }

    #[test]
    fn baselines_are_tested_before_they_learn() {
        let mut baselines = Baselines::default();
        for label in ["a", "a", "b", "b"] {
            baselines.observe(label);
        }
        assert_eq!(baselines.no_change(), 0.5);
        assert_eq!(baselines.majority(), 0.25);
    }
}
