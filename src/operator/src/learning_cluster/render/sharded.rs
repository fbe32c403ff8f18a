//! Redis `Cluster`: shards of a primary and a replica each. Redis elects the primaries; nothing here names one.
//!
//! How the servers find each other and who gets which slots is found out in the pods, by this program's `redis-member`.

use hebb_api::PodTemplate;
use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::member::{PROGRAMS, environment, member, mounts, ping, prepare, probe, small};
use super::pods::{Container, restricted, template};
use super::redis::{default_resources, keep_data, max_memory, sync};
use super::{Kind, Server, Topology, base64, digest, tls};

/// How long a primary may be silent before the others ask each other, in milliseconds: as with Sentinels. Agreement and
/// election take some two seconds more.
const NODE_TIMEOUT: u32 = 3_000;
/// Handing over takes up to six seconds, writing the file to the disk the rest.
const GRACE_SECONDS: i64 = 30;
/// Replicas of a shard that must have a write where it is to be replicated: the only one.
pub const QUORUM: i32 = 1;

/// Secret, Service and StatefulSet.
pub fn render(topology: &Topology, server: &Server, replicas: i32) -> Vec<(Kind, Value)> {
    let password = topology.secrets.redis_password.as_deref().unwrap_or_default();
    let redis_conf = redis_conf(topology, server, password);
    let secret = json!({"data": {"password": base64(password), "redis.conf": base64(&redis_conf)}});
    let selector = names::role_selector(&topology.name, Role::Redis);
    // Members find each other before they are ready. The bus needs no port here: it is reached by address.
    let service = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": [{"name": "redis", "port": names::REDIS_PORT, "targetPort": names::REDIS_PORT, "protocol": "TCP"}],
    }});
    let mut volumes = vec![
        json!({"name": "programs", "emptyDir": {}}),
        json!({"name": "config", "secret": {
            "secretName": topology.object(Role::Redis),
            "items": [{"key": "redis.conf", "path": "redis.conf"}],
        }}),
    ];
    volumes.extend(tls::volume(topology));
    let mut spec = json!({
        "replicas": topology.desired(Role::Redis),
        "serviceName": topology.object(Role::Redis),
        "podManagementPolicy": "Parallel",
        // The operator renews the pods, the primaries last.
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": selector},
    });
    keep_data(topology, server, &mut volumes, &mut spec);
    let environment = addressed(environment(topology, replicas));
    let container = Container {
        role: Role::Redis,
        image: &server.image,
        body: server_body(topology, &environment),
        config_digest: &digest(&[vec![redis_conf.as_str()], topology.secrets.shown()].concat()),
        volumes: Value::Array(volumes),
        grace_seconds: GRACE_SECONDS,
        default_resources: default_resources(),
        resources: server.resources.as_ref(),
        init: vec![prepare(topology, environment.clone())],
        sidecars: vec![tend(topology, &environment)],
    };
    spec["template"] = template(topology, &PodTemplate::default(), container);
    vec![(Kind::Secret, secret), (Kind::Service, service), (Kind::StatefulSet, json!({"spec": spec}))]
}

fn redis_conf(topology: &Topology, server: &Server, password: &str) -> String {
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
        "cluster-enabled yes".to_owned(),
        "cluster-config-file nodes.conf".to_owned(),
        format!("cluster-node-timeout {NODE_TIMEOUT}"),
        // A partition lives in one slot: a shard that is lost stops only its own.
        "cluster-require-full-coverage no".to_owned(),
        // A pod that comes back has another address.
        "cluster-preferred-endpoint-type hostname".to_owned(),
    ]);
    if topology.secrets.certificate.is_some() {
        // On the bus servers show the certificate to each other.
        lines.push("tls-cluster yes".to_owned());
    }
    lines.join("\n") + "\n"
}

/// The environment with the pod's address, under which its server is known.
fn addressed(mut environment: Value) -> Value {
    if let Some(variables) = environment.as_array_mut() {
        variables.push(json!({"name": "REDIS_CLUSTER_IP", "valueFrom": {"fieldRef": {
            "apiVersion": "v1", "fieldPath": "status.podIP",
        }}}));
    }
    environment
}

fn server_body(topology: &Topology, environment: &Value) -> Value {
    let listens = |name: &str, port: i32| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    json!({
        "command": [format!("{PROGRAMS}/hebb"), "redis-member", "serve"],
        "env": environment,
        "ports": [listens("redis", names::REDIS_PORT), listens("bus", names::REDIS_BUS_PORT)],
        "volumeMounts": mounts(topology, true, true),
        "lifecycle": {"preStop": member(&["leave"])},
        "readinessProbe": probe(member(&["ready"]), 3, 2),
        // While its replica is elected, nobody listens.
        "livenessProbe": probe(ping(topology, names::REDIS_PORT, &["--or-closed"]), 10, 6),
    })
}

fn tend(topology: &Topology, environment: &Value) -> Value {
    let mut mounts = vec![json!({"name": "data", "mountPath": "/data"})];
    mounts.extend(tls::mount(topology));
    let body = json!({
        "args": ["redis-member", "tend"],
        "env": environment,
        "volumeMounts": mounts,
    });
    restricted("tend", &topology.image, small(), body)
}
