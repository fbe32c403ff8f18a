//! `hebb demo`: the one-minute try. A drifting stream through an embedded engine, without server or cluster.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Outcome;
use crate::evaluate::{describe, prequential};
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
}

pub fn run(options: Options) -> Outcome {
    let events = match (&options.csv, &options.label) {
        (Some(path), Some(label)) => read_csv(path, label)?,
        _ => {
            print_line(format_args!(
                "A made-up sensor stream of {} events: three numbers, two of which decide the class. What they must add\n\
                 up to changes three times on the way, and one label in twenty is wrong.\n",
                options.events
            ))?;
            drifting(options.events as usize, options.seed)
        }
    };
    let mut shares = Vec::new();
    let report = prequential(events, |share| shares.push(share))?;
    print_line("Accuracy of each thousand events, predicted before the label was seen:")?;
    for line in shares.chunks(10) {
        let shares: String = line.iter().map(|share| format!("{:>8}", percent(*share))).collect();
        print_line(format_args!("  {shares}"))?;
    }
    print_line(format_args!("\n{}", describe(&report)))?;
    print_line("Next: hebb start, then POST events to http://127.0.0.1:8080/v1/domains/NAME/infer-and-adapt")
}
