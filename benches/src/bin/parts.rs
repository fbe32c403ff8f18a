//! Parts of the engine by themselves, on numbers from a file; prints figures as JSON. The subcommands are in `main`.

use std::collections::BTreeMap;
use std::path::Path;

use hebb_benches::{read_floats, seconds};
use hebb_engine::parts::{Adwin, Keep, Memory, Neighbours};
use hebb_engine::{
    Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, RowDetector,
    SeriesDetector, Task, Value,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["memory", file, width, count, wanted] => {
            memory(&read_floats(Path::new(file))?, width.parse()?, count.parse()?, wanted.parse()?)
        }
        ["keep", file, width, count] => keep(&read_floats(Path::new(file))?, width.parse()?, count.parse()?),
        ["drift", file, run, change] => drift(&read_floats(Path::new(file))?, run.parse()?, change.parse()?),
        ["perceive", file, chunk] => perceive(&read_floats(Path::new(file))?, chunk.parse()?),
        ["series", file, out] => series(&read_floats(Path::new(file))?, Path::new(out)),
        ["rows", file, width, out] => rows(&read_floats(Path::new(file))?, width.parse()?, Path::new(out)),
        [how @ ("library" | "domain"), file, channels, length, count] => {
            let width: usize = channels.parse::<usize>()? * length.parse::<usize>()?;
            let values = read_floats(Path::new(file))?;
            let rows = values.chunks_exact(width + 1).map(|row| (&row[1..], row[0] as usize)).collect::<Vec<_>>();
            signals(*how == "domain", &rows, channels.parse()?, count.parse()?)
        }
        _ => Err("usage: parts memory FILE WIDTH COUNT WANTED, keep FILE WIDTH COUNT, drift FILE RUN CHANGE, perceive FILE CHUNK, \
            series FILE OUT, rows FILE WIDTH OUT, library|domain FILE CHANNELS LENGTH COUNT"
            .into()),
    }
}

/// The experience memory of a classification: `count` rows go in, the `wanted` nearest to each of the others are looked for. It may
/// hold fewer.
fn memory(values: &[f32], width: usize, count: usize, wanted: usize) -> Result<()> {
    let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
    let (stored, queries) = rows.split_at(count);
    let mut memory = Memory::new(count as u32);
    // The same rows twice: the second time each drives the oldest out.
    let mut rates = Vec::new();
    for _ in 0..2 {
        let started = seconds();
        for (place, row) in stored.iter().enumerate() {
            memory.insert(row, place as f32, &[]);
        }
        rates.push(stored.len() as f64 / (seconds() - started));
    }
    let (mut found, mut nearest, mut times) = (Neighbours::of(wanted), Vec::new(), Vec::new());
    for row in queries {
        let started = seconds();
        memory.search(row, &[], &mut found);
        times.push((seconds() - started) * 1e6);
        nearest.push(found.long.iter().map(|neighbour| neighbour.label.to_string()).collect::<Vec<_>>().join(","));
    }
    // What telling the time costs is not the search's: all at once.
    let started = seconds();
    for row in queries {
        memory.search(row, &[], &mut found);
    }
    let searched = seconds() - started;
    times.sort_by(f64::total_cmp);
    println!(
        r#"{{"held": {}, "inserts_per_second": {:.1}, "inserts_with_eviction_per_second": {:.1}, "queries_per_second": {:.1}, "p50_us": {:.1}, "p99_us": {:.1}, "bytes": {}, "nearest": [{}]}}"#,
        memory.len(),
        rates[0],
        rates[1],
        queries.len() as f64 / searched,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        memory.bytes(),
        nearest.iter().map(|labels| format!("[{labels}]")).collect::<Vec<_>>().join(",")
    );
    Ok(())
}

/// The store of a governed memory: filled, then every further row drives one out, then steps of consolidation.
fn keep(values: &[f32], width: usize, count: usize) -> Result<()> {
    const STEPS: u32 = 200;
    let mut keep = Keep::new(count as u32);
    let mut rates = Vec::new();
    let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
    for (part, rows) in [&rows[..count], &rows[count..]].into_iter().enumerate() {
        let started = seconds();
        for (place, row) in rows.iter().enumerate() {
            keep.insert(row, 0.5 + ((place + part) % 97) as f32 / 200.0);
        }
        rates.push(rows.len() as f64 / (seconds() - started));
    }
    let (bytes, held, evicted) = (keep.bytes(), keep.len(), keep.evicted);
    let started = seconds();
    for _ in 0..STEPS {
        keep.consolidate();
    }
    println!(
        r#"{{"held": {held}, "inserts_per_second": {:.1}, "inserts_with_eviction_per_second": {:.1}, "evicted": {evicted}, "consolidation_us": {:.1}, "bytes": {bytes}}}"#,
        rates[0],
        rates[1],
        (seconds() - started) * 1e6 / f64::from(STEPS),
    );
    Ok(())
}

/// The drift detector on runs of `run` numbers whose mean changes after `change`.
fn drift(values: &[f32], run: usize, change: usize) -> Result<()> {
    let (mut false_alarms, mut delays, mut missed) = (0, Vec::new(), 0);
    let mut taken = 0.0;
    for numbers in values.chunks_exact(run) {
        let mut detector = Adwin::new(0.002);
        let started = seconds();
        let alarms: Vec<usize> = (0..run).filter(|place| detector.insert(f64::from(numbers[*place]))).collect();
        taken += seconds() - started;
        false_alarms += alarms.iter().filter(|place| **place < change).count();
        match alarms.iter().find(|place| change <= **place) {
            Some(place) => delays.push((place - change + 1) as f64),
            None => missed += 1,
        }
    }
    println!(
        r#"{{"delay": {:.1}, "missed": {missed}, "false_alarms": {false_alarms}, "points_per_second": {:.1}}}"#,
        delays.iter().sum::<f64>() / delays.len().max(1) as f64,
        values.len() as f64 / taken,
    );
    Ok(())
}

/// A domain of task `Patterns` as it is by default, in events of `chunk` samples.
fn perceive(samples: &[f32], chunk: usize) -> Result<()> {
    let mut partition = Partition::new(PartitionConfig::new(Task::Patterns));
    let entries: Vec<Entry> = samples
        .chunks(chunk)
        .enumerate()
        .map(|(place, chunk)| {
            Entry::Event(Event { id: place.to_string().into(), input: Input::Signal(chunk.to_vec()), label: None })
        })
        .collect();
    let (mut level_0, mut all) = (0, 0);
    let started = seconds();
    for (place, entry) in entries.iter().enumerate() {
        let outcome = partition.apply(EntryId { at_ms: place as u64 + 1, seq: 0 }, entry);
        let Outcome::Answer(answer) = outcome else { return Err(format!("{outcome:?}").into()) };
        all += answer.patterns.len();
        level_0 += answer.patterns.iter().filter(|pattern| pattern.level == 0).count();
    }
    println!(
        r#"{{"samples_per_second": {:.1}, "matches_of_level_0": {level_0}, "matches": {all}, "patterns": {}}}"#,
        samples.len() as f64 / (seconds() - started),
        partition.statistics().patterns,
    );
    Ok(())
}

/// Anomaly scores of series, each of which begins behind a NaN; written as numbers of four bytes, without these.
fn series(samples: &[f32], out: &Path) -> Result<()> {
    let started = seconds();
    let mut detector = SeriesDetector::default();
    let mut scores = Vec::with_capacity(samples.len());
    for sample in samples {
        if sample.is_nan() {
            detector = SeriesDetector::default();
        } else {
            scores.push(detector.step(f64::from(*sample)).score as f32);
        }
    }
    write_scores(&scores, seconds() - started, out)
}

/// Anomaly scores of rows of features.
fn rows(values: &[f32], width: usize, out: &Path) -> Result<()> {
    let started = seconds();
    let mut detector = RowDetector::default();
    let scores: Vec<f32> = values.chunks_exact(width).map(|row| detector.step(row) as f32).collect();
    write_scores(&scores, seconds() - started, out)
}

fn write_scores(scores: &[f32], taken: f64, out: &Path) -> Result<()> {
    std::fs::write(out, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>())?;
    println!(r#"{{"points_per_second": {:.1}}}"#, scores.len() as f64 / taken);
    Ok(())
}

/// Classifies whole signals: the first `count` are learned in one pass, the others are told apart. By a domain of task
/// `TimeSeriesClassification`, or by the patterns that a domain of task `Patterns` finds in them as the features of a
/// classification.
fn signals(by_domain: bool, rows: &[(&[f32], usize)], channels: usize, count: usize) -> Result<()> {
    let (train, test) = rows.split_at(count);
    let mut domain = Signals::new(channels);
    let mut library = Library::new(channels);
    let started = seconds();
    for (signal, class) in train {
        if by_domain {
            domain.apply(signal, Some(*class))?;
        } else {
            library.apply(signal, Some(*class))?;
        }
    }
    let learned = seconds() - started;
    let started = seconds();
    let mut right = 0;
    for (signal, class) in test {
        let found = if by_domain { domain.apply(signal, None)? } else { library.apply(signal, None)? };
        right += usize::from(found == Some(*class));
    }
    println!(
        r#"{{"accuracy": {:.4}, "learned_per_second": {:.1}, "classified_per_second": {:.1}}}"#,
        right as f64 / test.len() as f64,
        train.len() as f64 / learned,
        test.len() as f64 / (seconds() - started),
    );
    Ok(())
}

/// A domain of whole signals.
struct Signals {
    channels: usize,
    partition: Partition,
    entries: u64,
}

impl Signals {
    fn new(channels: usize) -> Self {
        let config = PartitionConfig::new(Task::TimeSeriesClassification);
        Self { channels, partition: Partition::new(config), entries: 0 }
    }

    /// The class of a signal, which is learned where it is told.
    fn apply(&mut self, signal: &[f32], class: Option<usize>) -> Result<Option<usize>> {
        self.entries += 1;
        let samples = signal.chunks(signal.len() / self.channels);
        let input = Input::Channels(samples.map(<[f32]>::to_vec).collect());
        let entry = match class {
            Some(class) => {
                let label = Some(Label::Class(class.to_string().into()));
                Entry::Event(Event { id: self.entries.to_string().into(), input, label })
            }
            None => Entry::Infer(input),
        };
        predicted(self.partition.apply(EntryId { at_ms: self.entries, seq: 0 }, &entry))
    }
}

/// The class that is answered, by its number.
fn predicted(outcome: Outcome) -> Result<Option<usize>> {
    let Outcome::Answer(answer) = outcome else { return Err(format!("{outcome:?}").into()) };
    Ok(match answer.prediction {
        Some(Prediction::Class(class)) => class.parse().ok(),
        _ => None,
    })
}

/// A domain of patterns, by channel, and a classification that is told which patterns a signal has, how often and how alike.
struct Library {
    channels: Vec<Partition>,
    classifier: Partition,
    events: u64,
    /// Features so far: a pattern that a signal doesn't have is there no times.
    known: BTreeMap<String, f64>,
}

impl Library {
    fn new(channels: usize) -> Self {
        let partition = |task| Partition::new(PartitionConfig::new(task));
        let library = (0..channels).map(|_| partition(Task::Patterns)).collect();
        Self { channels: library, classifier: partition(Task::Classification), events: 0, known: BTreeMap::new() }
    }

    /// The class of a signal, which is learned where it is told.
    fn apply(&mut self, signal: &[f32], class: Option<usize>) -> Result<Option<usize>> {
        self.events += 1;
        let at = EntryId { at_ms: self.events, seq: 0 };
        let event = |input, label| Entry::Event(Event { id: self.events.to_string().into(), input, label });
        let mut features = self.known.clone();
        let length = signal.len() / self.channels.len();
        for (number, (library, samples)) in self.channels.iter_mut().zip(signal.chunks(length)).enumerate() {
            let outcome = library.apply(at, &event(Input::Signal(samples.to_vec()), None));
            let Outcome::Answer(answer) = outcome else { return Err(format!("{outcome:?}").into()) };
            for pattern in answer.patterns {
                *features.entry(format!("count {number} {}", pattern.id)).or_default() += 1.0;
                *features.entry(format!("alike {number} {}", pattern.id)).or_default() += f64::from(pattern.similarity);
            }
        }
        self.known.extend(features.keys().map(|name| (name.clone(), 0.0)));
        let features = features.into_iter().map(|(name, value)| (name, Value::Number(value))).collect();
        let label = class.map(|class| Label::Class(class.to_string().into()));
        predicted(self.classifier.apply(at, &event(Input::Features(Features::Named(features)), label)))
    }
}
