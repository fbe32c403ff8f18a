//! Gateway, coordinators and workers: the engine's binary in three roles.

use hebb_api::names::{self, Role};
use hebb_api::{Durability, ExternalRedis, SecretKeyRef};
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use super::pods::{Container, http_probes, template};
use super::{Kind, Redis, Server, Topology, sentinel, sharded, tls};
use crate::learning_cluster::quantity;

/// The time that a pod without state needs to finish its requests.
const GRACE_SECONDS: i64 = 15;
/// Where the certificates of Redis are found.
const REDIS_TLS_PATH: &str = "/etc/hebb-redis-tls";
/// What `hebb gateway --threads` takes at most.
const THREADS_MAX: u16 = 256;
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
        config_digest: &topology.digest,
        volumes: Value::Array(volumes(topology, role)),
        grace_seconds: grace,
        default_resources: json!({
            "requests": {"cpu": "20m", "memory": memory}, "limits": {"memory": limit},
        }),
        resources: None,
        init: Vec::new(),
        sidecars: Vec::new(),
    };
    let mut spec = json!({
        "selector": {"matchLabels": selector},
        "template": template(topology, &pods.template, container),
    });
    // Whose number somebody else decides must not be told one.
    let autoscaled = role == Role::Worker && topology.hpa.is_some() && topology.runs();
    if !autoscaled {
        spec["replicas"] = json!(topology.desired(role));
    }
    let nodes = super::nodes(topology);
    if role == Role::Gateway {
        if nodes == Kind::Deployment {
            spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
        }
        let service = json!({"spec": {
            "type": topology.service_type,
            "selector": selector,
            "ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}],
        }});
        return vec![(Kind::Service, service), (nodes, json!({"spec": spec}))];
    }
    if role == Role::Worker {
        if nodes == Kind::Deployment {
            spec["strategy"] = json!({
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": topology.workers_unavailable, "maxSurge": 0},
            });
        }
        return vec![(nodes, json!({"spec": spec}))];
    }
    spec["updateStrategy"] = super::update_strategy(topology);
    spec["serviceName"] = json!(topology.object(role));
    spec["podManagementPolicy"] = json!("Parallel");
    let mut service_ports = vec![json!({"name": "http", "port": port, "targetPort": port, "protocol": "TCP"})];
    if role == Role::Coordinator {
        let meta = names::META_PORT;
        service_ports.push(json!({"name": "meta", "port": meta, "targetPort": meta, "protocol": "TCP"}));
    }
    // Pods find each other before they are ready: readiness may depend on the other one.
    let service = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": service_ports,
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
    if role == Role::Gateway
        && let Some(threads) = threads(topology.gateway.template.resources.as_ref())
    {
        env.push(json!({"name": "HEBB_THREADS", "value": threads.to_string()}));
    }
    if role == Role::Gateway {
        env.extend(gateway_env(topology));
    }
    env.extend(collector_env(topology, role));
    env.extend(redis_env(topology));
    let mut mounts = redis_mounts(topology);
    if role == Role::Gateway && topology.api_keys.is_some() {
        mounts.push(json!({"name": "api-keys", "mountPath": names::API_KEYS_PATH, "readOnly": true}));
    }
    let mut body = json!({
        "args": [role.as_str(), "--file", names::CONFIG_PATH],
        "env": env,
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "volumeMounts": mounts,
    });
    if let (Some(body), Value::Object(probes)) = (body.as_object_mut(), http_probes(port)) {
        body.extend(probes);
    }
    body
}

fn volumes(topology: &Topology, role: Role) -> Vec<Value> {
    let mut volumes = redis_volumes(topology);
    if let (Role::Gateway, Some(secret)) = (role, &topology.api_keys) {
        volumes.push(json!({"name": "api-keys", "secret": {"secretName": secret}}));
    }
    volumes
}

/// What tells a process where its metrics and traces go. POD_NAME stands before it.
fn collector_env(topology: &Topology, role: Role) -> Vec<Value> {
    let mut env = Vec::new();
    if let Some(metrics) = topology.metrics_of(role) {
        env.push(("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", format!("{}/v1/metrics", metrics.endpoint)));
        env.push(("OTEL_METRIC_EXPORT_INTERVAL", metrics.interval.0.as_millis().to_string()));
    }
    if let Some(traces) = topology.traces_of(role) {
        let share = f64::from(traces.sample_percent) / 100.0;
        env.push(("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", traces.endpoint)));
        env.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
        env.push(("OTEL_TRACES_SAMPLER_ARG", share.to_string()));
    }
    if !env.is_empty() {
        let (namespace, name) = (&topology.namespace, &topology.name);
        let whose = format!("k8s.namespace.name={namespace},k8s.pod.name=$(POD_NAME),hebb.cluster={name}");
        env.push(("OTEL_RESOURCE_ATTRIBUTES", whose));
    }
    env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// What tells a gateway whom it serves, and how much.
fn gateway_env(topology: &Topology) -> Vec<Value> {
    let keys = topology.api_keys.as_ref().map(|_| json!({"name": "HEBB_API_KEYS", "value": names::API_KEYS_PATH}));
    let limit = topology.rate_limit.as_ref().map(|limit| json!({"name": "HEBB_RATE_LIMIT", "value": limit}));
    let interval = topology.sync_interval;
    let interval = interval.map(|interval| json!({"name": "HEBB_SYNC_INTERVAL", "value": interval.to_string()}));
    keys.into_iter().chain(limit).chain(interval).collect()
}

/// A gateway serves on one thread; a limit of more processors is a wish for more.
fn threads(resources: Option<&ResourceRequirements>) -> Option<u16> {
    let processors = quantity::parse(&resources?.limits.as_ref()?.get("cpu")?.0)?;
    (processors > 1.0).then(|| processors.ceil().min(f64::from(THREADS_MAX)) as u16)
}

/// What tells a process where Redis is.
pub fn redis_env(topology: &Topology) -> Vec<Value> {
    let mut env = match &topology.redis {
        Redis::Sentinel { server, replicas } => sentinels(topology, server, *replicas),
        Redis::Cluster { server, .. } => nodes(topology, server),
        Redis::Standalone(_) => vec![
            json!({"name": "REDIS_HOST", "value": topology.host(Role::Redis)}),
            json!({"name": "REDIS_PORT", "value": names::REDIS_PORT.to_string()}),
            json!({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {
                "name": topology.object(Role::Redis), "key": "password",
            }}}),
        ],
        Redis::External(external) => external_redis(external),
    };
    if topology.secrets.certificate.is_some() {
        env.push(json!({"name": "REDIS_TLS_CA", "value": format!("{REDIS_TLS_PATH}/ca.crt")}));
    }
    env
}

/// Where a process finds its configuration and the certificates of Redis.
pub fn redis_mounts(topology: &Topology) -> Vec<Value> {
    let mut mounts = vec![json!({"name": "config", "mountPath": "/etc/hebb", "readOnly": true})];
    let external = matches!(&topology.redis, Redis::External(ExternalRedis { tls: Some(_), .. }));
    if external || topology.secrets.certificate.is_some() {
        mounts.push(json!({"name": "redis-tls", "mountPath": REDIS_TLS_PATH, "readOnly": true}));
    }
    mounts
}

/// The volumes of [`redis_mounts`].
pub fn redis_volumes(topology: &Topology) -> Vec<Value> {
    let mut volumes = vec![json!({"name": "config", "configMap": {"name": names::config_name(&topology.name)}})];
    if let Redis::External(ExternalRedis { tls: Some(tls), .. }) = &topology.redis {
        volumes.push(json!({"name": "redis-tls", "secret": {"secretName": tls.secret_name}}));
    }
    volumes.extend(tls::client_volume(topology, "redis-tls"));
    volumes
}

/// What tells a node where the Sentinels are.
fn sentinels(topology: &Topology, server: &Server, replicas: i32) -> Vec<Value> {
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let secret = |name: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": topology.object(Role::Redis), "key": "password"}}});
    let addresses: Vec<String> =
        topology.redis_hosts().iter().map(|host| format!("{host}:{}", names::SENTINEL_PORT)).collect();
    let mut env = vec![
        plain("REDIS_SENTINELS", addresses.join(",")),
        plain("REDIS_SENTINEL_MASTER", names::SENTINEL_MASTER.to_owned()),
        secret("REDIS_PASSWORD"),
        secret("REDIS_SENTINEL_PASSWORD"),
    ];
    if server.durability == Durability::Replicated {
        env.push(plain("REDIS_DURABILITY", format!("Replicated:{}", sentinel::quorum(replicas))));
    }
    env
}

/// What tells a node where the servers of a Redis Cluster are.
fn nodes(topology: &Topology, server: &Server) -> Vec<Value> {
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let addresses: Vec<String> =
        topology.redis_hosts().iter().map(|host| format!("{host}:{}", names::REDIS_PORT)).collect();
    let mut env = vec![
        plain("REDIS_CLUSTER", addresses.join(",")),
        json!({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {
            "name": topology.object(Role::Redis), "key": "password",
        }}}),
    ];
    if server.durability == Durability::Replicated {
        env.push(plain("REDIS_DURABILITY", format!("Replicated:{}", sharded::QUORUM)));
    }
    env
}

/// What tells a node where somebody else's Redis is.
fn external_redis(external: &ExternalRedis) -> Vec<Value> {
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let secret = |name: &str, reference: &SecretKeyRef| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}});
    let mut env = vec![plain("REDIS_HOST", external.host.clone()), plain("REDIS_PORT", external.port.to_string())];
    if !external.sentinels.is_empty() {
        env.push(plain("REDIS_SENTINELS", external.sentinels.join(",")));
        env.push(plain("REDIS_SENTINEL_MASTER", external.sentinel_master.clone()));
    }
    if external.cluster {
        env.push(plain("REDIS_CLUSTER", "true".to_owned()));
    }
    if external.wait_for_replicas > 0 {
        env.push(plain("REDIS_DURABILITY", format!("Replicated:{}", external.wait_for_replicas)));
    }
    env.extend(external.username.clone().map(|name| plain("REDIS_USERNAME", name)));
    env.extend(external.password_secret_ref.as_ref().map(|reference| secret("REDIS_PASSWORD", reference)));
    let sentinels = external.sentinel_password_secret_ref.as_ref();
    env.extend(sentinels.map(|reference| secret("REDIS_SENTINEL_PASSWORD", reference)));
    if let Some(tls) = &external.tls {
        env.push(plain("REDIS_TLS_CA", format!("{REDIS_TLS_PATH}/ca.crt")));
        if tls.client_certificate {
            env.push(plain("REDIS_TLS_CERT", format!("{REDIS_TLS_PATH}/tls.crt")));
            env.push(plain("REDIS_TLS_KEY", format!("{REDIS_TLS_PATH}/tls.key")));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn a_gateway_takes_the_threads_that_its_limit_is_for() {
        let limited = |cpu: &str| {
            let limits = [("cpu".to_owned(), Quantity(cpu.to_owned()))].into();
            threads(Some(&ResourceRequirements { limits: Some(limits), ..ResourceRequirements::default() }))
        };
        assert_eq!(threads(None), None);
        assert_eq!(limited("500m"), None);
        assert_eq!(limited("1"), None);
        assert_eq!(limited("1500m"), Some(2));
        assert_eq!(limited("4"), Some(4));
        assert_eq!(limited("100k"), Some(THREADS_MAX));
        assert_eq!(limited("many"), None);
    }
}
