//! `hebb reset`: has a domain forget what it has learned.

use std::io::{BufRead, Write};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::ask::{Api, Peer};
use crate::cli::Outcome;
use crate::kubernetes::Format;
use crate::node::runtime;
use crate::output::{http_url, percent};

#[derive(Args)]
#[command(after_help = "Examples:
  hebb reset demo                                  # of `hebb start` on this machine; asks first
  hebb reset demo --partition 1 --yes --url http://gateway:8080 --key \"$KEY\"")]
pub struct Options {
    /// The domain
    domain: String,
    /// One of its partitions instead of all
    #[arg(long)]
    partition: Option<u32>,
    /// Don't ask whether that is meant
    #[arg(short, long)]
    yes: bool,
    /// Address of a gateway
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "HEBB_GATEWAY", value_parser = http_url)]
    url: String,
    /// API key, where the gateway asks for one
    #[arg(long, env = "HEBB_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// How to write what it has learned since
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The gateway waits ten seconds for the partitions.
const DEADLINE: Duration = Duration::from_secs(15);

/// The domain's name wasn't typed.
#[derive(Debug, thiserror::Error)]
#[error("that isn't the name: nothing was reset")]
struct Declined;

pub fn run(options: Options) -> Outcome {
    let Options { domain, partition, yes, url, key, output } = options;
    let api = Api::new(Peer::Gateway, &url, key.as_deref(), DEADLINE)?;
    let runtime = runtime()?;
    if !yes {
        let told = told(&runtime.block_on(api.get(&["v1", "domains", &domain], &[]))?);
        confirm(&domain, partition, &told, &mut std::io::stdin().lock(), &mut std::io::stderr())?;
    }
    let body = json!({ "confirm": domain, "partition": partition });
    let learned: Value = runtime.block_on(api.post(&["v1", "domains", &domain, "reset"], &body))?;
    output.print(&told(&learned), &learned)
}

/// What a domain has learned, in a line.
fn told(domain: &Value) -> String {
    format!(
        "{} ({}, {} partitions): {} events, {} labels since it began to learn, accuracy {}",
        domain["name"].as_str().unwrap_or_default(),
        domain["task"].as_str().unwrap_or_default(),
        domain["partitions"],
        domain["events"],
        domain["labels"],
        percent(domain["accuracy"].as_f64().unwrap_or_default()),
    )
}

/// Asks for the name of the domain.
fn confirm(
    domain: &str,
    partition: Option<u32>,
    told: &str,
    from: &mut impl BufRead,
    to: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let what = partition.map_or_else(|| "It".to_owned(), |partition| format!("Its partition {partition}"));
    write!(to, "{told}\n{what} forgets everything that it has learned, for good. Type {domain} to go on: ")?;
    to.flush()?;
    let mut line = String::new();
    from.read_line(&mut line)?;
    if line.trim() == domain { Ok(()) } else { Err(Declined.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_domain_lets_a_reset_go_on() {
        for (typed, goes_on) in [("demo\n", true), (" demo ", true), ("", false), ("y\n", false), ("demo2\n", false)] {
            let mut said = Vec::new();
            let confirmed = confirm("demo", Some(1), "demo: 3 labels", &mut typed.as_bytes(), &mut said);
            assert_eq!(confirmed.is_ok(), goes_on, "{typed:?}");
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with("demo: 3 labels\nIts partition 1 forgets"), "{said}");
        }
    }
}
