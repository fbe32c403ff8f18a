//! What the pods of Redis share whose members find each other, with Sentinels or as a Cluster: this program's `redis-member`
//! in containers of an image of Redis that needs no shell.

use hebb_api::names::Role;
use serde_json::{Value, json};

use super::pods::restricted;
use super::{Topology, tls};

/// Where the program lies in the containers of the Redis image.
pub const PROGRAMS: &str = "/programs";

/// What tells `redis-member` where it is.
pub fn environment(topology: &Topology, replicas: i32) -> Value {
    let mut variables = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "REDIS_SERVICE", "value": topology.host(Role::Redis)},
        {"name": "REDIS_MEMBERS", "value": replicas.to_string()},
        {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": topology.object(Role::Redis), "key": "password"}}},
    ]);
    if let Some(variables) = variables.as_array_mut() {
        variables.extend(tls::environment(topology));
    }
    variables
}

/// The volumes that a container of the Redis image sees.
pub fn mounts(topology: &Topology, config: bool, data: bool) -> Value {
    let mut mounts = vec![json!({"name": "programs", "mountPath": PROGRAMS})];
    if data {
        mounts.push(json!({"name": "data", "mountPath": "/data"}));
    }
    if config {
        mounts.push(json!({"name": "config", "mountPath": "/etc/redis", "readOnly": true}));
    }
    mounts.extend(tls::mount(topology));
    Value::Array(mounts)
}

/// What puts the program where the server's container finds it.
pub fn prepare(topology: &Topology, environment: Value) -> Value {
    let body = json!({
        "args": ["redis-member", "prepare", "--programs", PROGRAMS],
        "env": environment,
        "volumeMounts": mounts(topology, true, true),
    });
    restricted("prepare", &topology.image, small(), body)
}

/// Requests and limit of a program beside the server.
pub fn small() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}})
}

/// A handler that asks whether somebody answers on a port of the pod.
pub fn ping(topology: &Topology, port: i32, more: &[&str]) -> Value {
    let (port, sealed) = (port.to_string(), tls::ping_arguments(topology));
    let words = ["ping", "--port", port.as_str()].into_iter().chain(more.iter().copied());
    member(&words.chain(sealed.iter().map(String::as_str)).collect::<Vec<_>>())
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
