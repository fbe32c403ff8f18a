//! Logs, traces and metrics of Hebb's processes: one way to set them up, wherever a process runs.
//!
//! People read lines at a terminal; machines read JSON. `LOG_LEVEL` takes a level or a filter such as `info,hebb_node=debug`.

pub mod metrics;
mod otlp;
pub mod traces;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use otlp::OtlpError;

/// Why the logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error("LOG_LEVEL={filter} is neither a level (error, warn, info, debug, trace) nor a filter")]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs are set up already.
    #[error("the logs are set up already")]
    Twice,
}

/// Starts logging to standard error: lines on a terminal, JSON elsewhere.
///
/// # Errors
/// [`TelemetryError`] for a filter that isn't understood or a second call.
pub fn log_to_stderr(filter: &str) -> Result<(), TelemetryError> {
    let parsed = EnvFilter::try_new(filter.to_lowercase())
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started =
        if std::io::stderr().is_terminal() { builder.compact().try_init() } else { builder.json().try_init() };
    started.map_err(|_| TelemetryError::Twice)
}
