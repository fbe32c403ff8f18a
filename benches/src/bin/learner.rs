//! Test, then train, over one stream: `learner hebb|uncertain-GATE|forest|linear|irithyll STREAM PREDICTIONS`. Writes a predicted
//! class a line (-1 where there is none), and prints how many events it learned and the seconds of processor time that it took.

use std::fmt::Write;
use std::path::Path;

use hebb_benches::{read_stream, seconds};
use hebb_engine::parts::{ForestAlone, LinearAlone};
use hebb_engine::{
    Entry, EntryId, Event, Features, GateMode, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};
use irithyll::loss::logistic::LogisticLoss;
use irithyll::{MulticlassSGBT, SGBT, SGBTConfig, Sample};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Stream = [(Vec<f64>, usize)];

/// What a learner made of a stream.
struct Measured {
    predictions: Vec<i64>,
    learned: usize,
    seconds: f64,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [learner, stream, out] = arguments.as_slice() else {
        return Err("usage: learner hebb|uncertain-GATE|forest|linear|irithyll STREAM PREDICTIONS".into());
    };
    let stream = read_stream(Path::new(stream))?;
    let measured = match learner.as_str() {
        "hebb" => hebb(&stream, None)?,
        "forest" => forest(&stream),
        "linear" => linear(&stream),
        "irithyll" => irithyll(&stream)?,
        other => match other.strip_prefix("uncertain-") {
            Some(gate) => hebb(&stream, Some(gate.parse()?))?,
            None => return Err(format!("no learner {other}").into()),
        },
    };
    let mut text = String::new();
    for prediction in measured.predictions {
        writeln!(text, "{prediction}")?;
    }
    std::fs::write(out, text)?;
    println!("{} {}", measured.learned, measured.seconds);
    Ok(())
}

/// A domain of task `Classification` as it is by default, answers and all; with a gate one that learns what was wrong or below it.
fn hebb(stream: &Stream, gate: Option<f32>) -> Result<Measured> {
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
    let mut config = PartitionConfig::new(Task::Classification);
    if let Some(gate) = gate {
        config.hyperparameters.gate_mode = GateMode::Uncertain;
        config.hyperparameters.confidence_gate = gate;
    }
    let mut partition = Partition::new(config);
    let (mut predictions, mut learned) = (Vec::with_capacity(entries.len()), 0);
    let started = seconds();
    for (place, entry) in entries.iter().enumerate() {
        let outcome = partition.apply(EntryId { at_ms: place as u64 + 1, seq: 0 }, entry);
        let predicted = match outcome {
            Outcome::Answer(answer) => {
                learned += usize::from(answer.learned);
                answer.prediction
            }
            other => return Err(format!("event {place}: {other:?}").into()),
        };
        predictions.push(match predicted {
            Some(Prediction::Class(class)) => class.parse()?,
            _ => -1,
        });
    }
    Ok(Measured { predictions, learned, seconds: seconds() - started })
}

/// The forest of a domain by itself.
fn forest(stream: &Stream) -> Measured {
    let mut forest = ForestAlone::new(PartitionConfig::new(Task::Classification).seed);
    alone(stream, |row, classes, class| {
        let predicted = forest.predict(row, classes);
        forest.learn(row, class);
        predicted
    })
}

/// The linear member of a domain by itself.
fn linear(stream: &Stream) -> Measured {
    let mut linear = LinearAlone::default();
    alone(stream, |row, classes, class| {
        let predicted = linear.predict(row, classes);
        linear.learn(row, class);
        predicted
    })
}

/// A member by itself, which is told how many classes there are.
fn alone(stream: &Stream, mut step: impl FnMut(&[f32], usize, usize) -> Option<usize>) -> Measured {
    let classes = stream.iter().map(|(_, class)| class + 1).max().unwrap_or(0);
    let mut row = Vec::new();
    let started = seconds();
    let predictions = stream.iter().map(|(values, class)| {
        row.clear();
        row.extend(values.iter().map(|value| *value as f32));
        step(&row, classes, *class).map_or(-1, |class| class as i64)
    });
    Measured { predictions: predictions.collect(), learned: stream.len(), seconds: seconds() - started }
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
    Ok(Measured { predictions, learned: samples.len(), seconds: seconds() - started })
}
