//! What people and programs read: errors with their causes, tables, percentages, and how it is printed; an address as people write it.

use std::io::{ErrorKind, Write};

use hebb_engine::Task;
use hebb_node::coordinator::DomainStatus;

use crate::cli::Outcome;

/// Who reads what is printed has gone, as `head` does once it has seen enough. That is no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
pub struct ReaderGone;

/// Prints text as it is.
///
/// # Errors
/// [`ReaderGone`], which ends a command quietly, and whatever else keeps the text from being written.
pub fn print(text: impl AsRef<[u8]>) -> Outcome {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_ref()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.map_err(Into::into),
    }
}

/// Prints text and ends the line; the errors are those of [`print`].
pub fn print_line(text: impl std::fmt::Display) -> Outcome {
    print(format!("{text}\n"))
}

/// An error with everything that caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A share as people read it.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// How well a domain does, by the measure of its task.
pub fn quality(domain: &DomainStatus) -> String {
    let (known, without) = match domain.task {
        Task::Classification | Task::TimeSeriesClassification => (domain.recent_accuracy.map(percent), "no labels"),
        Task::Regression => (domain.mean_absolute_error.map(|error| format!("error {error:.3}")), "no labels"),
        Task::Patterns => (domain.patterns.map(|patterns| format!("{patterns} patterns")), "no signals"),
        Task::Governed => {
            (domain.rejection_rate.map(|share| format!("accepts {:.0} %", (1.0 - share) * 100.0)), "no vectors")
        }
    };
    known.unwrap_or_else(|| without.to_owned())
}

/// The address of a server: `http://` may be left out.
///
/// # Errors
/// What is no address.
pub fn http_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match reqwest::Url::parse(&url) {
        Ok(parsed) if parsed.has_host() => Ok(url),
        Ok(_) => Err("it names no host".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Rows in columns as wide as need be.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_do_without_its_scheme() {
        assert_eq!(http_url("127.0.0.1:8000").as_deref(), Ok("http://127.0.0.1:8000"));
        assert_eq!(http_url("hebb:8000/").as_deref(), Ok("http://hebb:8000"));
        assert_eq!(http_url("https://hebb.example/a/").as_deref(), Ok("https://hebb.example/a"));
        assert!(http_url("").is_err());
        assert!(http_url("a b").is_err());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a      b\nlong   c\n");
    }
}
