//! Test, then train, over one stream: `learner hebb|irithyll STREAM PREDICTIONS`. Writes a predicted class a line (-1 where
//! there is none), and prints the seconds of processor time that it took.

use std::fmt::Write;
use std::path::Path;

use hebb_benches::{read_stream, seconds};
use hebb_engine::{
    Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};
use irithyll::loss::logistic::LogisticLoss;
use irithyll::{MulticlassSGBT, SGBT, SGBTConfig, Sample};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Stream = [(Vec<f64>, usize)];
type Measured = (Vec<i64>, f64);
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [learner, stream, out] = arguments.as_slice() else {
        return Err("usage: learner hebb|irithyll STREAM PREDICTIONS".into());
    };
    let stream = read_stream(Path::new(stream))?;
    let (predictions, taken) = match learner.as_str() {
        "hebb" => hebb(&stream)?,
        "irithyll" => irithyll(&stream)?,
        other => return Err(format!("no learner {other}").into()),
    };
    let mut text = String::new();
    for prediction in predictions {
        writeln!(text, "{prediction}")?;
    }
    std::fs::write(out, text)?;
    println!("{taken}");
    Ok(())
}

/// A domain of task `Classification` as it is by default, answers and all.
fn hebb(stream: &Stream) -> Result<Measured> {
    let entries: Vec<Entry> = stream
        .iter()
        .enumerate()
        .map(|(place, (row, class))| {
            Entry::Event(Event {
                id: place.to_string().into(),
                input: Input::Features(Features::Dense(row.clone())),
                label: Some(Label::Class(class.to_string().into())),
            })
        })
        .collect();
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut predictions = Vec::with_capacity(entries.len());
    let started = seconds();
    for (place, entry) in entries.iter().enumerate() {
        let outcome = partition.apply(EntryId { at_ms: place as u64 + 1, seq: 0 }, entry);
        let predicted = match outcome {
            Outcome::Answer(answer) => answer.prediction,
            other => return Err(format!("event {place}: {other:?}").into()),
        };
        predictions.push(match predicted {
            Some(Prediction::Class(class)) => class.parse()?,
            _ => -1,
        });
    }
    Ok((predictions, seconds() - started))
}

/// Gradient-boosted trees, with the crate's defaults.
fn irithyll(stream: &Stream) -> Result<Measured> {
    let classes = stream.iter().map(|(_, class)| class + 1).max().unwrap_or(0);
    let samples: Vec<Sample> = stream.iter().map(|(row, class)| Sample::new(row.clone(), *class as f64)).collect();
    let config = SGBTConfig::builder().build()?;
    let mut predictions = Vec::with_capacity(samples.len());
    let started = seconds();
    if classes == 2 {
        let mut model = SGBT::with_loss(config, LogisticLoss);
        for (sample, (row, _)) in samples.iter().zip(stream) {
            predictions.push(i64::from(model.predict_transformed(row) > 0.5));
            model.train_one(sample);
        }
    } else {
        let mut model = MulticlassSGBT::new(config, classes)?;
        for (sample, (row, _)) in samples.iter().zip(stream) {
            predictions.push(model.predict(row) as i64);
            model.train_one(sample);
        }
    }
    Ok((predictions, seconds() - started))
}
