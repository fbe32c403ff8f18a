//! `hebb support-bundle`: what explains how a LearningCluster is doing, in one file, without secrets.

mod redact;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use hebb_api::LearningCluster;
use hebb_api::names::CLUSTER_LABEL;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, LogParams};
use serde_json::{Value, json};

use self::redact::Redactor;
use super::logs::sources;
use super::reach::{Found, Reach, call};
use crate::cli::Outcome;
use crate::node::runtime;
use crate::output::{print_line, with_causes};

/// Bytes of one container's log, the last ones.
const LOG_MAX: i64 = 4 << 20;
/// Lines of it.
const LOG_LINES: i64 = 20_000;
/// Objects of one kind.
const OBJECTS_MAX: u32 = 1_000;

#[derive(Args)]
#[command(after_help = "Example:
  kubectl hebb support-bundle demo -o demo.tar.gz

It holds the LearningCluster, the AlertPolicies, Events and objects of its namespace that belong to it, and the logs of its
pods. Values of Secrets are in none of them: those that can be read are looked for everywhere, and what looks like a secret
goes too. What a log says of your events is left as it is: look through the bundle before you pass it on.")]
pub struct Options {
    /// Name of the LearningCluster
    name: String,
    /// The file to write, .tar.gz
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    reach: Reach,
    /// Without the logs of the pods
    #[arg(long)]
    no_logs: bool,
}

/// A kind that is collected: file, group, version, kind, plural, and whether its objects carry the cluster's label.
const KINDS: [(&str, &str, &str, &str, &str, bool); 15] = [
    ("alertpolicies", "hebb.dev", "v1alpha1", "AlertPolicy", "alertpolicies", false),
    ("pods", "", "v1", "Pod", "pods", true),
    ("deployments", "apps", "v1", "Deployment", "deployments", true),
    ("replicasets", "apps", "v1", "ReplicaSet", "replicasets", true),
    ("statefulsets", "apps", "v1", "StatefulSet", "statefulsets", true),
    ("jobs", "batch", "v1", "Job", "jobs", true),
    ("cronjobs", "batch", "v1", "CronJob", "cronjobs", true),
    ("services", "", "v1", "Service", "services", true),
    ("configmaps", "", "v1", "ConfigMap", "configmaps", true),
    ("persistentvolumeclaims", "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("poddisruptionbudgets", "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("networkpolicies", "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true),
    ("horizontalpodautoscalers", "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("events", "", "v1", "Event", "events", false),
    ("secrets", "", "v1", "Secret", "secrets", true),
];

/// The files of a bundle, and what could not be had.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, String)>,
    problems: Vec<String>,
}

pub fn run(options: Options) -> Outcome {
    let (bundle, name) = runtime()?.block_on(async {
        let (found, cluster) = options.reach.cluster(&options.name).await?;
        let bundle = collect(&found, &cluster, !options.no_logs).await?;
        Ok::<_, Box<dyn std::error::Error>>((bundle, options.name))
    })?;
    write(&options.output, &format!("hebb-{name}"), &bundle.files, Timestamp::now())?;
    for problem in &bundle.problems {
        eprintln!("hebb: {problem}");
    }
    let (file, count) = (options.output.display(), bundle.files.len());
    print_line(format_args!("{file}: {count} files; look through it before you pass it on"))
}

async fn collect(found: &Found, cluster: &LearningCluster, logs: bool) -> Result<Bundle, Box<dyn std::error::Error>> {
    let mut bundle = Bundle::default();
    let mut objects = Vec::new();
    for (file, group, version, kind, plural, labelled) in KINDS {
        match list(found, [group, version, kind, plural], labelled).await {
            Ok(items) => objects.push((file, items)),
            Err(error) => bundle.problems.push(format!("no {file}: {}", with_causes(&error))),
        }
    }
    objects.push(("learningcluster", vec![serde_json::to_value(cluster)?]));
    let secrets = secrets(found, &objects, &mut bundle.problems).await;
    let redactor = Redactor::new(&secrets)?;
    for (file, items) in objects {
        let belongs = items.into_iter().filter(|item| file != "events" || is_about(item, &found.name));
        let mut text = String::new();
        for mut item in belongs {
            redactor.object(&mut item);
            text.push_str("---\n");
            text.push_str(&serde_yaml::to_string(&item)?);
        }
        bundle.files.push((format!("{file}.yaml"), text));
    }
    if logs {
        collect_logs(found, &redactor, &mut bundle).await?;
    }
    let version = found.client.apiserver_version().await.map(|version| version.git_version);
    let about = json!({
        "hebb": env!("CARGO_PKG_VERSION"), "kubernetes": version.ok(), "cluster": found.name,
        "namespace": found.namespace, "at": Timestamp::now().to_string(), "missing": bundle.problems,
    });
    bundle.files.push(("about.json".to_owned(), redactor.text(&serde_json::to_string_pretty(&about)?)));
    Ok(bundle)
}

async fn list(
    found: &Found,
    [group, version, kind, plural]: [&str; 4],
    labelled: bool,
) -> Result<Vec<Value>, super::reach::ReachError> {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.clone(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(found.client.clone(), &found.namespace, &resource);
    let mut selected = ListParams::default().limit(OBJECTS_MAX);
    if labelled {
        selected = selected.labels(&format!("{CLUSTER_LABEL}={}", found.name));
    }
    let items = api.list(&selected).await.map_err(call("list them"))?.items;
    Ok(items
        .into_iter()
        .filter_map(|item| serde_json::to_value(item).ok())
        .map(|mut item| {
            // Objects of a list don't say what they are.
            item["apiVersion"] = json!(api_version);
            item["kind"] = json!(kind);
            item
        })
        .collect())
}

/// An Event about the cluster or one of its children, which are called after it.
fn is_about(event: &Value, cluster: &str) -> bool {
    let name = event["involvedObject"]["name"].as_str().or(event["regarding"]["name"].as_str()).unwrap_or_default();
    name == cluster || name.strip_prefix(cluster).is_some_and(|rest| rest.starts_with('-'))
}

/// Names of the Secrets that objects refer to.
fn referred(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| referred(item, names)),
        Value::Object(fields) => {
            for (field, value) in fields {
                let is_reference = field.to_lowercase().ends_with("secretref") || field == "secretKeyRef";
                if let Some(name) = value["name"].as_str().filter(|_| is_reference) {
                    names.insert(name.to_owned());
                }
                if let Some(name) = value.as_str().filter(|_| field == "secretName") {
                    names.insert(name.to_owned());
                }
                referred(value, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The values that are looked for everywhere: those of the cluster's Secrets and of those that it refers to.
async fn secrets(found: &Found, objects: &[(&str, Vec<Value>)], problems: &mut Vec<String>) -> Vec<Vec<u8>> {
    let mut names = BTreeSet::new();
    for (_, items) in objects {
        items.iter().for_each(|item| referred(item, &mut names));
    }
    let of_cluster = objects.iter().filter(|(file, _)| *file == "secrets").flat_map(|(_, items)| items);
    names.extend(of_cluster.filter_map(|secret| secret["metadata"]["name"].as_str().map(str::to_owned)));
    let api: Api<Secret> = found.api();
    let mut values = Vec::new();
    for name in names {
        match api.get_opt(&name).await {
            Ok(Some(secret)) => values.extend(secret.data.unwrap_or_default().into_values().map(|value| value.0)),
            Ok(None) => {}
            Err(error) => {
                let why = with_causes(&call("read a Secret")(error));
                problems.push(format!("the values of Secret {name} are not looked for in the rest: {why}"));
            }
        }
    }
    values
}

async fn collect_logs(found: &Found, redactor: &Redactor, bundle: &mut Bundle) -> Outcome {
    let api: Api<Pod> = found.api();
    let selected = ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", found.name));
    let pods = api.list(&selected).await.map_err(call("list the pods"))?;
    for pod in &pods.items {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        for source in sources(pod, None) {
            let mut statuses = statuses.into_iter().flatten();
            let has_restarted = statuses.any(|status| status.name == source.container && status.restart_count > 0);
            for previous in [false, true].into_iter().filter(|previous| !previous || has_restarted) {
                let parameters = LogParams {
                    container: Some(source.container.clone()),
                    limit_bytes: Some(LOG_MAX),
                    tail_lines: Some(LOG_LINES),
                    timestamps: true,
                    previous,
                    ..LogParams::default()
                };
                let suffix = if previous { ".previous" } else { "" };
                match api.logs(&pod.name_any(), &parameters).await {
                    Ok(text) => {
                        let file = format!("logs/{}/{}{suffix}.log", source.pod, source.container);
                        bundle.files.push((file, redactor.text(&text)));
                    }
                    Err(error) => {
                        let why = with_causes(&call("read a log")(error));
                        bundle.problems.push(format!("no log of {}/{}{suffix}: {why}", source.pod, source.container));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Writes the file, whole or not at all.
fn write(path: &Path, folder: &str, files: &[(String, String)], now: Timestamp) -> std::io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(&unfinished)?, Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    std::fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn secrets_are_found_by_every_kind_of_reference() {
        let mut names = BTreeSet::new();
        referred(
            &json!({"a": [{"secretKeyRef": {"name": "one", "key": "k"}}], "urlSecretRef": {"name": "two", "key": "k"},
                "secretRef": {"name": "three"}, "volume": {"secret": {"secretName": "four"}}, "roleRef": {"name": "no"}}),
            &mut names,
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["four", "one", "three", "two"]);
    }

    #[test]
    fn events_of_other_clusters_stay_out() {
        let of = |name: &str| is_about(&json!({"involvedObject": {"name": name}}), "demo");
        assert!(of("demo") && of("demo-worker-x"));
        assert!(!of("demolition") && !of("other"));
    }

    #[test]
    fn a_bundle_can_be_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar.gz");
        let files = [("a.yaml".to_owned(), "a: 1\n".to_owned()), ("logs/p/c.log".to_owned(), "line\n".to_owned())];
        write(&path, "hebb-demo", &files, Timestamp::UNIX_EPOCH).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("hebb-demo/a.yaml".to_owned(), "a: 1\n".to_owned()),
                ("hebb-demo/logs/p/c.log".to_owned(), "line\n".to_owned())
            ]
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }
}
