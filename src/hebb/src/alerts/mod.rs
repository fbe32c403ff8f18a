//! `hebb alerts`: what AlertPolicies would do, and whether their receivers can be reached.

mod watch;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hebb_alert::notify::{Edges, EdgesError, Egress, Net, Resolver, Secrets, send};
use hebb_alert::{Labels, Message};
use hebb_api::{AlertPolicy, Receiver};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

pub use self::watch::{Watch, messages_folder};
use crate::cli::Outcome;
use crate::config;
use crate::kubernetes::Format;
use crate::node::runtime;
use crate::start::DATA;

#[derive(Subcommand)]
pub enum Command {
    /// Say which receivers an alert with these labels would reach now, by which routes, and why not the others
    Route {
        /// YAML files with AlertPolicies
        #[arg(short = 'f', long = "file", required = true)]
        files: Vec<PathBuf>,
        /// Labels of the alert, for example severity=Critical,alertname=RedisDown
        #[arg(long, value_delimiter = ',', value_parser = label, required = true)]
        labels: Vec<(String, String)>,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Send a test message to a receiver, and say what it answered
    Test {
        /// YAML files with AlertPolicies
        #[arg(short = 'f', long = "file", required = true)]
        files: Vec<PathBuf>,
        /// Name of the receiver
        #[arg(long)]
        receiver: String,
        /// Where `hebb start` keeps its data: a `file` receiver writes below it, as it would there
        #[arg(long, value_name = "DIR", default_value = DATA)]
        data_dir: PathBuf,
        #[command(flatten)]
        surroundings: Surroundings,
        /// How to write what came of it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// What a process without Kubernetes gives to AlertPolicies.
#[derive(Args)]
pub struct Surroundings {
    /// Folder with a file NAME/KEY for each key of a Secret that receivers refer to, as Kubernetes mounts Secrets
    #[arg(long, value_name = "DIR", default_value = "hebb-secrets")]
    secrets_dir: PathBuf,
    /// Certificates (PEM) that receivers of alerts are trusted by, besides those of the system
    #[arg(long, env = "HEBB_RECEIVER_CA", value_name = "FILE")]
    receiver_ca: Option<PathBuf>,
}

impl Surroundings {
    /// The way out. Who writes the file also runs the process, so that this machine and its network may be reached.
    fn edges(&self, files: Option<PathBuf>) -> Result<Edges, Box<dyn std::error::Error>> {
        let roots = receiver_roots(self.receiver_ca.as_deref())?;
        let loopback = ["127.0.0.0/8", "::1"].into_iter().map(str::parse).collect::<Result<Vec<Net>, _>>()?;
        let egress = Egress { private: true, exceptions: loopback, denied: Vec::new() };
        Edges::new(egress, Resolver::System, &roots, files).map_err(|error: EdgesError| error.into())
    }

    /// The values of the Secrets that these keys name. What is missing is said by whoever needs it.
    fn secrets(&self, references: &[&hebb_api::SecretKeyRef]) -> Secrets {
        let mut secrets = Secrets::default();
        for reference in references {
            // Both names are checked with the object: neither leads out of the folder.
            let file = self.secrets_dir.join(&reference.name).join(&reference.key);
            if let Ok(value) = std::fs::read_to_string(file) {
                secrets.insert(reference, &value);
            }
        }
        secrets
    }
}

/// The certificates (PEM) of `--receiver-ca`.
pub fn receiver_roots(file: Option<&Path>) -> Result<Vec<u8>, String> {
    file.map_or(Ok(Vec::new()), |file| {
        std::fs::read(file).map_err(|error| format!("can't read {}: {error}", file.display()))
    })
}

/// A label of the command line, NAME=VALUE.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn read(files: &[PathBuf]) -> Result<Vec<AlertPolicy>, Box<dyn std::error::Error>> {
    let mut policies = Vec::new();
    for file in files {
        policies.extend(config::read(file)?.policies);
    }
    if policies.is_empty() { Err("the files hold no AlertPolicy".into()) } else { Ok(policies) }
}

pub fn run(command: Command) -> Outcome {
    match command {
        Command::Route { files, labels, output } => {
            let labels: Labels = labels.into_iter().collect();
            let (mut text, mut said) = (String::new(), Vec::new());
            for policy in read(&files)? {
                let explained = config::compile(&policy)?.explain(&labels, Timestamp::now());
                text.push_str(&format!("AlertPolicy {}\n{explained}\n", policy.name_any()));
                let lines: Vec<&str> = explained.lines().collect();
                said.push(json!({"policy": policy.name_any(), "explanation": lines}));
            }
            output.print(text.trim_end(), &json!({"policies": said}))
        }
        Command::Test { files, receiver, data_dir, surroundings, output } => {
            let policies = read(&files)?;
            let found = policies.iter().find_map(|policy| Some((policy, named(policy, &receiver)?)));
            let (policy, receiver) = found.ok_or_else(|| format!("no AlertPolicy has a receiver {receiver:?}"))?;
            let secrets = surroundings.secrets(&receiver.secrets());
            let files = receiver.file.is_some().then(|| messages_folder(&data_dir)).transpose()?;
            let edges = surroundings.edges(files)?;
            let message = Message::test(&policy.name_any(), Timestamp::now());
            runtime()?
                .block_on(send(receiver, &message, &secrets, &edges, receiver.timeout.0))
                .map_err(|error| format!("receiver {} took no test message: {}", receiver.name, error.reason))?;
            let said = json!({"policy": policy.name_any(), "receiver": receiver.name, "taken": true});
            output.print(&format!("receiver {} took a test message", receiver.name), &said)
        }
    }
}

fn named<'a>(policy: &'a AlertPolicy, name: &str) -> Option<&'a Receiver> {
    policy.spec.receivers.iter().find(|receiver| receiver.name == name)
}
