//! Redis `Standalone`: one server with an append-only file on a volume.

use hebb_api::names::{self, Role};
use hebb_api::{DeletionPolicy, Durability, PodTemplate};
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use super::pods::{Container, template};
use super::{Kind, Server, Topology, base64, tls};

/// The limit where the user names none, and what it is in bytes.
const DEFAULT_LIMIT: (&str, u64) = ("512Mi", 512 << 20);

/// Secret, Service and StatefulSet.
pub fn render(topology: &Topology, server: &Server) -> Vec<(Kind, Value)> {
    let Server { image, durability, resources, .. } = server;
    let password = topology.secrets.redis_password.as_deref().unwrap_or_default();
    let mut conf = vec![format!("requirepass {password}")];
    if topology.secrets.certificate.is_some() {
        conf.extend(tls::listening(topology, names::REDIS_PORT));
    }
    let secret = json!({"data": {
        "password": base64(password),
        // In a file, because arguments can be read by everyone who can see processes.
        "redis.conf": base64(&(conf.join("\n") + "\n")),
    }});
    let selector = names::role_selector(&topology.name, Role::Redis);
    let service = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": [{"name": "redis", "port": names::REDIS_PORT, "targetPort": names::REDIS_PORT, "protocol": "TCP"}],
    }});
    let max_memory = max_memory(server);
    let sync = sync(*durability);
    let probe = |trusting: bool, period: i32, failures: i32| {
        let mut probe = tls::cli_ping(topology, trusting);
        probe["periodSeconds"] = json!(period);
        probe["failureThreshold"] = json!(failures);
        probe["timeoutSeconds"] = json!(3);
        probe
    };
    let mut mounts = vec![
        json!({"name": "data", "mountPath": "/data"}),
        json!({"name": "config", "mountPath": "/etc/redis", "readOnly": true}),
    ];
    mounts.extend(tls::mount(topology));
    let body = json!({
        "command": ["redis-server"],
        "args": [
            "/etc/redis/redis.conf", "--dir", "/data", "--appendonly", "yes", "--appendfsync", sync, "--save", "",
            "--maxmemory", max_memory.to_string(), "--maxmemory-policy", "noeviction",
        ],
        "env": [{"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": {
            "name": topology.object(Role::Redis), "key": "password",
        }}}],
        "ports": [{"name": "redis", "containerPort": names::REDIS_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts,
        "startupProbe": probe(true, 1, 120),
        "readinessProbe": probe(false, 2, 2),
        "livenessProbe": probe(true, 10, 6),
    });
    let mut volumes = vec![json!({"name": "config", "secret": {
        "secretName": topology.object(Role::Redis),
        "items": [{"key": "redis.conf", "path": "redis.conf"}],
    }})];
    volumes.extend(tls::volume(topology));
    let mut spec = json!({
        "replicas": topology.desired(Role::Redis),
        "serviceName": topology.object(Role::Redis),
        "selector": {"matchLabels": selector},
    });
    spec["updateStrategy"] = super::update_strategy(topology);
    keep_data(topology, server, &mut volumes, &mut spec);
    let container = Container {
        role: Role::Redis,
        image,
        body,
        // A changed hyperparameter is nothing to Redis.
        config_digest: &topology.redis_digest,
        volumes: Value::Array(volumes),
        grace_seconds: 30,
        default_resources: default_resources(),
        resources: resources.as_ref(),
        init: Vec::new(),
        sidecars: Vec::new(),
    };
    spec["template"] = template(topology, &PodTemplate::default(), container);
    vec![(Kind::Secret, secret), (Kind::Service, service), (Kind::StatefulSet, json!({"spec": spec}))]
}

/// Requests and limit of a server where the user names none.
pub fn default_resources() -> Value {
    json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": DEFAULT_LIMIT.0}})
}

/// Bytes that a server's data may take.
pub fn max_memory(server: &Server) -> u64 {
    let limit = memory_limit(server.resources.as_ref()).unwrap_or(DEFAULT_LIMIT.1);
    limit / 100 * u64::try_from(server.max_memory_percent).unwrap_or(70)
}

/// When a server brings its file to the disk.
pub fn sync(durability: Durability) -> &'static str {
    match durability {
        Durability::Async => "no",
        Durability::EverySecond | Durability::Replicated => "everysec",
        Durability::Always => "always",
    }
}

/// Gives the pods a volume each, of the size that the spec names, or one that lives as long as the pod.
pub fn keep_data(topology: &Topology, server: &Server, volumes: &mut Vec<Value>, spec: &mut Value) {
    let Some(size) = &server.size else {
        volumes.insert(0, json!({"name": "data", "emptyDir": {}}));
        return;
    };
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    });
    if let Some(class) = &server.storage_class {
        claim["storageClassName"] = json!(class);
    }
    let labels = names::role_labels(&topology.name, Role::Redis);
    spec["volumeClaimTemplates"] = json!([{
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": labels}, "spec": claim,
    }]);
    spec["persistentVolumeClaimRetentionPolicy"] = json!({
        "whenDeleted": match server.deletion_policy {
            DeletionPolicy::Retain => "Retain",
            DeletionPolicy::Delete => "Delete",
        },
        "whenScaled": "Retain",
    });
}

fn memory_limit(resources: Option<&ResourceRequirements>) -> Option<u64> {
    let limit = resources?.limits.as_ref()?.get("memory")?;
    crate::learning_cluster::quantity::parse(&limit.0).map(|bytes| bytes as u64)
}
