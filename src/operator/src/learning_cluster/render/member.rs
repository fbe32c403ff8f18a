//! What the pods of Redis share whose members find each other, with Sentinels or as a Cluster: this program's `redis-member`
//! in containers of an image of Redis that needs no shell.

use hebb_api::names::Role;
use serde_json::{Value, json};

use super::Topology;
use super::pods::restricted;

/// Where the program lies in the containers of the Redis image.
pub const PROGRAMS: &str = "/programs";

/// What tells `redis-member` where it is.
pub fn environment(topology: &Topology, replicas: i32) -> Value {
    json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "REDIS_SERVICE", "value": topology.host(Role::Redis)},
        {"name": "REDIS_MEMBERS", "value": replicas.to_string()},
        {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": topology.object(Role::Redis), "key": "password"}}},
    ])
}

/// The volumes that a container of the Redis image sees.
pub fn mounts(config: bool, data: bool) -> Value {
    let mut mounts = vec![json!({"name": "programs", "mountPath": PROGRAMS})];
    if data {
        mounts.push(json!({"name": "data", "mountPath": "/data"}));
    }
    if config {
        mounts.push(json!({"name": "config", "mountPath": "/etc/redis", "readOnly": true}));
    }
    Value::Array(mounts)
}

/// What puts the program where the server's container finds it.
pub fn prepare(topology: &Topology, environment: Value) -> Value {
    let body = json!({
        "args": ["redis-member", "prepare", "--programs", PROGRAMS],
        "env": environment,
        "volumeMounts": mounts(true, true),
    });
    restricted("prepare", &topology.image, small(), body)
}

/// Requests and limit of a program beside the server.
pub fn small() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}})
}

/// A handler that runs `redis-member`.
pub fn member(arguments: &[&str]) -> Value {
    let program = format!("{PROGRAMS}/hebb");
    let words: Vec<&str> = [program.as_str(), "--log-level", "warn", "redis-member"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    json!({"exec": {"command": words}})
}

/// A probe by a handler, so often and so many times.
pub fn probe(mut handler: Value, period: i32, failures: i32) -> Value {
    handler["periodSeconds"] = json!(period);
    handler["failureThreshold"] = json!(failures);
    handler["timeoutSeconds"] = json!(5);
    handler
}
