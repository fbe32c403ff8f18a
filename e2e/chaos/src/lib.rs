//! Faults for the operator: the release binary runs against a real API server through a proxy that writes down every write
//! and does harm at a chosen one; oracles compare what became of it with what becomes of a run without faults.
//!
//! ```text
//! hebb operator ── HTTP ──▶ proxy (journal, fault, mutant) ── TLS ──▶ kube-apiserver + etcd
//!        └── asks the coordinators ──▶ coordinator stand-in               ▲
//!                                      workload stand-in ────────────────┘ pods, statuses, garbage collection
//! ```
//!
//! [`fleet`] is for many clusters at once: real workload controllers, a stand-in for the kubelets, no faults.
//!
//! No kubelet runs: [`stand_in`] plays it, the workload controllers and the garbage collector. Everything is on loopback,
//! with ports and folders of its own, and a namespace, a proxy and an operator for each plan, so that plans run side by side.

pub mod fault;
pub mod fleet;
pub mod journal;
pub mod operator;
pub mod oracle;
pub mod plane;
pub mod proxy;
pub mod run;
pub mod stand_in;
pub mod suite;
pub mod workload;

/// Anything that ends a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
