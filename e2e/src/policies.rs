//! NetworkPolicies are enforced by a cluster's network agent, and the single node of the tests has none. This stands in for
//! one, as far as Hebb's policies go: it turns those of one namespace into nft rules on the node's bridge, and keeps up with
//! policies and pods. [`rules`] decides; [`Agent`] does it.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::Error;
use crate::kubectl::{get, kubectl};

/// A table of our own beside kube-proxy's.
const TABLE: &str = "hebb_policies";
/// How far the rules may be behind policies and pods.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Enforces the NetworkPolicies of a namespace until it is dropped.
pub struct Agent {
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Agent {
    /// Begins to enforce. To be called inside the node's network namespace.
    ///
    /// # Errors
    /// Policies or pods that can't be read, a policy beyond what this understands, rules that nft refuses.
    pub fn start(namespace: &str) -> Result<Self, Error> {
        let namespace = namespace.to_owned();
        let mut current = look(&namespace)?;
        install(&current)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let task = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
                let renewed = look(&namespace).and_then(|wanted| {
                    if wanted != current {
                        install(&wanted)?;
                        current = wanted;
                    }
                    Ok(())
                });
                if let Err(error) = renewed {
                    eprintln!("the network policies could not be renewed: {error}");
                }
            }
            if let Err(error) = nft(&format!("delete table inet {TABLE}\n")) {
                eprintln!("the rules of the network policies stay: {error}");
            }
        });
        Ok(Self { stop, task: Some(task) })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            // It says itself what went wrong.
            let _ = task.join();
        }
    }
}

fn look(namespace: &str) -> Result<String, Error> {
    let policies = get(namespace, &["networkpolicies"])?;
    let pods: Value = serde_json::from_str(&kubectl(&["get", "pods", "--all-namespaces", "-o", "json"])?)?;
    let namespaces: Value = serde_json::from_str(&kubectl(&["get", "namespaces", "-o", "json"])?)?;
    rules(items(&policies), items(&pods), items(&namespaces))
}

fn install(rules: &str) -> Result<(), Error> {
    nft(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n{rules}"))
}

fn nft(script: &str) -> Result<(), Error> {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        std::io::Write::write_all(&mut input, script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// The nft table that lets through what the policies allow, between pods that are there. What comes from the node, such as
/// the kubelet's probes, is let through, as Kubernetes says. A connection that is open stays open.
///
/// # Errors
/// A selector, port or peer of a kind that Hebb's policies don't have.
pub fn rules(policies: &[Value], pods: &[Value], namespaces: &[Value]) -> Result<String, Error> {
    let mut table = format!("table inet {TABLE} {{\n");
    let mut hook = String::from("ct state established,related accept\n");
    for (direction, from, to) in [("ingress", "daddr", "saddr"), ("egress", "saddr", "daddr")] {
        let mut chain = String::new();
        let mut isolated = Vec::new();
        for policy in policies {
            let namespace = policy["metadata"]["namespace"].as_str().unwrap_or_default();
            let spec = &policy["spec"];
            let types = spec["policyTypes"].as_array().map_or(&[][..], Vec::as_slice);
            if !types.iter().any(|kind| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(direction))) {
                continue;
            }
            let selected: Vec<&Value> = pods
                .iter()
                .filter(|pod| pod["metadata"]["namespace"] == namespace)
                .filter_map(|pod| {
                    matches(&spec["podSelector"], &pod["metadata"]["labels"]).map(|is| is.then_some(pod)).transpose()
                })
                .collect::<Result<_, Error>>()?;
            let addresses = set(selected.iter().filter_map(|pod| address(pod)));
            let Some(addresses) = addresses else { continue };
            isolated.extend(selected.iter().filter_map(|pod| address(pod)));
            for rule in spec[direction].as_array().into_iter().flatten() {
                let peers = match rule[if direction == "ingress" { "from" } else { "to" }].as_array() {
                    None => None,
                    Some(peers) => {
                        match set(peer_addresses(peers, namespace, pods, namespaces)?.iter().map(String::as_str)) {
                            None => continue,
                            found => found,
                        }
                    }
                };
                for port in ports(rule)? {
                    write!(chain, "ip {from} {addresses} ")?;
                    if let Some(peers) = &peers {
                        write!(chain, "ip {to} {peers} ")?;
                    }
                    writeln!(chain, "{port} return")?;
                }
            }
        }
        if let Some(isolated) = set(isolated.into_iter()) {
            writeln!(table, "chain {direction} {{\n{chain}counter drop\n}}")?;
            writeln!(hook, "ip {from} {isolated} jump {direction}")?;
        }
    }
    writeln!(table, "chain forward {{\ntype filter hook forward priority filter - 10\n{hook}}}\n}}")?;
    Ok(table)
}

/// A pod's address, once it has one of its own.
fn address(pod: &Value) -> Option<&str> {
    if pod["spec"]["hostNetwork"] == true {
        return None;
    }
    pod["status"]["podIP"].as_str()
}

fn set<'a>(elements: impl Iterator<Item = &'a str>) -> Option<String> {
    let elements: std::collections::BTreeSet<&str> = elements.collect();
    if elements.is_empty() {
        return None;
    }
    Some(format!("{{ {} }}", elements.into_iter().collect::<Vec<_>>().join(", ")))
}

fn matches(selector: &Value, labels: &Value) -> Result<bool, Error> {
    for key in selector.as_object().into_iter().flat_map(|selector| selector.keys()) {
        if key != "matchLabels" {
            return Err(format!("a selector with {key} is not understood here").into());
        }
    }
    Ok(selector["matchLabels"].as_object().into_iter().flatten().all(|(name, value)| labels[name] == *value))
}

fn peer_addresses(
    peers: &[Value],
    namespace: &str,
    pods: &[Value],
    namespaces: &[Value],
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for peer in peers {
        if let Some(range) = peer["ipBlock"]["cidr"].as_str() {
            found.push(range.to_owned());
            continue;
        }
        for pod in pods {
            let home = &pod["metadata"]["namespace"];
            let is_there = match &peer["namespaceSelector"] {
                Value::Null => home == namespace,
                selector => {
                    let labels = namespaces.iter().find(|known| known["metadata"]["name"] == *home);
                    matches(selector, labels.map_or(&Value::Null, |known| &known["metadata"]["labels"]))?
                }
            };
            if is_there && matches(&peer["podSelector"], &pod["metadata"]["labels"])? {
                found.extend(address(pod).map(str::to_owned));
            }
        }
    }
    Ok(found)
}

/// A match a port; one that matches everything where a rule names none.
fn ports(rule: &Value) -> Result<Vec<String>, Error> {
    let Some(ports) = rule["ports"].as_array() else { return Ok(vec![String::new()]) };
    let of = |port: &Value| match (port["protocol"].as_str(), port["port"].as_u64(), &port["endPort"]) {
        (Some("TCP"), Some(number), Value::Null) => Ok(format!("tcp dport {number}")),
        (Some("UDP"), Some(number), Value::Null) => Ok(format!("udp dport {number}")),
        _ => Err(format!("the port {port} is not understood here").into()),
    };
    ports.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, role: &str, ip: &str) -> Value {
        json!({
            "metadata": {"namespace": namespace, "name": role, "labels": {"role": role}}, "spec": {}, "status": {"podIP": ip},
        })
    }

    #[test]
    fn only_what_a_policy_names_is_let_through() -> Result<(), Error> {
        let policy = json!({"metadata": {"namespace": "a"}, "spec": {
            "podSelector": {"matchLabels": {"role": "redis"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"role": "worker"}}}], "ports": [{"protocol": "TCP", "port": 6379}]},
                {"from": [{"podSelector": {"matchLabels": {"role": "nobody"}}}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]},
            ],
        }});
        let pods = [
            pod("a", "redis", "10.0.0.1"),
            pod("a", "worker", "10.0.0.2"),
            pod("b", "worker", "10.0.0.3"),
            pod("c", "worker", "10.0.0.4"),
        ];
        let namespaces =
            [json!({"metadata": {"name": "b", "labels": {"team": "b"}}}), json!({"metadata": {"name": "c"}})];
        let rules = rules(&[policy], &pods, &namespaces)?;
        let lines: Vec<&str> = rules.lines().filter(|line| line.ends_with("return")).collect();
        assert_eq!(
            lines,
            [
                "ip daddr { 10.0.0.1 } ip saddr { 10.0.0.2 } tcp dport 6379 return",
                "ip daddr { 10.0.0.1 } ip saddr { 10.0.0.3 }  return",
            ]
        );
        assert!(rules.contains("ip daddr { 10.0.0.1 } jump ingress"), "{rules}");
        assert!(rules.contains("ip saddr { 10.0.0.1 } jump egress"), "nothing is allowed out: {rules}");
        Ok(())
    }

    #[test]
    fn a_policy_that_is_not_understood_is_no_open_door() {
        let selector = json!({"matchExpressions": [{"key": "role", "operator": "Exists"}]});
        let policy =
            json!({"metadata": {"namespace": "a"}, "spec": {"podSelector": selector, "policyTypes": ["Ingress"]}});
        assert!(rules(&[policy], &[pod("a", "redis", "10.0.0.1")], &[]).is_err());
    }
}
