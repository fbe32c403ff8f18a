//! PodDisruptionBudgets, by which a role of more than one pod loses at most one at a time, and the HorizontalPodAutoscaler.

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

/// The autoscaler of the workers, where the spec leaves them to one.
pub fn autoscaler(topology: &Topology) -> Option<Value> {
    let spec = topology.hpa.as_ref().filter(|_| topology.runs())?;
    let rules = |window: hebb_api::Duration, step: i32, period: i32| {
        json!({
            "stabilizationWindowSeconds": window.0.as_secs(),
            "policies": [{"type": "Pods", "value": step, "periodSeconds": period}],
        })
    };
    Some(json!({"spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": super::nodes(topology).names().2, "name": topology.object(Role::Worker)},
        "minReplicas": spec.min_replicas,
        "maxReplicas": spec.max_replicas,
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": spec.target_cpu_utilization_percentage},
        }}],
        "behavior": {
            "scaleUp": rules(spec.scale_up.stabilization, spec.scale_up.max_step, 15),
            "scaleDown": rules(spec.scale_down.stabilization, spec.scale_down.max_step, 60),
        },
    }}))
}
