//! Logs, traces and metrics of Hebb's processes: one way to set them up, wherever a process runs.
//!
//! People read lines at a terminal; machines read JSON. `LOG_LEVEL` takes a level or a filter such as `info,hebb_node=debug`.

pub mod metrics;
mod otlp;
pub mod traces;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub use otlp::OtlpError;

/// Why the logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A word of the filter that is no level. A filter takes it for the target of which everything is logged, and then nothing
    /// else is.
    #[error(
        "LOG_LEVEL={filter}: {word} is no level (off, error, warn, info, debug, trace); of a target write {word}=debug"
    )]
    Level {
        /// What was given.
        filter: String,
        /// The word.
        word: String,
    },
    /// The filter is not understood.
    #[error("LOG_LEVEL={filter} is neither a level (off, error, warn, info, debug, trace) nor a filter")]
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
    let builder = tracing_subscriber::fmt().with_env_filter(parsed(filter)?).with_writer(std::io::stderr);
    let started =
        if std::io::stderr().is_terminal() { builder.compact().try_init() } else { builder.json().try_init() };
    started.map_err(|_| TelemetryError::Twice)
}

/// A level in any case, `warning` too, or a filter. One that names spans is left to the filter's parser.
fn parsed(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let mut directives: Vec<String> = filter.to_lowercase().split(',').map(|part| part.trim().to_owned()).collect();
    let names_spans = filter.contains(['[', '{']);
    for directive in directives.iter_mut().filter(|directive| !directive.is_empty() && !names_spans) {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (format!("{target}="), level),
            None => (String::new(), directive.as_str()),
        };
        let level = if level == "warning" { "warn" } else { level };
        if target.is_empty() && level.parse::<LevelFilter>().is_err() {
            return Err(TelemetryError::Level { filter: filter.to_owned(), word: level.to_owned() });
        }
        *directive = format!("{target}{level}");
    }
    let directives = directives.join(",");
    EnvFilter::try_new(directives).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_taken_in_any_case_and_a_word_that_is_none_is_refused() {
        let shown = |filter: &str| match parsed(filter) {
            Ok(filter) => filter.to_string(),
            Err(error) => error.to_string(),
        };
        for (filter, wanted) in [
            ("info", "info"),
            ("DEBUG", "debug"),
            ("WARNING", "warn"),
            ("Off", "off"),
            ("hebb_node=warning", "hebb_node=warn"),
            ("hebb_node[span{field}]=debug", "hebb_node[span{field}]=debug"),
        ] {
            assert_eq!(shown(filter), wanted, "{filter}");
        }
        assert_eq!(parsed("info,hebb_node=debug").unwrap().max_level_hint(), Some(LevelFilter::DEBUG));
        for (filter, word) in [("inof", "inof is no level"), ("info,hebb_node", "of a target write hebb_node=debug")] {
            assert!(shown(filter).contains(word), "{filter}: {}", shown(filter));
        }
        assert!(shown("hebb_node=loud").contains("is neither a level"), "{}", shown("hebb_node=loud"));
    }
}
