//! What alerts ask of a LearningCluster's controller. They are kept in memory: an action that a crash cut short is recorded
//! as run, and asked for again only when its alert still fires.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hebb_api::LearningCluster;
use hebb_api::names::Role;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::oneshot;

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

/// The requests by cluster.
#[derive(Default)]
pub struct Requests(Mutex<HashMap<String, Vec<Request>>>);

fn id(key: &ObjectRef<LearningCluster>) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}

impl Requests {
    /// Leaves a request for the next pass.
    pub fn put(&self, key: &ObjectRef<LearningCluster>, request: Request) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id(key)).or_default().push(request);
    }

    /// Takes all requests.
    pub fn take(&self, key: &ObjectRef<LearningCluster>) -> Vec<Request> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id(key)).unwrap_or_default()
    }
}
