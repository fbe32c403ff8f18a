//! What the demo and the tests against a real cluster share: kubectl, a client that keeps a ledger, and the data.

pub mod data;
mod forward;
pub mod group;
pub mod kubectl;
pub mod ledger;
pub mod policies;

/// Anything that ends a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
