//! How answers are written.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::Outcome;
use crate::output::print_line;

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
}

/// How a result is written, for commands that had `--json` first.
#[derive(Args)]
pub struct Output {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Output {
    /// What both options say.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

impl Format {
    /// Prints one of the two.
    pub fn print(self, text: &str, value: &Value) -> Outcome {
        match self {
            Format::Text => print_line(text),
            Format::Json => print_line(serde_json::to_string_pretty(value)?),
        }
    }
}
