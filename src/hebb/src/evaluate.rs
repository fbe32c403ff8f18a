//! `hebb evaluate`: how well would Hebb learn my stream? Test, then train, one pass, with the defaults of a domain.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hebb_engine::{Entry, EntryId, Event, Input, Label, Outcome, Partition, PartitionConfig, Task};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Outcome as CliOutcome;
use crate::output::{percent, print, print_line, table};
use crate::stream::{Baselines, Labelled, StreamError, read_csv};

#[derive(Args)]
pub struct Options {
    /// CSV file with a header, in stream order; .gz is unpacked
    file: PathBuf,
    /// Column with the class
    #[arg(long)]
    label: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result of a prequential run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub events: u64,
    pub features: u32,
    pub classes: usize,
    /// Share of right predictions, each made before its label was seen.
    pub accuracy: f64,
    /// Cohen's kappa: accuracy beyond chance.
    pub kappa: f64,
    /// Mean log-loss of the predicted probabilities, in nats.
    pub log_loss: f64,
    pub events_per_second: f64,
    pub baselines: BaselineReport,
}

#[derive(Debug, Serialize)]
pub struct BaselineReport {
    pub no_change: f64,
    pub majority: f64,
}

pub fn run(options: Options) -> CliOutcome {
    let events = read_csv(&options.file, &options.label)?;
    let report = prequential(events, |_| {})?;
    if options.json { print_line(serde_json::to_string_pretty(&report)?) } else { print(describe(&report)) }
}

/// The report as a table.
pub fn describe(report: &Report) -> String {
    let rows = [
        ("events", report.events.to_string()),
        ("features", report.features.to_string()),
        ("classes", report.classes.to_string()),
        ("accuracy", percent(report.accuracy)),
        ("kappa", format!("{:.3}", report.kappa)),
        ("log loss", format!("{:.3}", report.log_loss)),
        ("no-change baseline", percent(report.baselines.no_change)),
        ("majority baseline", percent(report.baselines.majority)),
        ("events per second", format!("{:.0}", report.events_per_second)),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    table(&rows)
}

/// Runs the events through a new partition with a progress bar; `watch` sees the share of right predictions of the last
/// thousand events now and then.
pub fn prequential(events: Vec<Labelled>, mut watch: impl FnMut(f64)) -> Result<Report, StreamError> {
    let bar = ProgressBar::new(events.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} events  {per_sec}  accuracy {msg}") {
        bar.set_style(style);
    }
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut baselines = Baselines::default();
    let mut spent = Duration::ZERO;
    let (mut right, mut count) = (0u64, 0u64);
    for (place, labelled) in events.into_iter().enumerate() {
        baselines.observe(&labelled.label);
        let entry = Entry::Event(Event {
            id: place.to_string().into(),
            input: Input::Features(labelled.features),
            label: Some(Label::Class(labelled.label.as_str().into())),
        });
        let id = EntryId { at_ms: place as u64 + 1, seq: 0 };
        let started = Instant::now();
        let outcome = partition.apply(id, &entry);
        spent += started.elapsed();
        if let Outcome::Answer(answer) = &outcome {
            let predicted =
                matches!(&answer.prediction, Some(hebb_engine::Prediction::Class(class)) if *class == labelled.label);
            right += u64::from(predicted);
            count += 1;
        }
        if count == 1_000 {
            watch(right as f64 / count as f64);
            bar.set_message(percent(partition.statistics().accuracy));
            (right, count) = (0, 0);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let statistics = partition.statistics();
    Ok(Report {
        events: statistics.events,
        features: statistics.features,
        classes: baselines.classes(),
        accuracy: statistics.accuracy,
        kappa: statistics.kappa,
        log_loss: statistics.log_loss,
        events_per_second: statistics.events as f64 / spent.as_secs_f64().max(1e-9),
        baselines: BaselineReport { no_change: baselines.no_change(), majority: baselines.majority() },
    })
}
