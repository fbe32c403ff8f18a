//! One member of a Redis that Hebb runs: with Sentinels, a server and a Sentinel in each pod; of a Redis Cluster, a server
//! and a program that tends it.
//!
//! Redis decides who is primary, and nobody here ever tells it. What is decided here is only what a server begins as when
//! its process starts, from what the Sentinels and the other servers say: see [`decide`]; and for a Redis Cluster what Redis
//! leaves to people: see [`sharded`].

mod ask;
mod decide;
mod files;
mod member;
pub mod sharded;

pub use ask::{Group, Newest};
pub use decide::{Opinion, Reason, Server, Start, View, decide};
pub use files::{cluster_conf, primary_settings, redis_conf, sentinel_conf};
pub use member::{Member, MemberError, Sealed, answers};
