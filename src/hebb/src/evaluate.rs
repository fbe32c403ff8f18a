//! `hebb evaluate`: how well would Hebb learn my stream? Test, then train, one pass, with the defaults of a domain.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hebb_engine::{
    Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Outcome as CliOutcome;
use crate::kubernetes::Output;
use crate::output::{percent, table};
use crate::stream::{Baselines, ErrorSums, Errors, Labelled, StreamError, read_csv};

/// Events between two looks at how well it goes.
const SHOWN_EVERY: usize = 1_000;

#[derive(Args)]
#[command(after_help = "Examples:
  hebb evaluate stream.csv --label class
  hebb evaluate stream.csv --label price --task regression -o json")]
pub struct Options {
    /// CSV file with a header, in stream order; .gz is unpacked
    file: PathBuf,
    /// Column with the label: a class, or a number
    #[arg(long)]
    label: String,
    /// What the labels are [default: numbers, regression, where they are numbers and one has a fraction; else classes]
    #[arg(long, value_enum)]
    task: Option<TaskName>,
    #[command(flatten)]
    output: Output,
}

/// A task, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskName {
    /// The labels are classes
    Classification,
    /// The labels are numbers
    Regression,
}

/// What is printed as JSON, with the task.
#[derive(Debug, Serialize)]
#[serde(tag = "task")]
enum Judged {
    Classification(Report),
    Regression(NumberReport),
}

/// The result of a prequential run over numbers. Every figure is of the same events: those with a label and a prediction.
#[derive(Debug, Serialize)]
struct NumberReport {
    events: u64,
    features: u32,
    /// Labels that were predicted before they were seen.
    predicted: u64,
    #[serde(flatten)]
    errors: Errors,
    events_per_second: f64,
    baselines: NumberBaselines,
}

/// What two learners without an idea would reach.
#[derive(Debug, Serialize)]
struct NumberBaselines {
    /// The mean of the labels so far.
    mean: Errors,
    /// The last label again.
    last: Errors,
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
    let (task, why) = match options.task {
        Some(task) => (task, "as --task says"),
        None => task(events.iter().map(|event| event.label.as_str())),
    };
    let (name, told, judged) = match task {
        TaskName::Classification => {
            let report = prequential(events, |_| {})?;
            ("classification", describe(&report), Judged::Classification(report))
        }
        TaskName::Regression => {
            let report = numbers(events)?;
            ("regression", describe_numbers(&report), Judged::Regression(report))
        }
    };
    options.output.format().print(&format!("{name}: {why}\n\n{}", told.trim_end()), &serde_json::to_value(&judged)?)
}

/// The task of such labels, and why. `hebb start` goes by the first label alone: a domain whose first has a fraction is one of
/// numbers.
fn task<'a>(labels: impl Iterator<Item = &'a str>) -> (TaskName, &'static str) {
    let known = labels.filter(|label| !label.is_empty());
    let numbers: Option<Vec<f64>> = known.map(number).collect();
    match numbers {
        Some(numbers) if numbers.iter().any(|number| number.fract() != 0.0) => (
            TaskName::Regression,
            "the labels are numbers, some with a fraction; --task classification takes them as classes",
        ),
        Some(_) => (TaskName::Classification, "the labels are whole numbers; --task regression takes them as numbers"),
        None => (TaskName::Classification, "the labels are words"),
    }
}

fn number(label: &str) -> Option<f64> {
    label.parse().ok().filter(|number: &f64| number.is_finite())
}

fn describe_numbers(report: &NumberReport) -> String {
    let NumberReport { errors, baselines, .. } = report;
    let row = |name: &str, errors: &Errors| {
        vec![name.to_owned(), format!("{:.4}", errors.mae), format!("{:.4}", errors.rmse)]
    };
    let head = [
        ("events", report.events.to_string()),
        ("features", report.features.to_string()),
        ("labels predicted", report.predicted.to_string()),
        ("events per second", format!("{:.0}", report.events_per_second)),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    let errors = [
        ["ERROR", "MEAN ABSOLUTE", "ROOT MEAN SQUARE"].map(str::to_owned).to_vec(),
        row("Hebb", errors),
        row("mean of the past", &baselines.mean),
        row("last value", &baselines.last),
    ];
    format!("{}\n{}", table(&head), table(&errors))
}

/// Runs the events through a new partition of numbers, with a progress bar. An empty label is none.
fn numbers(events: Vec<Labelled>) -> Result<NumberReport, StreamError> {
    let bar = progress(events.len(), "error");
    let mut partition = Partition::new(PartitionConfig::new(Task::Regression));
    let (mut errors, mut of_mean, mut of_last) = (ErrorSums::default(), ErrorSums::default(), ErrorSums::default());
    let (mut seen, mut mean, mut last) = (0u64, 0.0, 0.0);
    let mut spent = Duration::ZERO;
    for (place, Labelled { features, label }) in events.into_iter().enumerate() {
        let told = match label.as_str() {
            "" => None,
            text => Some(number(text).ok_or_else(|| StreamError::NoNumber { label: label.clone(), event: place + 1 })?),
        };
        let (outcome, took) = apply(&mut partition, place, features, told.map(Label::Number));
        spent += took;
        if let Some(told) = told {
            if let (true, Outcome::Answer(answer)) = (seen > 0, &outcome)
                && let Some(Prediction::Number(predicted)) = answer.prediction
            {
                errors.add(predicted, told);
                of_mean.add(mean, told);
                of_last.add(last, told);
            }
            seen += 1;
            mean += (told - mean) / seen as f64;
            last = told;
        }
        if place.is_multiple_of(SHOWN_EVERY) {
            bar.set_message(format!("{:.4}", errors.means().mae));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let statistics = partition.statistics();
    Ok(NumberReport {
        events: statistics.events,
        features: statistics.features,
        predicted: errors.count(),
        errors: errors.means(),
        events_per_second: statistics.events as f64 / spent.as_secs_f64().max(1e-9),
        baselines: NumberBaselines { mean: of_mean.means(), last: of_last.means() },
    })
}

/// Applies an event, and says how long that took.
fn apply(partition: &mut Partition, place: usize, features: Features, label: Option<Label>) -> (Outcome, Duration) {
    let entry = Entry::Event(Event { id: place.to_string().into(), input: Input::Features(features), label });
    let id = EntryId { at_ms: place as u64 + 1, seq: 0 };
    let started = Instant::now();
    let outcome = partition.apply(id, &entry);
    (outcome, started.elapsed())
}

fn progress(events: usize, measure: &str) -> ProgressBar {
    let bar = ProgressBar::new(events as u64);
    let template = format!("{{bar:40}} {{pos}}/{{len}} events  {{per_sec}}  {measure} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
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
    let bar = progress(events.len(), "accuracy");
    let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
    let mut baselines = Baselines::default();
    let mut spent = Duration::ZERO;
    let (mut right, mut count) = (0u64, 0u64);
    for (place, labelled) in events.into_iter().enumerate() {
        baselines.observe(&labelled.label);
        let label = Label::Class(labelled.label.as_str().into());
        let (outcome, took) = apply(&mut partition, place, labelled.features, Some(label));
        spent += took;
        if let Outcome::Answer(answer) = &outcome {
            let predicted = matches!(&answer.prediction, Some(Prediction::Class(class)) if *class == labelled.label);
            right += u64::from(predicted);
            count += 1;
        }
        if count == SHOWN_EVERY as u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(labels: impl Iterator<Item = f64>) -> Vec<Labelled> {
        let event = |(place, label): (usize, f64)| Labelled {
            features: Features::Dense(vec![(place % 10) as f64]),
            label: label.to_string(),
        };
        labels.enumerate().map(event).collect()
    }

    #[test]
    fn labels_with_a_fraction_are_numbers_unless_one_is_a_word() {
        for (labels, wanted) in [
            (&["0", "1.5", ""][..], TaskName::Regression),
            (&["0", "1", "2"], TaskName::Classification),
            (&["0.5", "many"], TaskName::Classification),
            (&["0.5", "nan"], TaskName::Classification),
        ] {
            assert_eq!(task(labels.iter().copied()).0, wanted, "{labels:?}");
        }
    }

    #[test]
    fn numbers_that_follow_from_the_features_are_predicted_better_than_by_the_baselines() {
        let report = numbers(stream((0..2_000).map(|place| f64::from(place % 10) * 1.5))).unwrap();
        let NumberReport { errors, baselines, .. } = &report;
        // Of 0, 1.5, … 13.5 in turn: the mean is off by 3.75 on average, the last value by 1.5 nine times and by 13.5 once.
        assert!((baselines.mean.mae - 3.75).abs() < 0.05, "{report:?}");
        assert!((baselines.last.mae - 2.7).abs() < 0.01 && baselines.last.rmse > 4.4, "{report:?}");
        assert!(errors.mae < 1.0 && errors.rmse < 2.0, "{report:?}");
        assert_eq!((report.events, report.predicted), (2_000, 1_999));
        let judged = serde_json::to_value(Judged::Regression(report)).unwrap();
        assert!(
            judged["task"] == "Regression" && judged["mae"].is_f64() && judged["baselines"]["last"]["rmse"].is_f64()
        );
    }

    #[test]
    fn a_label_that_is_no_number_is_named() {
        let mut events = stream([0.5, 1.5].into_iter());
        events[1].label = "many".to_owned();
        assert!(numbers(events).unwrap_err().to_string().contains("\"many\" of event 2"));
    }
}
