//! What alerts and people ask of a LearningCluster's controller. The requests of alerts are kept in memory: an action that a
//! crash cut short is recorded as run, and asked for again only when its alert still fires. People ask by an annotation, and
//! the status has the answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hebb_api::names::{self, Role};
use hebb_api::{LearningCluster, RequestStatus};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::oneshot;

use super::status::whole_second;
use super::uid_of;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Replace so many pods of a role, the worst first.
    Restart { role: Role, pods: u32 },
    /// Replace the pod of a primary that another server can follow: the pod hands its role over.
    Failover,
    /// So many workers at least, as far as the autoscaler may go.
    Workers { at_least: i32 },
}

/// A request, and who waits for its answer.
pub struct Request {
    pub what: Ask,
    pub answer: oneshot::Sender<Result<String, String>>,
}

impl Request {
    fn is_waited_for(&self) -> bool {
        !self.answer.is_closed()
    }
}

/// The requests by the cluster's uid.
#[derive(Default)]
pub struct Requests(Mutex<HashMap<String, Vec<Request>>>);

impl Requests {
    /// Leaves a request for the next pass.
    pub fn put(&self, key: &ObjectRef<LearningCluster>, request: Request) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = requests.entry(uid_of(key)).or_default();
        // A cluster that isn't reconciled for long gathers none that were given up.
        waiting.retain(Request::is_waited_for);
        waiting.push(request);
    }

    /// Lets go of those to clusters whose uid isn't kept; who waits for their answers hears that nobody will answer.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| keep(uid));
    }

    /// Takes all requests but those that were given up: who asked was told that nothing came of them.
    pub fn take(&self, key: &ObjectRef<LearningCluster>) -> Vec<Request> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid_of(key));
        taken.unwrap_or_default().into_iter().filter(Request::is_waited_for).collect()
    }
}

/// Characters of a request that the status repeats.
const VALUE_MAX: usize = 128;

/// What a person asks for by the annotation.
#[derive(Debug)]
pub struct Asked {
    value: String,
    pub what: Result<Ask, String>,
}

impl Asked {
    /// What the annotation says, if it is something new.
    pub fn of(cluster: &LearningCluster) -> Option<Self> {
        let annotations = cluster.metadata.annotations.as_ref()?;
        let value = annotations.get(names::REQUEST_ANNOTATION)?.trim();
        let value: String = value.chars().take(VALUE_MAX).collect();
        let answered = cluster.status.as_ref().and_then(|status| status.request.as_ref());
        if value.is_empty() || answered.is_some_and(|answered| answered.value == value) {
            return None;
        }
        let mut words = value.split_whitespace();
        let what = match (words.next(), words.next().and_then(Role::of)) {
            (Some("failover"), _) => Ok(Ask::Failover),
            (Some("restart"), Some(role)) => Ok(Ask::Restart { role, pods: 1 }),
            _ => Err("a request is \"failover\", or \"restart\" and one of gateway, coordinator, worker and redis"
                .to_owned()),
        };
        Some(Self { value, what })
    }

    /// What the status says of it.
    pub fn answered(self, answer: Result<String, String>, now: Timestamp) -> RequestStatus {
        let granted = answer.is_ok();
        let (Ok(message) | Err(message)) = answer;
        RequestStatus { value: self.value, granted, message, at: whole_second(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_given_up_is_never_carried_out() {
        let requests = Requests::default();
        let key = ObjectRef::<LearningCluster>::new("demo").within("default");
        let ask = || {
            let (answer, answered) = oneshot::channel();
            requests.put(&key, Request { what: Ask::Failover, answer });
            answered
        };
        drop(ask());
        drop(ask());
        let answered = ask();
        let taken = requests.take(&key);
        assert_eq!(taken.len(), 1);
        drop((taken, answered));
        drop(ask());
        assert!(requests.take(&key).is_empty());
    }

    #[test]
    fn a_person_asks_once_with_each_value_and_is_told_what_can_be_asked() {
        let mut cluster = LearningCluster::default();
        let mut asked = |value: &str, answered: Option<&str>| {
            cluster.metadata.annotations = Some([(names::REQUEST_ANNOTATION.to_owned(), value.to_owned())].into());
            cluster.status.get_or_insert_default().request = answered.map(|value| RequestStatus {
                value: value.to_owned(),
                granted: true,
                message: String::new(),
                at: whole_second(Timestamp::UNIX_EPOCH),
            });
            Asked::of(&cluster).map(|asked| asked.what)
        };
        assert_eq!(asked("failover 1", None), Some(Ok(Ask::Failover)));
        assert_eq!(asked("failover 1", Some("failover 1")), None);
        assert_eq!(asked("failover 2", Some("failover 1")), Some(Ok(Ask::Failover)));
        assert_eq!(asked("restart redis 7", None), Some(Ok(Ask::Restart { role: Role::Redis, pods: 1 })));
        assert_eq!(asked("", None), None);
        for nonsense in ["restart", "restart everything", "delete worker"] {
            assert!(matches!(asked(nonsense, None), Some(Err(_))), "{nonsense}");
        }
        assert!(asked(&"x".repeat(500), Some(&"x".repeat(VALUE_MAX))).is_none(), "a long one is answered once too");
    }
}
