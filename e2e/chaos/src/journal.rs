//! What the operator wrote: one line for each mutating request, whatever became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One mutating request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Its number among those that count; 0 for a renewal of the lease and for what came before the workload.
    pub number: usize,
    /// When, in milliseconds since the journal began.
    pub at: u64,
    /// POST, PUT, PATCH or DELETE.
    pub verb: String,
    /// The object as `plural/name`, with `/subresource` where there is one.
    pub object: String,
    /// Digest of the body.
    pub body: String,
    /// The uid that the request insists on.
    pub precondition: Option<String>,
    /// The field manager that it names.
    pub manager: Option<String>,
    /// What the client calls itself.
    pub agent: Option<String>,
    /// The holder that it writes into a Lease.
    pub holder: Option<String>,
    /// Digest of the data that it puts into a Secret.
    pub secret: Option<String>,
    /// How many times the operator had been started.
    pub start: usize,
    /// Whether it says that the cluster is ready.
    pub ready: Option<bool>,
    /// Whether it was passed on.
    pub arrived: bool,
    /// The answer; nothing when there was none.
    pub status: Option<u16>,
}

impl Write {
    /// Reads a request; `start` says which start of the operator sent it.
    pub fn read(parts: &Parts, bytes: &[u8], start: usize) -> Self {
        let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let object = object(parts.uri.path(), &json);
        let query = parts.uri.query().unwrap_or_default();
        let agent = parts.headers.get("user-agent").and_then(|value| value.to_str().ok());
        let secret = object.starts_with("secrets/").then(|| &json["data"]).filter(|data| data.is_object());
        Self {
            number: 0,
            at: 0,
            verb: parts.method.to_string(),
            precondition: text(&json["preconditions"]["uid"]),
            manager: query.split('&').find_map(|part| part.strip_prefix("fieldManager=")).map(str::to_owned),
            agent: agent.map(str::to_owned),
            holder: object.starts_with("leases/").then(|| text(&json["spec"]["holderIdentity"])).flatten(),
            secret: secret.map(|data| digest(data.to_string().as_bytes())),
            body: digest(bytes),
            object,
            start,
            ready: ready(&json),
            arrived: false,
            status: None,
        }
    }

    /// Whether it renews the lease.
    pub fn is_lease(&self) -> bool {
        self.object.starts_with("leases/")
    }

    /// Whether it publishes an Event.
    pub fn is_event(&self) -> bool {
        self.object.starts_with("events/")
    }

    /// Whether the API server did it.
    pub fn is_done(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// What is tried: the same again is another try of it.
    fn attempt(&self) -> (String, String) {
        (self.verb.clone(), self.object.clone())
    }
}

/// What a status says of the condition Ready.
fn ready(body: &Value) -> Option<bool> {
    let conditions = body["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == "Ready").map(|condition| condition["status"] == "True")
}

/// `plural/name` of a path such as `/apis/apps/v1/namespaces/x/deployments/y/status`; a POST has its name in the body.
fn object(path: &str, body: &Value) -> String {
    let mut parts: Vec<&str> = path.split('/').skip_while(|part| *part != "namespaces").skip(2).collect();
    if parts.len() == 1 {
        parts.push(body["metadata"]["name"].as_str().unwrap_or("-"));
    }
    parts.join("/")
}

/// Sixteen hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Default)]
struct Lines {
    writes: Vec<Write>,
    armed: bool,
    counted: usize,
    tried: BTreeSet<(String, String)>,
    last: Option<Instant>,
}

/// The journal of one plan.
pub struct Journal {
    began: Instant,
    lines: Mutex<Lines>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }
}

/// Where a write stands in the journal.
pub struct Place {
    index: usize,
    /// Its number; 0 where it doesn't count.
    pub number: usize,
    /// Whether nothing like it was tried before.
    pub first_try: bool,
}

impl Journal {
    /// Counts from now on.
    pub fn arm(&self) {
        self.with(|lines| lines.armed = true);
    }

    /// Writes a request down before anything is done about it.
    pub fn begin(&self, mut write: Write) -> Place {
        write.at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.with(|lines| {
            let counts = lines.armed && !write.is_lease();
            if counts {
                lines.counted += 1;
                write.number = lines.counted;
            }
            if !write.is_lease() {
                lines.last = Some(Instant::now());
            }
            let first_try = counts && lines.tried.insert(write.attempt());
            let number = write.number;
            lines.writes.push(write);
            Place { index: lines.writes.len() - 1, number, first_try }
        })
    }

    /// Writes down the API server's answer.
    pub fn end(&self, place: &Place, status: u16) {
        self.answered(place, status, true);
    }

    /// Writes down an answer that isn't the API server's.
    pub fn refused(&self, place: &Place, status: u16) {
        self.answered(place, status, false);
    }

    fn answered(&self, place: &Place, status: u16, arrived: bool) {
        self.with(|lines| {
            if let Some(write) = lines.writes.get_mut(place.index) {
                write.status = Some(status);
                write.arrived = arrived;
            }
        });
    }

    /// Writes that count.
    pub fn counted(&self) -> usize {
        self.with(|lines| lines.counted)
    }

    /// How long nothing was written but renewals of the lease.
    pub fn quiet_for(&self) -> Duration {
        self.with(|lines| lines.last).map_or(self.began.elapsed(), |last| last.elapsed())
    }

    /// Since when this start of the operator has had the lease; nothing before it has.
    pub fn leads_for(&self, start: usize) -> Option<Duration> {
        let took = |write: &&Write| write.is_lease() && write.start == start && write.is_done();
        let at = self.with(|lines| lines.writes.iter().find(took).map(|write| Duration::from_millis(write.at)));
        at.map(|at| self.began.elapsed().saturating_sub(at))
    }

    /// All lines.
    pub fn writes(&self) -> Vec<Write> {
        self.with(|lines| lines.writes.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Lines) -> T) -> T {
        act(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How often each object was made and deleted by writes that count.
pub fn made_and_deleted(writes: &[Write]) -> BTreeMap<String, (usize, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.number > 0 && !write.is_event()) {
        if write.status == Some(201) {
            counts.entry(write.object.clone()).or_default().0 += 1;
        }
        // One that finds nothing any more is one too many as well.
        if write.verb == "DELETE" && write.arrived {
            counts.entry(write.object.clone()).or_default().1 += 1;
        }
    }
    counts
}

/// How often a cluster that was called ready was called not ready, by writes that count.
pub fn calls_of_not_ready(writes: &[Write]) -> usize {
    let said = writes.iter().filter(|write| write.is_done() && write.object.starts_with("learningclusters/"));
    let said: Vec<(usize, bool)> = said.filter_map(|write| Some((write.number, write.ready?))).collect();
    said.windows(2).filter(|pair| matches!(pair, [(_, true), (number, false)] if *number > 0)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_named_by_its_path_or_by_the_body_of_a_post() {
        let named = |path: &str| object(path, &json!({"metadata": {"name": "n"}}));
        assert_eq!(named("/apis/apps/v1/namespaces/x/deployments/y"), "deployments/y");
        assert_eq!(
            named("/apis/hebb.dev/v1alpha1/namespaces/x/learningclusters/y/status"),
            "learningclusters/y/status"
        );
        assert_eq!(named("/api/v1/namespaces/x/events"), "events/n");
    }

    #[test]
    fn only_what_follows_the_preparations_counts_and_never_the_lease() {
        let journal = Journal::default();
        let write = |path: &str| {
            let (parts, ()) = axum::http::Request::patch(path).body(()).unwrap().into_parts();
            Write::read(&parts, b"{}", 1)
        };
        assert_eq!(journal.begin(write("/api/v1/namespaces/x/services/a")).number, 0);
        journal.arm();
        assert_eq!(journal.begin(write("/apis/coordination.k8s.io/v1/namespaces/x/leases/a")).number, 0);
        let first = journal.begin(write("/api/v1/namespaces/x/services/a"));
        assert_eq!((first.number, first.first_try), (1, true));
        let again = journal.begin(write("/api/v1/namespaces/x/services/a"));
        assert_eq!((again.number, again.first_try), (2, false));
        journal.end(&first, 201);
        assert_eq!(made_and_deleted(&journal.writes()), [("services/a".to_owned(), (1, 0))].into());
    }
}
