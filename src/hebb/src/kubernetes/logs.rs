//! `hebb logs`: what all pods of a LearningCluster say, one line after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::{AsyncBufReadExt, TryStreamExt};
use hebb_api::LearningCluster;
use hebb_api::names::{self, Role};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reach::{Reach, ReachError, call, named};
use crate::cli::Outcome;
use crate::node::runtime;

/// Bytes that are read of one container at most.
const CONTAINER_MAX: i64 = 16 << 20;
/// Lines of a followed log that wait for the terminal.
const QUEUE: usize = 1_024;
/// How soon a followed cluster is asked for pods that are new.
const LOOK_EVERY: Duration = Duration::from_secs(3);

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl hebb logs demo
  kubectl hebb logs demo --role worker -f
  kubectl hebb logs demo --role redis --since 10m --container tend")]
pub struct Options {
    /// Name of the LearningCluster
    name: String,
    /// Only the pods of this role
    #[arg(long, value_enum)]
    role: Option<RoleName>,
    /// Only containers of this name
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what is said from now on, of new pods too
    #[arg(short, long)]
    follow: bool,
    /// Only what was said so long ago at most, for example 10m
    #[arg(long)]
    since: Option<hebb_api::Duration>,
    /// The last lines of each container
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    tail: i64,
    /// Of containers that restarted, what the one before said
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Show when each line was written
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    reach: Reach,
}

/// A role, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum RoleName {
    /// The API
    Gateway,
    /// Assignment and status
    Coordinator,
    /// Learning
    Worker,
    /// The log
    Redis,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Role {
        match name {
            RoleName::Gateway => Role::Gateway,
            RoleName::Coordinator => Role::Coordinator,
            RoleName::Worker => Role::Worker,
            RoleName::Redis => Role::Redis,
        }
    }
}

/// What selects the pods that are meant.
fn selector(cluster: &str, role: Option<Role>) -> String {
    let role = role.map(|role| format!(",app.kubernetes.io/component={}", role.as_str())).unwrap_or_default();
    format!("{}={cluster}{role}", names::CLUSTER_LABEL)
}

pub fn run(options: Options) -> Outcome {
    runtime()?.block_on(async {
        let (client, namespace) = options.reach.client(!options.follow).await?;
        named::<LearningCluster>(&client, &namespace, &options.name, "LearningCluster").await?;
        let wanted = Wanted {
            client,
            namespace,
            selector: selector(&options.name, options.role.map(Role::from)),
            container: options.container,
            parameters: LogParams {
                follow: options.follow,
                since_seconds: options.since.map(|since| i64::try_from(since.0.as_secs().max(1)).unwrap_or(i64::MAX)),
                tail_lines: Some(options.tail),
                limit_bytes: (!options.follow).then_some(CONTAINER_MAX),
                previous: options.previous,
                timestamps: true,
                ..LogParams::default()
            },
        };
        if options.follow { wanted.follow(options.timestamps).await } else { wanted.show(options.timestamps).await }
    })
}

/// Which logs are wanted.
struct Wanted {
    client: Client,
    namespace: String,
    selector: String,
    container: Option<String>,
    parameters: LogParams,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub pod: String,
    pub uid: String,
    pub container: String,
}

/// The containers of a pod that may have said something.
pub fn sources(pod: &Pod, container: Option<&str>) -> Vec<Source> {
    let spec = pod.spec.as_ref();
    let first = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let all = first.chain(spec.map(|spec| &spec.containers).into_iter().flatten()).map(|found| found.name.clone());
    let uid = pod.uid().unwrap_or_default();
    all.filter(|name| container.is_none_or(|wanted| wanted == name))
        .map(|container| Source { pod: pod.name_any(), uid: uid.clone(), container })
        .collect()
}

impl Wanted {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn sources(&self) -> Result<Vec<Source>, ReachError> {
        let selected = ListParams::default().labels(&self.selector);
        let pods = self.pods().list(&selected).await.map_err(call("list the pods"))?;
        Ok(pods.items.iter().flat_map(|pod| sources(pod, self.container.as_deref())).collect())
    }

    /// All that was said, by time.
    async fn show(&self, timestamps: bool) -> Outcome {
        let found = self.sources().await?;
        if found.is_empty() {
            return Err(format!("no pod is selected by {}", self.selector).into());
        }
        let mut logs = Vec::new();
        let mut failures = Vec::new();
        for source in found {
            match self.pods().logs(&source.pod, &of(&self.parameters, &source)).await {
                Ok(text) => logs.push((source, text)),
                Err(error) => failures.push((source, call("read a log")(error))),
            }
        }
        let mut output = std::io::stdout().lock();
        for line in merged(&logs) {
            if !said(&mut output, line.source, &line.shown(timestamps))? {
                return Ok(());
            }
        }
        for (source, error) in &failures {
            let why = crate::output::with_causes(error);
            eprintln!("hebb: {}/{} says nothing: {why}", source.pod, source.container);
        }
        if logs.is_empty() { Err("no container has a log".into()) } else { Ok(()) }
    }

    /// What is said, as it is said, until somebody interrupts.
    async fn follow(&self, timestamps: bool) -> Outcome {
        let (sender, mut lines) = mpsc::channel::<(Source, String)>(QUEUE);
        // A container that restarts has a new log: what was read last is remembered while nobody reads.
        let mut read_until = BTreeMap::<Source, Option<Timestamp>>::new();
        let mut read_now = BTreeSet::<Source>::new();
        let mut readers = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut is_first_look = true;
        loop {
            tokio::select! {
                Some((source, line)) = lines.recv() => {
                    if !said(&mut std::io::stdout().lock(), &source, &Line::of(&source, &line).shown(timestamps))? {
                        return Ok(());
                    }
                }
                Some(Ok((source, until))) = readers.join_next() => {
                    read_now.remove(&source);
                    read_until.insert(source, until);
                }
                _ = looks.tick() => {
                    for source in self.sources().await? {
                        if !read_now.insert(source.clone()) {
                            continue;
                        }
                        let mut parameters = of(&self.parameters, &source);
                        let until = read_until.get(&source).copied().flatten();
                        if !is_first_look {
                            // Somebody new: all of it. Somebody known: what came after.
                            parameters.tail_lines = None;
                            parameters.since_seconds = None;
                            parameters.since_time = until;
                        }
                        readers.spawn(read(self.pods(), source, parameters, until, sender.clone()));
                    }
                    is_first_look = false;
                }
                interrupted = tokio::signal::ctrl_c() => return interrupted.map_err(Into::into),
            }
        }
    }
}

/// Reads a log until it ends, or can't be read yet; when its last line was written.
async fn read(
    pods: Api<Pod>,
    source: Source,
    parameters: LogParams,
    mut until: Option<Timestamp>,
    to: mpsc::Sender<(Source, String)>,
) -> (Source, Option<Timestamp>) {
    if let Ok(log) = pods.log_stream(&source.pod, &parameters).await {
        let mut lines = log.lines();
        while let Ok(Some(line)) = lines.try_next().await {
            let at = instant(Line::of(&source, &line).at);
            // The API server begins with the whole second.
            if at.is_some() && at <= until {
                continue;
            }
            until = at.or(until);
            if to.send((source.clone(), line)).await.is_err() {
                break;
            }
        }
    }
    (source, until)
}

fn of(parameters: &LogParams, source: &Source) -> LogParams {
    LogParams { container: Some(source.container.clone()), ..parameters.clone() }
}

/// Writes a line; whether somebody still reads.
fn said(output: &mut impl Write, source: &Source, line: &str) -> std::io::Result<bool> {
    match writeln!(output, "[{}/{}] {line}", source.pod, source.container) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// A line and when it was written.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    source: &'a Source,
    at: &'a str,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(source: &'a Source, line: &'a str) -> Self {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        Self { source, at, text }
    }

    fn shown(&self, timestamps: bool) -> String {
        if timestamps { format!("{} {}", self.at, self.text) } else { self.text.to_owned() }
    }
}

/// The lines of all by time; those of one container stay in their order.
fn merged(logs: &[(Source, String)]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (source, text) in logs {
        lines.extend(text.lines().filter(|line| !line.is_empty()).map(|line| Line::of(source, line)));
    }
    // Times are written with as many digits as they have, so the text of a whole second sorts behind its parts.
    lines.sort_by_key(|line| instant(line.at));
    lines
}

fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(pod: &str) -> Source {
        Source { pod: pod.to_owned(), uid: String::new(), container: "c".to_owned() }
    }

    #[test]
    fn lines_of_all_pods_are_in_the_order_of_time() {
        let logs = [
            (source("a"), "2030-01-01T00:00:00.5Z second\n2030-01-01T00:00:02Z fourth\n".to_owned()),
            (source("b"), "2030-01-01T00:00:00Z first\n\n2030-01-01T00:00:01.000000001Z third\n".to_owned()),
        ];
        let texts: Vec<_> = merged(&logs).iter().map(|line| (line.source.pod.as_str(), line.text)).collect();
        assert_eq!(texts, [("b", "first"), ("a", "second"), ("b", "third"), ("a", "fourth")]);
        assert_eq!(merged(&logs)[0].shown(true), "2030-01-01T00:00:00Z first");
    }

    #[test]
    fn a_role_selects_its_pods_and_a_name_its_container() {
        assert_eq!(selector("demo", None), "hebb.dev/cluster=demo");
        assert_eq!(
            selector("demo", Some(RoleName::Redis.into())),
            "hebb.dev/cluster=demo,app.kubernetes.io/component=redis"
        );
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "demo-redis-0"},
            "spec": {"initContainers": [{"name": "begin"}], "containers": [{"name": "redis"}, {"name": "tend"}]},
        }))
        .unwrap();
        let names = |container| sources(&pod, container).into_iter().map(|found| found.container).collect::<Vec<_>>();
        assert_eq!(names(None), ["begin", "redis", "tend"]);
        assert_eq!(names(Some("tend")), ["tend"]);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(!said(&mut Closed, &source("a"), "line").unwrap());
    }
}
