//! What all pods share: restricted security, probes, placement, and the overrides of the user.

use std::collections::BTreeMap;

use hebb_api::PodTemplate;
use hebb_api::names::{self, Role};
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Map, Value, json};

use super::{Topology, digest};

/// The user and group of the engine's pods; the image has no others.
const USER: i64 = 65_532;

/// What distinguishes a role's pods.
pub struct Container<'a> {
    pub role: Role,
    pub image: &'a str,
    pub body: Value,
    /// Of what only a restart takes up, and isn't in the template.
    pub config_digest: &'a str,
    pub volumes: Value,
    pub grace_seconds: i64,
    pub default_resources: Value,
    pub resources: Option<&'a ResourceRequirements>,
    /// What runs before it.
    pub init: Vec<Value>,
    /// What runs beside it.
    pub sidecars: Vec<Value>,
}

/// A container with nothing but what it needs.
pub fn restricted(name: &str, image: &str, resources: Value, body: Value) -> Value {
    let mut container = json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    });
    extend(&mut container, body);
    container
}

/// A pod template: labels, security, placement, the container's own fields, and what the user overrides.
pub fn template(topology: &Topology, template: &PodTemplate, container: Container<'_>) -> Value {
    let Container {
        role,
        image,
        body,
        config_digest,
        volumes,
        grace_seconds,
        default_resources,
        resources,
        init,
        sidecars,
    } = container;
    let mut labels: BTreeMap<String, String> = template.labels.clone();
    labels.extend(names::role_labels(&topology.name, role));
    let mut annotations = template.annotations.clone();
    annotations.insert(names::CONFIG_ANNOTATION.to_owned(), config_digest.to_owned());
    let resources = resources.or(template.resources.as_ref());
    let resources = resources.map_or(default_resources, |resources| json!(resources));
    let mut containers = vec![restricted(role.as_str(), image, resources, body)];
    containers.extend(sidecars);
    let mut spec = json!({
        "serviceAccountName": topology.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": security_context(),
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names::role_selector(&topology.name, role)},
        }],
        "containers": containers,
        "volumes": volumes,
    });
    if !init.is_empty() {
        extend(&mut spec, json!({"initContainers": init}));
    }
    extend(&mut spec, placement(template));
    let mut template = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec});
    let digest = digest(&[&template.to_string()]);
    template["metadata"]["annotations"][names::TEMPLATE_ANNOTATION] = json!(digest);
    template
}

/// What the restricted Pod Security standard asks of a pod.
pub fn security_context() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Where pods may run, and how their image is had: the user's part.
pub fn placement(template: &PodTemplate) -> Value {
    let mut overrides = Map::new();
    if !template.node_selector.is_empty() {
        overrides.insert("nodeSelector".to_owned(), json!(template.node_selector));
    }
    if !template.tolerations.is_empty() {
        overrides.insert("tolerations".to_owned(), json!(template.tolerations));
    }
    if let Some(affinity) = &template.affinity {
        overrides.insert("affinity".to_owned(), json!(affinity));
    }
    if let Some(class) = &template.priority_class_name {
        overrides.insert("priorityClassName".to_owned(), json!(class));
    }
    if !template.image_pull_secrets.is_empty() {
        let secrets: Vec<Value> = template.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
        overrides.insert("imagePullSecrets".to_owned(), json!(secrets));
    }
    Value::Object(overrides)
}

fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// The probes of an engine pod.
pub fn http_probes(port: i32) -> Value {
    let get = |path: &str| json!({"path": path, "port": port, "scheme": "HTTP"});
    json!({
        "startupProbe": {"httpGet": get("/health/liveness"), "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 2},
        "readinessProbe": {"httpGet": get("/health/readiness"), "periodSeconds": 2, "failureThreshold": 2, "timeoutSeconds": 2},
        "livenessProbe": {"httpGet": get("/health/liveness"), "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 3},
    })
}
