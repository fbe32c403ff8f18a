//! Whom the API serves: `hebb keys`, and what gateways are told of keys and limits.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use hebb_api::{GatewaySpec, RateLimitSpec};
use hebb_node::Access;
use hebb_node::gateway::KeyLine;
use serde_json::json;

use crate::cli::Outcome;
use crate::kubernetes::Format;

#[derive(Subcommand)]
pub enum Command {
    /// Make an API key: prints it, once, and the line that lets it in
    New {
        /// Whom it is for; keys of one name share a limit
        #[arg(long)]
        name: String,
        /// A tier of spec.gateway.rateLimit; without one the limit of everybody holds
        #[arg(long)]
        tier: Option<String>,
        /// How to write both
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub fn run(command: Command) -> Outcome {
    let Command::New { name, tier, output } = command;
    let (key, line) = KeyLine::new(&name, tier.as_deref())?;
    let line = line.to_string();
    let said = json!({"name": name, "tier": tier, "key": key, "line": line});
    output.print(&format!("key:  {key}\nline: {line}"), &said)?;
    eprintln!(
        "Give the key to {name}: it is stored nowhere. Add the line, without \"line: \", to the file of --api-keys or to \
         the Secret of spec.gateway.auth."
    );
    Ok(())
}

/// Whom a gateway serves, and how much.
#[derive(Args)]
pub struct AccessOptions {
    /// File with API keys, or a folder of such files, as `hebb keys new` prints them; without it no key is asked for
    #[arg(long, env = "HEBB_API_KEYS", value_name = "PATH")]
    api_keys: Option<PathBuf>,
    /// How much a client may ask for, as JSON [default: spec.gateway.rateLimit; else 5 requests a second with keys]
    #[arg(long, env = "HEBB_RATE_LIMIT", value_name = "JSON", value_parser = hebb_api::load::rate_limit)]
    rate_limit: Option<RateLimitSpec>,
    /// Let every client ask for as much as it likes: for tests
    #[arg(long, env = "DISABLE_RATE_LIMIT", value_parser = BoolishValueParser::new())]
    disable_rate_limit: bool,
}

/// The file asks for keys, and nobody said where they are.
#[derive(Debug, thiserror::Error)]
#[error("spec.gateway.auth asks for the keys in the Secret {0}, which only Kubernetes can read: say --api-keys PATH")]
pub struct MissingKeys(String);

impl AccessOptions {
    /// What the options say, and for the rest the cluster's file.
    pub fn with(&self, spec: &GatewaySpec) -> Result<Access, MissingKeys> {
        if let (None, Some(auth)) = (&self.api_keys, &spec.auth) {
            return Err(MissingKeys(auth.secret_ref.name.clone()));
        }
        Ok(Access {
            api_keys: self.api_keys.clone(),
            rate_limit: self.rate_limit.clone().or_else(|| spec.rate_limit.clone()),
            unlimited: self.disable_rate_limit,
        })
    }
}
