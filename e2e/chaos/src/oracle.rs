//! Judges what became of a plan. Every oracle is pure: it compares what was seen with what reference runs left.

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::journal::{Write, calls_of_not_ready, made_and_deleted};
use crate::stand_in::{CLUSTER, KINDS, list};
use crate::workload::NAME;

/// Differences that a verdict quotes.
const QUOTED: usize = 8;

/// The objects of a namespace, one line for each value: `plural/name.path.to.field` → value.
pub type Dump = BTreeMap<String, String>;

/// Dumps everything that a cluster may own. What differs by construction is made equal: the name of the namespace, and the
/// cluster's uid, so that an owner is compared as an owner.
pub async fn dump(client: &Client, namespace: &str) -> Result<Dump, Error> {
    let mut lines = Dump::new();
    let clusters = list(client, namespace, CLUSTER).await?;
    let cluster = clusters.iter().find(|cluster| cluster["metadata"]["name"] == NAME);
    let uid = cluster.and_then(|cluster| cluster["metadata"]["uid"].as_str()).unwrap_or("no-such-uid").to_owned();
    for kind in KINDS {
        for object in list(client, namespace, kind).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            flatten(&format!("{}/{name}", kind.3), &object, &mut lines);
        }
    }
    let equal = |text: &str| text.replace(namespace, "NAMESPACE").replace(&uid, "UID-OF-THE-CLUSTER");
    Ok(lines.into_iter().map(|(path, value)| (equal(&path), equal(&value))).collect())
}

/// One line for each leaf. Entries of a list are named by what Kubernetes tells them apart by, so that order is no difference.
fn flatten(path: &str, value: &Value, lines: &mut Dump) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, lines);
            }
        }
        Value::Array(entries) => {
            for (place, entry) in entries.iter().enumerate() {
                let word = |field: &str| entry[field].as_str();
                let name = match (word("manager"), word("operation")) {
                    (Some(manager), Some(operation)) => {
                        Some(format!("{manager} {operation} {}", word("subresource").unwrap_or_default()))
                    }
                    _ => word("type").or(word("name")).map(str::to_owned),
                };
                let name = name.unwrap_or_else(|| place.to_string());
                flatten(&format!("{path}[{name}]"), entry, lines);
            }
        }
        leaf => {
            lines.insert(path.to_owned(), leaf.to_string());
        }
    }
}

/// What runs without faults leave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reference {
    /// The lines that all of them have with one value.
    pub lines: Dump,
    /// The lines that differ between them, or that only some have: learned, never written by hand.
    pub mask: BTreeSet<String>,
    /// How often each object was made and deleted; the fewest and the most.
    pub counts: BTreeMap<String, [(usize, usize); 2]>,
    /// The most writes that one of them took.
    pub writes: usize,
    /// How often a ready cluster may be called not ready: as often as one of them did, or pods were taken away.
    pub not_ready: usize,
}

impl Reference {
    /// Learns from reference runs of a workload in which pods are taken away `harms` times. The pods are back so soon that
    /// whether the operator sees them missing is a race.
    pub fn learn(runs: &[(Dump, Vec<Write>)], harms: usize) -> Self {
        let mut learned = Self::default();
        let paths: BTreeSet<&String> = runs.iter().flat_map(|(lines, _)| lines.keys()).collect();
        for path in paths {
            let values: BTreeSet<Option<&String>> = runs.iter().map(|(lines, _)| lines.get(path)).collect();
            match values.first().copied().flatten() {
                Some(value) if values.len() == 1 => {
                    learned.lines.insert(path.clone(), value.clone());
                }
                _ => {
                    learned.mask.insert(path.clone());
                }
            }
        }
        let counts: Vec<_> = runs.iter().map(|(_, writes)| made_and_deleted(writes)).collect();
        for object in counts.iter().flat_map(BTreeMap::keys) {
            let of_run = |counts: &BTreeMap<String, (usize, usize)>| counts.get(object).copied().unwrap_or_default();
            let all = || counts.iter().map(of_run);
            let made = |pick: fn(usize, usize) -> usize| all().map(|(made, _)| made).reduce(pick).unwrap_or_default();
            let gone = |pick: fn(usize, usize) -> usize| all().map(|(_, gone)| gone).reduce(pick).unwrap_or_default();
            let range = [(made(usize::min), gone(usize::min)), (made(usize::max), gone(usize::max))];
            learned.counts.insert(object.clone(), range);
        }
        let numbers = runs.iter().flat_map(|(_, writes)| writes).map(|write| write.number);
        learned.writes = numbers.max().unwrap_or_default();
        let called = runs.iter().map(|(_, writes)| calls_of_not_ready(writes));
        learned.not_ready = called.max().unwrap_or_default().max(harms);
        learned
    }
}

/// What was seen of a plan.
pub struct Seen<'a> {
    /// What it left.
    pub lines: &'a Dump,
    /// What was written, the silence at the end included.
    pub writes: &'a [Write],
    /// How many lines of the journal there were when silence should have begun.
    pub settled_at: usize,
    /// What is left of a cluster that was deleted.
    pub left: &'a [String],
    /// What was wrong with the process.
    pub troubles: &'a [String],
    /// Whether the workload was done as in the reference: not where the fault itself deletes the cluster.
    pub comparable: bool,
    /// Whether the fault was no more than a death of the operator, of which the cluster itself must notice nothing.
    pub crash: bool,
}

/// Judges; each finding begins with the oracle's name.
pub fn judge(reference: &Reference, seen: &Seen<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    if seen.comparable {
        findings.extend(same_state(reference, seen.lines));
        findings.extend(same_counts(reference, seen.writes));
    }
    let not_ready = calls_of_not_ready(seen.writes);
    if seen.crash && not_ready > reference.not_ready {
        let most = reference.not_ready;
        findings.push(format!("O8 called not ready {not_ready} times, without faults {most} at most"));
    }
    let late = seen.writes.iter().skip(seen.settled_at).filter(|write| !write.is_lease());
    findings.extend(late.map(|write| format!("O3 written at rest: {} {}", write.verb, write.object)));
    findings.extend(seen.left.iter().map(|object| format!("O4 orphan: {object}")));
    findings.extend(seen.troubles.iter().map(|trouble| format!("O9 {trouble}")));
    let careless = seen.writes.iter().filter(|write| write.verb == "DELETE" && write.precondition.is_none());
    findings.extend(careless.map(|write| format!("O11 deleted without naming the uid: {}", write.object)));
    findings.extend(one_secret(seen.writes));
    findings
}

/// O1: the same lines as without faults.
fn same_state(reference: &Reference, lines: &Dump) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, wanted) in &reference.lines {
        match lines.get(path) {
            Some(found) if found == wanted => {}
            Some(found) => findings.push(format!("O1 {path}: {found}, without faults {wanted}")),
            None => findings.push(format!("O1 {path}: missing, without faults {wanted}")),
        }
    }
    let known = |path: &String| reference.lines.contains_key(path) || reference.mask.contains(path);
    findings.extend(
        lines
            .iter()
            .filter(|(path, _)| !known(path))
            .map(|(path, found)| format!("O1 {path}: {found}, without faults it isn't there")),
    );
    let more = findings.len().saturating_sub(QUOTED);
    findings.truncate(QUOTED);
    if more > 0 {
        findings.push(format!("O1 and {more} more differences"));
    }
    findings
}

/// O2: each object was made and deleted as often as without faults.
fn same_counts(reference: &Reference, writes: &[Write]) -> Vec<String> {
    let counts = made_and_deleted(writes);
    let objects: BTreeSet<&String> = counts.keys().chain(reference.counts.keys()).collect();
    let mut findings = Vec::new();
    for object in objects {
        let (made, gone) = counts.get(object).copied().unwrap_or_default();
        let [(made_min, gone_min), (made_max, gone_max)] = reference.counts.get(object).copied().unwrap_or_default();
        if !(made_min..=made_max).contains(&made) {
            findings.push(format!("O2 {object}: made {made} times, without faults {made_min} to {made_max}"));
        }
        // Whether a pod that doesn't come up is replaced by the operator or goes with its workload's next template is a race.
        let gone_min = if object.starts_with("pods/") { 0 } else { gone_min };
        if !(gone_min..=gone_max).contains(&gone) {
            findings.push(format!("O2 {object}: deleted {gone} times, without faults {gone_min} to {gone_max}"));
        }
    }
    findings
}

/// A password or token that stands is never replaced by another one, which no mask of volatile values could show.
fn one_secret(writes: &[Write]) -> Vec<String> {
    let mut standing: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for write in writes.iter().filter(|write| write.is_done()) {
        let Some(secret) = &write.secret else { continue };
        // One that is made anew after its cluster was deleted is another one.
        if write.status != Some(201) && standing.get(write.object.as_str()).is_some_and(|before| before != secret) {
            findings.push(format!("O1 {}: its content was replaced", write.object));
        }
        standing.insert(&write.object, secret);
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(verb: &str, object: &str, status: u16) -> Write {
        let (parts, ()) = axum::http::Request::builder()
            .method(verb)
            .uri(format!("/api/v1/namespaces/n/{object}"))
            .body(())
            .unwrap()
            .into_parts();
        let body = json!({"preconditions": {"uid": "u"}}).to_string();
        Write { number: 1, status: Some(status), arrived: true, ..Write::read(&parts, body.as_bytes(), 1) }
    }

    fn lines(of: Value) -> Dump {
        let mut lines = Dump::new();
        flatten("o", &of, &mut lines);
        lines
    }

    fn check(found: Value, writes: &[Write], settled_at: usize) -> Vec<String> {
        let run = |time: u64| {
            let state = json!({"a": 1, "at": time, "list": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]});
            (lines(state), vec![write("PATCH", "services/a", 201)])
        };
        let reference = Reference::learn(&[run(1), run(2), run(3)], 0);
        let seen =
            Seen { lines: &lines(found), writes, settled_at, left: &[], troubles: &[], comparable: true, crash: true };
        judge(&reference, &seen)
    }

    #[test]
    fn what_differs_between_references_and_the_order_of_lists_are_no_differences() {
        let other = json!({"a": 1, "at": 9, "list": [{"name": "y", "v": 2}, {"name": "x", "v": 1}]});
        assert_eq!(check(other, &[write("PATCH", "services/a", 201)], 1), Vec::<String>::new());
    }

    #[test]
    fn each_oracle_sees_what_it_is_for() {
        let well = json!({"a": 1, "at": 9, "list": [{"name": "y", "v": 2}, {"name": "x", "v": 1}]});
        let made = write("PATCH", "services/a", 201);
        let spoiled = check(json!({"at": 9}), std::slice::from_ref(&made), 1);
        assert!(spoiled.iter().any(|finding| finding.starts_with("O1 o.a: missing")), "{spoiled:?}");
        let twice = check(well.clone(), &[made.clone(), made.clone()], 2);
        assert_eq!(twice, ["O2 services/a: made 2 times, without faults 1 to 1"]);
        let said = |ready| Write { ready: Some(ready), ..write("PATCH", "learningclusters/demo/status", 200) };
        let flapped = check(well.clone(), &[made.clone(), said(true), said(false), said(true)], 4);
        assert_eq!(flapped, ["O8 called not ready 1 times, without faults 0 at most"]);
        let late = check(well.clone(), &[made.clone(), write("PATCH", "services/a", 200)], 1);
        assert_eq!(late, ["O3 written at rest: PATCH services/a"]);
        let careless = Write { precondition: None, number: 0, ..write("DELETE", "pods/a", 200) };
        assert_eq!(check(well.clone(), &[made.clone(), careless], 2), ["O11 deleted without naming the uid: pods/a"]);
        let secret = |data: &str, status| Write {
            secret: Some(data.to_owned()),
            number: 0,
            ..write("PATCH", "secrets/a", status)
        };
        let replaced = check(well.clone(), &[made.clone(), secret("x", 201), secret("y", 200)], 3);
        assert_eq!(replaced, ["O1 secrets/a: its content was replaced"]);
        assert!(check(well, &[made, secret("x", 201), secret("y", 201)], 3).is_empty());
    }
}
