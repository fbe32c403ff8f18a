//! The custom resources of Hebb: types, validation rules, defaults and names. The contract between users, the operator
//! and the nodes; there is no client here.

mod alert_policy;
mod crd;
mod cron;
mod duration;
pub mod growth;
mod learning_cluster;
pub mod load;
pub mod names;
mod plain;
pub mod scaling;
mod schema;

pub use alert_policy::*;
pub use crd::{crd_yaml, crds};
pub use duration::{Duration, DurationError};
pub use learning_cluster::*;
