//! What a node needs of a store, as one value.

use std::sync::Arc;

use hebb_log::{Directory, Log, Replies};

/// The three faces of one store.
#[derive(Clone)]
pub struct Store {
    /// The partitions' logs.
    pub log: Arc<dyn Log>,
    /// The way back to the gateways.
    pub replies: Arc<dyn Replies>,
    /// Who is there and who does what.
    pub directory: Arc<dyn Directory>,
}

impl Store {
    /// A store's faces.
    pub fn new<S: Log + Replies + Directory + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self { log: store.clone(), replies: store.clone(), directory: store }
    }
}
