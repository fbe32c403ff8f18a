//! The command line.

use std::ffi::OsString;

use clap::builder::{OsStr, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    access, alerts, backup, benchmark, completion, config, demo, evaluate, history, kubernetes, node, operator,
    redis_member, reset, restore, simulate, start, status, top,
};

/// What a subcommand ends with.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Models that learn while they serve.
///
/// `hebb demo` shows learning in a minute, `hebb start` serves on this machine, `kubectl apply -f learningcluster.yaml`
/// serves in a cluster. The file is the same for both.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub struct Arguments {
    /// error, warn, info, debug, trace, or a filter such as info,hebb_node=debug [default: info; warn for benchmark]
    #[arg(long, env = "LOG_LEVEL", global = true)]
    pub log_level: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

/// Commands of two forms: what has the second option is about a LearningCluster of the kubeconfig, and the options after it are
/// for the other form. A variable may set those for all commands; only who writes both has contradicted himself.
const FORMS: [(&str, &str, &[&str]); 4] = [
    ("status", "name", &["coordinator", "token"]),
    ("top", "cluster", &["url", "token"]),
    ("backup", "name", &["file"]),
    ("restore", "name", &["file"]),
];

impl Arguments {
    /// Reads a command line, and the variables of the environment beside it. An empty variable is none: a template can set it
    /// always.
    pub fn read<I: Into<OsString> + Clone>(line: impl IntoIterator<Item = I>) -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(line)?;
        for (name, form, others) in FORMS {
            let Some(found) = matches.subcommand_matches(name).filter(|found| found.contains_id(form)) else {
                continue;
            };
            let is_written = |other: &&&str| found.value_source(other) == Some(ValueSource::CommandLine);
            if let Some(other) = others.iter().find(is_written) {
                let message = format!("--{other} cannot be used where a LearningCluster of the kubeconfig is named");
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// What is logged.
    pub fn level(&self) -> &str {
        let by_default = match &self.command {
            Command::Start(options) if options.verbose => return "debug",
            // What a whole system says of its start and end isn't what was measured.
            Command::Benchmark(_) => "warn",
            _ => "info",
        };
        self.log_level.as_deref().unwrap_or(by_default)
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve on this machine: everything in one process, with the log in a directory or a Redis
    Start(start::Options),
    /// Watch the engine learn a drifting stream, in a minute and without a server
    Demo(demo::Options),
    /// Measure how well Hebb would learn a CSV file: test, then train, one pass
    Evaluate(evaluate::Options),
    /// Put a simulated cluster through crashes, outages and lost messages, faster than the clock
    Simulate(simulate::Options),
    /// Measure how fast patterns are perceived on this machine
    Benchmark(benchmark::Options),
    /// Show a running process or cluster, or a LearningCluster of the kubeconfig
    Status(status::Options),
    /// Watch a running process or cluster in the terminal
    Top(top::Options),
    /// Show what a running process or cluster has measured: series, trends, anomalies
    History(history::Options),
    /// Back up what a cluster has learned, while it learns; or what a stopped `hebb start` has
    Backup(backup::Options),
    /// Fill an empty store with a backup; or make a new cluster from one
    Restore(restore::Options),
    /// Have a domain forget what it has learned
    Reset(reset::Options),
    #[command(flatten)]
    Kubernetes(kubernetes::Command),
    /// Check configuration files
    #[command(subcommand)]
    Config(config::Command),
    /// Make API keys
    #[command(subcommand)]
    Keys(access::Command),
    /// Explain and try AlertPolicies
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Print the CustomResourceDefinitions as YAML
    Crd,
    /// Print a script that completes this command line
    Completion(completion::Options),
    /// Run the Kubernetes operator
    Operator(operator::Options),
    /// Run a gateway of a cluster
    Gateway(node::Options),
    /// Run a coordinator of a cluster
    Coordinator(node::Options),
    /// Run a worker of a cluster
    Worker(node::Options),
    /// Run a part of a pod of Redis
    #[command(subcommand, hide = true)]
    RedisMember(redis_member::Command),
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let set = |argument: Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { argument.env(Resettable::<OsStr>::Reset) } else { argument }
    };
    command.mut_args(set).mut_subcommands(without_empty_variables)
}

/// Runs a subcommand.
pub fn run(command: Command) -> Outcome {
    match command {
        Command::Start(options) => start::run(options),
        Command::Demo(options) => demo::run(options),
        Command::Evaluate(options) => evaluate::run(options),
        Command::Simulate(options) => simulate::run(options),
        Command::Benchmark(options) => benchmark::run(options),
        Command::Status(options) => status::run(options),
        Command::Top(options) => top::run(options),
        Command::History(options) => history::run(options),
        Command::Backup(options) => backup::run(options),
        Command::Restore(options) => restore::run(options),
        Command::Reset(options) => reset::run(options),
        Command::Config(command) => config::run(command),
        Command::Keys(command) => access::run(command),
        Command::Alerts(command) => alerts::run(command),
        Command::Kubernetes(command) => kubernetes::run(command),
        Command::Crd => config::print_crds(),
        Command::Completion(options) => completion::run(options),
        Command::Operator(options) => operator::run(options),
        Command::Gateway(options) => node::run(node::Role::Gateway, options),
        Command::Coordinator(options) => node::run(node::Role::Coordinator, options),
        Command::Worker(options) => node::run(node::Role::Worker, options),
        Command::RedisMember(command) => redis_member::run(command),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_variable_of_the_composition_is_one_of_hebb_start() {
        let command = Arguments::command();
        let start = command.get_subcommands().find(|found| found.get_name() == "start").unwrap();
        let known: BTreeSet<String> = command
            .get_arguments()
            .chain(start.get_arguments())
            .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
            .collect();
        let mut compose: serde_yaml::Value = serde_yaml::from_str(include_str!("../../../compose.yaml")).unwrap();
        compose.apply_merge().unwrap();
        for name in ["coordinator", "worker", "gateway"] {
            let variables = compose["services"][name]["environment"].as_mapping().unwrap();
            let unknown: Vec<&str> =
                variables.keys().filter_map(|key| key.as_str()).filter(|key| !known.contains(*key)).collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
            assert_eq!(compose["services"][name]["command"][0], "start");
        }
    }

    #[test]
    fn lines_of_the_help_are_understood() {
        for line in [
            "hebb logs demo --role worker -f --since 10m -n lab",
            "hebb restart demo --role worker --role gateway --wait -o json",
            "hebb failover demo --wait --timeout 2m",
            "hebb drain demo-worker-0",
            "hebb backup demo --wait",
            "hebb backup --to backups --data-dir hebb-data",
            "hebb backup verify backups",
            "hebb restore demo-2 --like demo --backup a.hebb",
            "hebb restore --from backups --data-dir new",
            "hebb reset demo --partition 1 --yes --url http://127.0.0.1:8080 --key k",
            "hebb silence quality --for 2h --labels alertname=a,severity=b",
            "hebb support-bundle demo -o demo.tar.gz",
            "hebb status demo -o json",
            "hebb status --json",
            "hebb status -o json --coordinator http://127.0.0.1:1",
            "hebb start --role worker --workers 2 --redis-host redis --coordinator c --verbose",
            "hebb benchmark --signals 1000 --workers 8 --json",
        ] {
            assert!(Arguments::read(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "hebb reset --yes",
            "hebb backup",
            "hebb backup demo --to backups",
            "hebb restore demo-2 --from backups",
            "hebb backup --wait --to backups",
            "hebb silence quality --for 2h",
            "hebb logs demo --follow --previous",
            "hebb status demo --coordinator http://127.0.0.1:1",
            "hebb top --cluster demo --token t",
            "hebb backup demo -f cluster.yaml",
            "hebb restore demo-2 --like demo -f cluster.yaml",
        ] {
            assert!(Arguments::read(line.split(' ')).is_err(), "{line}");
        }
        let bulky = Arguments::read(["hebb", "start", "--verbose"]).unwrap();
        assert_eq!(bulky.level(), "debug");
    }
}
