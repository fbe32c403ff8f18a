//! Redis `Sentinel`: pods of a server and a Sentinel each. The Sentinels decide who is primary; nothing here names one.
//!
//! What a server begins as is found out in its pod, by this program's `redis-member`: the image of Redis needs no shell.

use hebb_api::names::{self, Role, SENTINEL_MASTER};
use hebb_api::{Durability, PodTemplate};
use serde_json::{Value, json};

use super::member::{PROGRAMS, environment, member, mounts, ping, prepare, probe, small};
use super::pods::{Container, restricted, template};
use super::redis::{default_resources, keep_data, max_memory, sync};
use super::{Kind, Server, Topology, base64, digest, tls};

/// How long a primary may be silent before its Sentinels ask each other, in milliseconds. Less would take a busy machine for a
/// dead one.
const DOWN_AFTER: u32 = 3_000;
/// How long one attempt at a failover may take, in milliseconds; the next one follows after twice this.
const FAILOVER_TIMEOUT: u32 = 10_000;
/// How old a replica's last word may be to count as one that writes reach, in seconds.
const MAX_LAG: u32 = 10;
/// Handing over takes up to eleven seconds, writing the file to the disk the rest.
const GRACE_SECONDS: i64 = 30;

/// Secret, Service and StatefulSet.
pub fn render(topology: &Topology, server: &Server, replicas: i32) -> Vec<(Kind, Value)> {
    let password = topology.secrets.redis_password.as_deref().unwrap_or_default();
    let redis_conf = redis_conf(topology, server, replicas, password);
    let sentinel_conf = sentinel_conf(topology, password);
    let secret = json!({"data": {
        "password": base64(password),
        "redis.conf": base64(&redis_conf),
        "sentinel.conf": base64(&sentinel_conf),
    }});
    let selector = names::role_selector(&topology.name, Role::Redis);
    let port = |name: &str, port: i32| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    // Members find each other before they are ready: who begins as what depends on it.
    let service = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": [port("redis", names::REDIS_PORT), port("sentinel", names::SENTINEL_PORT)],
    }});
    let mut volumes = vec![
        json!({"name": "programs", "emptyDir": {}}),
        json!({"name": "config", "secret": {
            "secretName": topology.object(Role::Redis),
            "items": [{"key": "redis.conf", "path": "redis.conf"}, {"key": "sentinel.conf", "path": "sentinel.conf"}],
        }}),
    ];
    volumes.extend(tls::volume(topology));
    let mut spec = json!({
        "replicas": topology.desired(Role::Redis),
        "serviceName": topology.object(Role::Redis),
        "podManagementPolicy": "Parallel",
        // The operator renews the pods, the primary last.
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": selector},
    });
    keep_data(topology, server, &mut volumes, &mut spec);
    let container = Container {
        role: Role::Redis,
        image: &server.image,
        body: server_body(topology, replicas),
        config_digest: &digest(&[vec![redis_conf.as_str(), &sentinel_conf], topology.secrets.shown()].concat()),
        volumes: Value::Array(volumes),
        grace_seconds: GRACE_SECONDS,
        default_resources: default_resources(),
        resources: server.resources.as_ref(),
        init: vec![prepare(topology, environment(topology, replicas))],
        sidecars: vec![sentinel(topology, server)],
    };
    spec["template"] = template(topology, &PodTemplate::default(), container);
    vec![(Kind::Secret, secret), (Kind::Service, service), (Kind::StatefulSet, json!({"spec": spec}))]
}

/// Replicas that must have a write: with the primary they are more than half of the servers.
pub fn quorum(replicas: i32) -> i32 {
    replicas / 2
}

fn redis_conf(topology: &Topology, server: &Server, replicas: i32, password: &str) -> String {
    let mut lines = tls::listening(topology, names::REDIS_PORT);
    lines.extend([
        "dir /data".to_owned(),
        format!("requirepass {password}"),
        format!("masterauth {password}"),
        "appendonly yes".to_owned(),
        format!("appendfsync {}", sync(server.durability)),
        "save \"\"".to_owned(),
        format!("maxmemory {}", max_memory(server)),
        "maxmemory-policy noeviction".to_owned(),
        // A replica that comes back is there at once: writes may be waiting for it.
        "repl-diskless-sync-delay 0".to_owned(),
        // A replica that dials a pod's address of before hears nothing, not even a refusal, and must soon try the new one.
        "repl-ping-replica-period 5".to_owned(),
        "repl-timeout 15".to_owned(),
    ]);
    if server.durability == Durability::Replicated {
        // A primary that is cut off says so at once, whoever still reaches it.
        lines.push(format!("min-replicas-to-write {}", quorum(replicas)));
        lines.push(format!("min-replicas-max-lag {MAX_LAG}"));
    }
    lines.join("\n") + "\n"
}

fn sentinel_conf(topology: &Topology, password: &str) -> String {
    let setting = |name: &str, value: &str| format!("sentinel {name} {SENTINEL_MASTER} {value}");
    let mut lines = tls::listening(topology, names::SENTINEL_PORT);
    lines.extend([
        format!("requirepass {password}"),
        format!("sentinel sentinel-pass {password}"),
        // A pod that comes back has another address.
        "sentinel resolve-hostnames yes".to_owned(),
        "sentinel announce-hostnames yes".to_owned(),
        setting("auth-pass", password),
        setting("down-after-milliseconds", &DOWN_AFTER.to_string()),
        setting("failover-timeout", &FAILOVER_TIMEOUT.to_string()),
        setting("parallel-syncs", "1"),
    ]);
    lines.join("\n") + "\n"
}

fn server_body(topology: &Topology, replicas: i32) -> Value {
    json!({
        "command": [format!("{PROGRAMS}/hebb"), "redis-member", "serve"],
        "env": environment(topology, replicas),
        "ports": [{"name": "redis", "containerPort": names::REDIS_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts(topology, true, true),
        "lifecycle": {"preStop": member(&["leave"])},
        "readinessProbe": probe(member(&["ready"]), 3, 2),
        // While it finds out what to begin as, nobody listens.
        "livenessProbe": probe(ping(topology, names::REDIS_PORT, &["--or-closed"]), 10, 6),
    })
}

fn sentinel(topology: &Topology, server: &Server) -> Value {
    let ping = ping(topology, names::SENTINEL_PORT, &[]);
    // Of a connection without a handshake a Sentinel complains in its log.
    let ready = match tls::mount(topology) {
        Some(_) => ping.clone(),
        None => json!({"tcpSocket": {"port": names::SENTINEL_PORT}}),
    };
    let body = json!({
        "command": ["redis-server"],
        "args": ["/data/sentinel.conf", "--sentinel"],
        "ports": [{"name": "sentinel", "containerPort": names::SENTINEL_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts(topology, false, true),
        "readinessProbe": probe(ready, 3, 2),
        "livenessProbe": probe(ping, 30, 3),
    });
    restricted("sentinel", &server.image, small(), body)
}
