//! How answers are written.

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::Outcome;
use crate::output::print_line;

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
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
