//! `hebb status`: what a running process or cluster says of itself.

use std::time::Duration;

use clap::Args;
use hebb_node::coordinator::ClusterStatus;

use crate::ask::{Api, Peer};
use crate::cli::Outcome;
use crate::kubernetes::{self, Format, Output, Reach};
use crate::node::runtime;
use crate::output::{http_url, percent, print, print_line, quality, table};

#[derive(Args)]
#[command(after_help = "Examples:
  hebb status                                 # of `hebb start` on this machine
  kubectl hebb status demo -n default         # what the operator says of a LearningCluster
  kubectl hebb status demo -o json

QUALITY is how a domain does lately, by its task: the accuracy over about the last thousand labels, the mean absolute error of
numbers, the patterns that are known, or the share of vectors that are accepted. ACCURACY is that over all labels of a domain
of classes, each predicted before it was seen. A figure that nobody has told yet, as right after a start, is –.")]
pub struct Options {
    /// A LearningCluster of the kubeconfig instead
    name: Option<String>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    output: Output,
    /// Address of a coordinator
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "HEBB_COORDINATOR", value_parser = http_url)]
    coordinator: String,
    /// Token of the internal endpoints, where the cluster has one
    #[arg(long, env = "HEBB_INTERNAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What isn't known, or isn't told of such a domain.
const UNKNOWN: &str = "–";
/// A coordinator answers within a second or not at all.
const DEADLINE: Duration = Duration::from_secs(5);

pub fn run(options: Options) -> Outcome {
    let output = options.output.format();
    if let Some(name) = &options.name {
        return kubernetes::status(name, &options.reach, output);
    }
    let api = Api::new(Peer::Coordinator, &options.coordinator, options.token.as_deref(), DEADLINE)?;
    let status: ClusterStatus = runtime()?.block_on(api.get(&["api", "v1", "status"], &[]))?;
    if output == Format::Json {
        return print_line(serde_json::to_string_pretty(&status)?);
    }
    let head = format!(
        "leader {} (term {}), {} worker(s), lag {}, {} partition(s) without an owner, p99 of the answers {}\n\n",
        status.leader,
        status.term,
        status.workers.len(),
        status.lag,
        status.unowned,
        status.answer_p99_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
    );
    print(head + &domains(&status))
}

fn domains(status: &ClusterStatus) -> String {
    let titles = ["DOMAIN", "TASK", "PARTITIONS", "EVENTS", "LABELS", "QUALITY", "ACCURACY", "DRIFTS", "LAG"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for domain in &status.domains {
        // A coordinator that leads anew is told by the owners within a second or two.
        let is_told = domain.partitions.is_empty() || domain.partitions.iter().any(|part| part.learned.is_some());
        let told = |figure: String| if is_told { figure } else { UNKNOWN.to_owned() };
        rows.push(vec![
            domain.name.clone(),
            format!("{:?}", domain.task),
            domain.partitions.len().to_string(),
            told(domain.events.to_string()),
            told(domain.labels.to_string()),
            told(quality(domain)),
            domain.accuracy.map_or_else(|| UNKNOWN.to_owned(), percent),
            told(domain.drifts.to_string()),
            domain.lag.to_string(),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_domain_is_told_by_its_own_measure_and_no_accuracy_is_made_up() {
        let domain = |name: &str, task: &str, measure: &str| {
            format!(
                r#"{{"name": "{name}", "task": "{task}", "events": 5, "labels": 4, "drifts": 0, "lag": 0, "partitions": [] {measure}}}"#
            )
        };
        let untold = r#"{"index": 0, "owner": "w", "epoch": 2, "lag": 0, "state_bytes": 9}"#;
        let domains = [
            domain("a", "Classification", r#", "accuracy": 0.5, "recent_accuracy": 0.75"#),
            domain("b", "Regression", r#", "mean_absolute_error": 0.125"#),
            domain("c", "Patterns", r#", "patterns": 12"#),
            domain("d", "Governed", r#", "rejection_rate": 0.25"#),
            domain("e", "TimeSeriesClassification", ""),
            // Nobody has told the coordinator yet.
            domain("f", "Classification", "").replace("[]", &format!("[{untold}]")),
        ];
        let status = format!(
            r#"{{"leader": "l", "term": 1, "workers": [], "lag": 0, "unowned": 0, "domains": [{}]}}"#,
            domains.join(",")
        );
        let text = super::domains(&serde_json::from_str(&status).unwrap());
        let told: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split("   ").map(str::trim).collect()).collect();
        let of =
            |row: usize| told[row].iter().filter(|cell| !cell.is_empty()).skip(5).take(2).copied().collect::<Vec<_>>();
        assert_eq!(of(0), ["75.00 %", "50.00 %"], "{text}");
        assert_eq!(of(1), ["error 0.125", "–"]);
        assert_eq!(of(2), ["12 patterns", "–"]);
        assert_eq!(of(3), ["accepts 75 %", "–"]);
        assert_eq!(of(4), ["no labels", "–"]);
        let untold: Vec<&str> = told[5].iter().filter(|cell| !cell.is_empty()).copied().collect();
        assert_eq!(untold, ["f", "Classification", "1", "–", "–", "–", "–", "–", "0"], "{text}");
    }
}
