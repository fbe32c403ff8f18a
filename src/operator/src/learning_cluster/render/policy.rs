//! PodDisruptionBudgets: a role of more than one pod loses at most one at a time.

use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::Topology;

/// The budget of a role; none where it would forbid every drain of a node.
pub fn disruption_budget(topology: &Topology, role: Role) -> Option<Value> {
    (topology.disruption_budgets && topology.desired(role) > 1).then(|| {
        json!({"spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names::role_selector(&topology.name, role)},
        }})
    })
}
