//! The roles that run the engine: gateway, coordinator, worker, and all of them in one process.
//!
//! Decisions are pure and stand in files of their own (`coordinator::assign`, `worker::pace`, `gateway::wire`); the loops
//! around them do the I/O. No role talks to Kubernetes. A role knows the log only by its traits, so that a laptop's
//! directory and a cluster's Redis run the same code.

pub mod backup;
mod browser;
pub mod coordinator;
mod cpu;
mod embedded;
#[cfg(test)]
mod gated;
pub mod gateway;
mod health;
mod leftover;
mod memory;
mod patience;
mod replay;
pub mod report;
mod roles;
mod serve;
mod settings;
mod stop;
mod store;
mod stored;
mod system;
mod task;
mod trail;
mod window;
pub mod worker;

pub use embedded::{EmbeddedAddresses, EmbeddedIdentity, run_embedded};
pub use gateway::Observation;
pub use health::{Health, HealthReport};
pub use memory::Memory;
pub use roles::{Identity, run_coordinator, run_gateway, run_workers};
pub use serve::NodeError;
pub use settings::{Access, ClusterSettings, MetaLearning};
pub use stop::{Stop, Stopper, stop_channel};
pub use store::Store;
pub use system::{EVENTS_MAX, System, SystemError, coordinator_address, create_cluster, create_local, open_local};
pub use worker::WorkerCount;
