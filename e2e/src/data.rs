//! The real data stream: NASA's shuttle sensors, as a package of a public registry carries it (see `e2e/data`).

use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::Error;

/// One labelled record.
#[derive(Clone, Debug)]
pub struct Record {
    /// The sensors' readings.
    pub features: Vec<f64>,
    /// The class.
    pub label: String,
}

/// The first records of the stream that `make test-e2e` has fetched (HEBB_E2E_DATA).
///
/// # Errors
/// No such file.
pub fn first_records(count: usize) -> Result<Vec<Record>, Error> {
    let path = std::env::var_os("HEBB_E2E_DATA").ok_or("HEBB_E2E_DATA isn't set: run make test-e2e")?;
    let mut records = read(Path::new(&path), "anomaly")?;
    records.truncate(count);
    Ok(records)
}

/// Reads a gzip CSV file with a header whose column `label` is the class.
///
/// # Errors
/// A file that isn't one.
pub fn read(path: &Path, label: &str) -> Result<Vec<Record>, Error> {
    let file =
        std::fs::File::open(path).map_err(|error| format!("{}: {error}; run e2e/data/fetch.sh", path.display()))?;
    let mut reader = csv::Reader::from_reader(MultiGzDecoder::new(file));
    let columns = reader.headers()?.clone();
    let label_at = columns.iter().position(|column| column == label).ok_or("no label column")?;
    reader
        .records()
        .map(|record| {
            let record = record?;
            let features = record.iter().enumerate().filter(|(place, _)| *place != label_at);
            let features = features.map(|(_, cell)| cell.trim().parse::<f64>()).collect::<Result<Vec<f64>, _>>()?;
            Ok(Record { features, label: record.get(label_at).unwrap_or_default().to_owned() })
        })
        .collect()
}

/// Accuracy of two learners without an idea: the last label again, and the most frequent one so far.
pub fn baselines(records: &[Record]) -> (f64, f64) {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    let (mut last, mut no_change, mut majority) = (None, 0u64, 0u64);
    for record in records {
        let label = record.label.as_str();
        no_change += u64::from(last == Some(label));
        let most = counts.iter().max_by_key(|(_, count)| **count).map(|(class, _)| *class);
        majority += u64::from(most == Some(label));
        last = Some(label);
        *counts.entry(label).or_insert(0) += 1;
    }
    let all = records.len().max(1) as f64;
    (no_change as f64 / all, majority as f64 / all)
}
