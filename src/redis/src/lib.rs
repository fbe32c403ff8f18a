//! One member of a Redis with Sentinels that Hebb runs: a server and a Sentinel in each pod.
//!
//! The Sentinels decide who is primary, and nobody here ever tells them. What is decided here is only what a server begins
//! as when its process starts, from what the Sentinels and the other servers say: see [`decide`].

mod ask;
mod decide;
mod files;
mod member;

pub use ask::{Group, Newest};
pub use decide::{Opinion, Reason, Server, Start, View, decide};
pub use files::{primary_settings, redis_conf, sentinel_conf};
pub use member::{Member, MemberError, answers};
