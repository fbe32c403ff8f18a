//! `hebb demo`: the one-minute try. A drifting stream through an embedded engine, without server or cluster.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::Outcome;
use crate::evaluate::{describe, prequential};
use crate::kubernetes::Format;
use crate::output::{percent, print_line};
use crate::stream::{drifting, read_csv};

#[derive(Args)]
pub struct Options {
    /// Events to stream, when no file is given
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    events: u32,
    /// Seed of the stream that is made
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Your own stream instead: a CSV file with a header
    #[arg(long, requires = "label")]
    csv: Option<PathBuf>,
    /// Column with the class
    #[arg(long)]
    label: Option<String>,
    /// How to write what came of it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(options: Options) -> Outcome {
    let is_read = options.output == Format::Text;
    let events = match (&options.csv, &options.label) {
        (Some(path), Some(label)) => read_csv(path, label)?,
        _ => {
            if is_read {
                print_line(format_args!(
                    "A made-up sensor stream of {} events: three numbers, two of which decide the class. What they must add\n\
                     up to changes three times on the way, and one label in twenty is wrong.\n",
                    options.events
                ))?;
            }
            drifting(options.events as usize, options.seed)
        }
    };
    let mut shares = Vec::new();
    let report = prequential(events, |share| shares.push(share))?;
    let mut text = "Accuracy of each thousand events, predicted before the label was seen:\n".to_owned();
    for line in shares.chunks(10) {
        let shares: String = line.iter().map(|share| format!("{:>8}", percent(*share))).collect();
        text.push_str(&format!("  {shares}\n"));
    }
    text.push_str(&format!(
        "\n{}\nNext: hebb start, then POST events to http://127.0.0.1:8080/v1/domains/NAME/infer-and-adapt",
        describe(&report)
    ));
    options.output.print(&text, &json!({"accuracy_of_each_thousand": shares, "report": report}))
}
