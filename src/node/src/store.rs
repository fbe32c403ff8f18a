//! What a node needs of a store, as one value.

use std::sync::Arc;

use hebb_log::{Directory, History, Log, Replies};

/// The faces of a store.
#[derive(Clone)]
pub struct Store {
    /// The partitions' logs.
    pub log: Arc<dyn Log>,
    /// The way back to the gateways.
    pub replies: Arc<dyn Replies>,
    /// Who is there and who does what.
    pub directory: Arc<dyn Directory>,
    /// What was measured, where it is kept longer than a process lives.
    pub history: Option<Arc<dyn History>>,
}

impl Store {
    /// A store's faces, without a history.
    pub fn new<S: Log + Replies + Directory + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self { log: store.clone(), replies: store.clone(), directory: store, history: None }
    }

    /// The same, with a history that is kept.
    pub fn with_history(self, history: impl History + 'static) -> Self {
        Self { history: Some(Arc::new(history)), ..self }
    }
}
