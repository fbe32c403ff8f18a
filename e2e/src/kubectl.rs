//! The cluster as its users reach it: by kubectl, in the current environment (KUBECONFIG).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Error;
use crate::forward::forward;

/// Runs kubectl and returns what it printed.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn kubectl(arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new("kubectl").args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("kubectl {}: {}", arguments.join(" "), said.trim()).into())
}

/// The built `hebb`, which is `kubectl hebb` under another name, with some arguments. It lies beside the tests.
///
/// # Errors
/// Where it isn't there.
pub fn plugin(arguments: &[&str]) -> Result<Command, Error> {
    let test = std::env::current_exe()?;
    let binary = test.ancestors().nth(2).map(|folder| folder.join("hebb")).filter(|binary| binary.is_file());
    let mut command = Command::new(binary.ok_or("hebb isn't built: make build")?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

/// Applies a text, as `kubectl apply -f -`.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn apply(namespace: &str, yaml: &str) -> Result<String, Error> {
    let mut child = Command::new("kubectl")
        .args(["-n", namespace, "apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(yaml.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
}

/// One object, or a list, as JSON.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn get(namespace: &str, what: &[&str]) -> Result<Value, Error> {
    let mut arguments = vec!["-n", namespace, "get", "-o", "json"];
    arguments.extend(what);
    Ok(serde_json::from_str(&kubectl(&arguments)?)?)
}

/// Asks again and again until the answer is there.
///
/// # Errors
/// After `limit`, with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let started = Instant::now();
    loop {
        if let Some(found) = ask() {
            return Ok(found);
        }
        if started.elapsed() > limit {
            return Err(format!("{what}: not within {} s", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A namespace that enforces the restricted Pod Security standard, empty at the start.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn fresh_namespace(name: &str) -> Result<(), Error> {
    kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=120s"])?;
    kubectl(&["create", "namespace", name])?;
    kubectl(&["label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"])?;
    Ok(())
}

/// The status of a condition of a LearningCluster.
pub fn condition(namespace: &str, name: &str, type_: &str) -> Option<String> {
    let cluster = get(namespace, &["learningcluster", name]).ok()?;
    let conditions = cluster["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == type_)?;
    found["status"].as_str().map(str::to_owned)
}

/// Waits until a LearningCluster is ready for the generation that it has now.
///
/// # Errors
/// After `limit`.
pub fn wait_ready(namespace: &str, name: &str, limit: Duration) -> Result<(), Error> {
    wait_for(&format!("LearningCluster {name} is ready"), limit, || {
        let cluster = get(namespace, &["learningcluster", name]).ok()?;
        let current = cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"];
        (current && condition(namespace, name, "Ready").as_deref() == Some("True")).then_some(())
    })
}

/// What the coordinators say, asked in a pod as a user would.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn cluster_status(namespace: &str, name: &str) -> Result<Value, Error> {
    let mut last: Error = "no coordinator".into();
    for number in 0..3 {
        let pod = format!("{name}-coordinator-{number}");
        let arguments = ["-n", namespace, "exec", &pod, "--", "/hebb", "--log-level", "error", "status", "--json"];
        match kubectl(&arguments) {
            Ok(text) => return Ok(serde_json::from_str(&text)?),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The worker that owns a domain's first partition.
///
/// # Errors
/// Where nobody says so.
pub fn owner(namespace: &str, name: &str, domain: &str) -> Result<String, Error> {
    wait_for("an owner of the partition", Duration::from_secs(30), || {
        let status = cluster_status(namespace, name).ok()?;
        let domains = status["domains"].as_array()?;
        let found = domains.iter().find(|known| known["name"] == domain)?;
        found["partitions"][0]["owner"].as_str().map(str::to_owned)
    })
}

/// Kills a pod's processes without warning: SIGKILL where its node is this machine or a container of kind. Elsewhere the pod is
/// deleted without grace, which the kubelet begins with SIGTERM. Returns which of the two it was.
///
/// # Errors
/// What kubectl or the container engine wrote to standard error, or a pod without a process.
pub fn kill_pod(namespace: &str, pod: &str) -> Result<&'static str, Error> {
    let cluster = std::env::var("HEBB_CLUSTER").unwrap_or_default();
    if !matches!(cluster.as_str(), "local" | "kind") {
        kubectl(&["-n", namespace, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"])?;
        return Ok("deleted without grace");
    }
    let object = get(namespace, &["pod", pod])?;
    let uid = object["metadata"]["uid"].as_str().ok_or("a pod without uid")?;
    if cluster == "kind" {
        let node = object["spec"]["nodeName"].as_str().ok_or("a pod without node")?;
        kill_in_container(node, uid)?;
    } else {
        let pids = processes_of(uid)?;
        if pids.is_empty() {
            return Err(format!("pod {pod} has no process on this machine").into());
        }
        signal("KILL", &pids)?;
    }
    Ok("killed by SIGKILL")
}

/// Run by a node's own shell with the pod's uid as control groups write it, with `-` or with `_`. Fails where the pod has no
/// process.
const KILL_IN_NODE: &str = r#"
for process in /proc/[0-9]*; do
  grep -qF -e "$1" -e "$2" "$process/cgroup" 2>/dev/null || continue
  [ "$(cat "$process/comm")" = pause ] || ! kill -s KILL "${process#/proc/}" || found=yes
done
[ -n "${found:-}" ] || { echo "pod $1 has no process" >&2; exit 1; }
"#;

/// A node of kind is a container of its own name, of Docker or of podman.
fn kill_in_container(node: &str, uid: &str) -> Result<(), Error> {
    let mut said = Vec::new();
    for engine in ["docker", "podman"] {
        let arguments = ["exec", node, "sh", "-c", KILL_IN_NODE, "sh", uid, &uid.replace('-', "_")];
        match Command::new(engine).args(arguments).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => said.push(format!("{engine}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => said.push(format!("{engine}: {error}")),
        }
    }
    Err(format!("could not kill in node {node}: {}", said.join("; ")).into())
}

/// Sends a signal to processes. One that has ended by itself, as a probe does, needs none.
///
/// # Errors
/// A process that lives and can't be signalled.
pub fn signal(name: &str, pids: &[u32]) -> Result<(), Error> {
    for pid in pids {
        let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status()?;
        if !sent.success() && Path::new(&format!("/proc/{pid}")).exists() {
            return Err(format!("could not send {name} to {pid}").into());
        }
    }
    Ok(())
}

/// The processes of a pod but its pause container, by their control group, where the pods run on this machine.
///
/// # Errors
/// A file system without /proc.
pub fn processes_of(uid: &str) -> Result<Vec<u32>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let Ok(group) = std::fs::read_to_string(entry.path().join("cgroup")) else {
            continue;
        };
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        if group.contains(uid) && name.trim() != "pause" {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The address of a cluster's gateway: as its Service has it where this process is in the cluster's network, else by a way
/// through the API server.
///
/// # Errors
/// What kubectl wrote to standard error.
pub fn gateway(namespace: &str, name: &str) -> Result<String, Error> {
    let service = format!("{name}-gateway");
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        return forward(namespace, &service);
    }
    let service = get(namespace, &["service", &service])?;
    let address = service["spec"]["clusterIP"].as_str().ok_or("the Service has no address")?;
    Ok(format!("http://{address}"))
}

/// For a minute nobody of Hebb writes to the API server, but for the operator's lease.
///
/// # Errors
/// The first write, or a log that can't be read.
pub fn silence(namespace: &str) -> Result<(), Error> {
    let log = std::env::var("HEBB_AUDIT_LOG").unwrap_or_default();
    if log.is_empty() {
        println!("skipped: this cluster has no audit log to prove silence with");
        return Ok(());
    }
    let before = std::fs::read_to_string(&log)?.lines().count();
    std::thread::sleep(Duration::from_secs(60));
    let text = std::fs::read_to_string(&log)?;
    let written: Vec<&str> = text
        .lines()
        .skip(before)
        .filter(|line| {
            line.contains("system:serviceaccount:hebb-system:")
                || line.contains(&format!("\"namespace\":\"{namespace}\""))
        })
        .filter(|line| !line.contains("\"resource\":\"leases\""))
        .filter(|line| !["get", "list", "watch"].iter().any(|verb| line.contains(&format!("\"verb\":\"{verb}\""))))
        .collect();
    if let Some(first) = written.first() {
        return Err(format!("{} writes at rest, the first: {first}", written.len()).into());
    }
    println!("no write within 60 s at rest");
    Ok(())
}
