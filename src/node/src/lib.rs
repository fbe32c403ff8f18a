//! The roles that run the engine: gateway, coordinator, worker, and all of them in one process.
//!
//! Decisions are pure and stand in files of their own (`coordinator::assign`, `worker::pace`, `gateway::wire`); the loops
//! around them do the I/O. No role talks to Kubernetes. A role knows the log only by its traits, so that a laptop's
//! directory and a cluster's Redis run the same code.

pub mod coordinator;
pub mod embedded;
pub mod gateway;
mod health;
mod serve;
mod settings;
mod stop;
mod store;
pub mod worker;

pub use health::{Health, HealthReport};
pub use serve::NodeError;
pub use settings::{ClusterSettings, SettingsError};
pub use stop::{Stop, Stopper, stop_channel};
pub use store::Store;
