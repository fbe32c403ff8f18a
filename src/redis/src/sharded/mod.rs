//! One member of a Redis Cluster that Hebb runs: a server, and beside it a program that keeps it one of the members.
//!
//! Redis decides who is primary of a shard, and nobody here ever tells it who to prefer. What is decided here is what Redis
//! leaves to people: where the other members are after their addresses have changed, who holds which slots when everybody
//! is new, whose replica an empty server becomes, and which dead ones are forgotten. See [`tend`] and [`begin`].

mod decide;
mod hear;
mod keeper;
mod nodes;

pub use decide::{Begin, Step, View, begin, primaries, slots_of, tend};
pub use hear::{Link, Said};
pub use keeper::Keeper;
pub use nodes::{Node, SLOTS};
