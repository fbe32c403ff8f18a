//! Gateway, coordinators and workers: the engine's binary in three roles.

use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::pods::{Container, http_probes, template};
use super::{Kind, Redis, Topology};

/// The time that a pod without state needs to finish its requests.
const GRACE_SECONDS: i64 = 15;
/// What a worker needs on top of its drain, to be told and to exit.
const DRAIN_MARGIN_SECONDS: i64 = 5;

/// Service and workload of a role.
pub fn render(topology: &Topology, role: Role) -> Vec<(Kind, Value)> {
    let selector = names::role_selector(&topology.name, role);
    let (port, pods, memory, limit, grace) = match role {
        Role::Gateway => (names::GATEWAY_PORT, &topology.gateway, "32Mi", "256Mi", GRACE_SECONDS),
        Role::Coordinator => (names::COORDINATOR_PORT, &topology.coordinator, "32Mi", "128Mi", GRACE_SECONDS),
        Role::Worker => {
            let grace = topology.drain_seconds.saturating_add(DRAIN_MARGIN_SECONDS);
            (names::WORKER_PORT, &topology.worker, "64Mi", "1Gi", grace)
        }
        // Redis has a file of its own.
        Role::Redis => return Vec::new(),
    };
    let container = Container {
        role,
        image: &topology.image,
        body: body(topology, role, port),
        volumes: json!([{"name": "config", "configMap": {"name": names::config_name(&topology.name)}}]),
        grace_seconds: grace,
        default_resources: json!({
            "requests": {"cpu": "20m", "memory": memory}, "limits": {"memory": limit},
        }),
        resources: None,
    };
    let mut spec = json!({
        "selector": {"matchLabels": selector},
        "template": template(topology, &pods.template, container),
    });
    // Whose number somebody else decides must not be told one.
    let autoscaled = role == Role::Worker && topology.hpa.is_some() && !topology.suspended;
    if !autoscaled {
        spec["replicas"] = json!(topology.desired(role));
    }
    if role == Role::Gateway {
        spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
        let service = json!({"spec": {
            "type": topology.service_type,
            "selector": selector,
            "ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}],
        }});
        return vec![(Kind::Service, service), (Kind::Deployment, json!({"spec": spec}))];
    }
    if role == Role::Worker {
        spec["strategy"] = json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": topology.workers_unavailable, "maxSurge": 0},
        });
        return vec![(Kind::Deployment, json!({"spec": spec}))];
    }
    spec["serviceName"] = json!(topology.object(role));
    spec["podManagementPolicy"] = json!("Parallel");
    // Pods find each other before they are ready: readiness may depend on the other one.
    let service = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
    }});
    vec![(Kind::Service, service), (Kind::StatefulSet, json!({"spec": spec}))]
}

fn body(topology: &Topology, role: Role, port: i32) -> Value {
    let mut env = vec![
        json!({"name": "NODE_ROLE", "value": role.as_str()}),
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}),
        json!({"name": "COORDINATOR_HOST", "value": topology.host(Role::Coordinator)}),
        json!({"name": "HEBB_INTERNAL_TOKEN", "valueFrom": {"secretKeyRef": {
            "name": names::internal_secret_name(&topology.name), "key": "token",
        }}}),
    ];
    if role == Role::Coordinator {
        let advertise = format!("$(POD_NAME).{}:{port}", topology.host(Role::Coordinator));
        env.push(json!({"name": "HEBB_ADVERTISE", "value": advertise}));
    }
    match &topology.redis {
        Redis::Standalone { .. } => {
            env.push(json!({"name": "REDIS_HOST", "value": topology.host(Role::Redis)}));
            env.push(json!({"name": "REDIS_PORT", "value": names::REDIS_PORT.to_string()}));
            env.push(json!({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {
                "name": topology.object(Role::Redis), "key": "password",
            }}}));
        }
        Redis::External(external) => {
            env.push(json!({"name": "REDIS_HOST", "value": external.host}));
            env.push(json!({"name": "REDIS_PORT", "value": external.port.to_string()}));
            if let Some(reference) = &external.password_secret_ref {
                env.push(json!({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {
                    "name": reference.name, "key": reference.key,
                }}}));
            }
        }
    }
    let mut body = json!({
        "args": [role.as_str(), "--file", names::CONFIG_PATH],
        "env": env,
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/hebb", "readOnly": true}],
    });
    if let (Some(body), Value::Object(probes)) = (body.as_object_mut(), http_probes(port)) {
        body.extend(probes);
    }
    body
}
