//! The definitions on a real API server (etcd and kube-apiserver): taken with their rules, and refusing what is wrong by name.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A control plane of its own, ended with the test.
struct ControlPlane {
    script: PathBuf,
    folder: tempfile::TempDir,
    kubeconfig: String,
    kubectl: PathBuf,
}

impl ControlPlane {
    fn start() -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str, arguments: &[&str]| {
            let output = Command::new(scripts.join(script)).args(arguments).output().unwrap();
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let bin = run("binaries.sh", &["api"]);
        let kubeconfig = run("control-plane.sh", &["up", &folder.path().to_string_lossy()]);
        let kubectl = Path::new(bin.lines().last().unwrap()).join("kubectl");
        Self { script: scripts.join("control-plane.sh"), folder, kubeconfig, kubectl }
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.kubectl)
            .args(["--kubeconfig", &self.kubeconfig])
            .args(arguments)
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn create(&self, yaml: &str) -> Result<String, String> {
        let file = self.folder.path().join("object.yaml");
        std::fs::write(&file, yaml).unwrap();
        self.kubectl(&["apply", "-f", &file.to_string_lossy()])
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let folder = self.folder.path().to_string_lossy().into_owned();
        // Nothing is left to tell when even the end fails.
        let _ = Command::new(&self.script).args(["down", &folder]).status();
    }
}

fn cluster(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: hebb.dev/v1alpha1\nkind: LearningCluster\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: hebb.dev/v1alpha1\nkind: AlertPolicy\nmetadata: {{name: p, namespace: default}}\nspec: {spec}\n"
    )
}

#[test]
fn the_api_server_takes_the_definitions_and_refuses_what_is_wrong_by_name() {
    let api = ControlPlane::start();
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    // Taking them shows that the cost of every rule is within the API server's budget.
    api.kubectl(&["apply", "-f", &crds.to_string_lossy()]).unwrap();
    for crd in ["learningclusters.hebb.dev", "alertpolicies.hebb.dev"] {
        api.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{crd}")]).unwrap();
    }

    api.create(&cluster("good", "{domains: [{name: a, task: Classification}], redis: {storage: {size: 1Gi}}}"))
        .unwrap();
    let stored = api.kubectl(&["get", "lc", "good", "-o", "jsonpath={.spec.workers.replicas} {.spec.coordinator.replicas} {.spec.gateway.replicas} {.spec.engine.checkpointInterval} {.spec.engine.maxQueueSize} {.spec.redis.durability} {.spec.domains[0].partitions}"]);
    assert_eq!(stored.unwrap(), "2 3 2 5s 1000 EverySecond 1", "the defaults stand in the stored object");
    let scaled = api.kubectl(&["scale", "lc", "good", "--replicas=4"]);
    assert!(scaled.is_ok(), "{scaled:?}");

    for (spec, named) in [
        ("{workers: {replicas: -1}}", "spec.workers.replicas"),
        ("{workers: {replicas: 1000}}", "spec.workers.replicas"),
        ("{workers: {drainTimeout: soon}}", "spec.workers.drainTimeout"),
        ("{coordinator: {replicas: 0}}", "spec.coordinator.replicas"),
        ("{engine: {learningRate: 1.5}}", "spec.engine.learningRate"),
        ("{engine: {gateMode: Never}}", "spec.engine.gateMode"),
        ("{engine: {maxQueueSize: 0}}", "spec.engine.maxQueueSize"),
        ("{engine: {syncInterval: 400ms}}", "spec.engine.syncInterval"),
        ("{engine: {memory: {maxVectors: 1}}}", "spec.engine.memory.maxVectors"),
        ("{domains: [{name: Upper, task: Classification}]}", "spec.domains[0].name"),
        ("{domains: [{name: a}]}", "spec.domains[0].task"),
        ("{domains: [{name: a, task: Guess}]}", "spec.domains[0].task"),
        ("{domains: [{name: a, task: Patterns}, {name: a, task: Patterns}]}", "spec.domains[1]"),
        ("{domains: [{name: a, task: Patterns, partitions: 65}]}", "spec.domains[0].partitions"),
        ("{redis: {mode: External}}", "spec.redis.external"),
        ("{redis: {external: {host: x}}}", "spec.redis.external"),
        ("{redis: {mode: External, external: {host: x}, storage: {size: 1Gi}}}", "spec.redis.storage"),
        ("{redis: {storage: {size: much}}}", "spec.redis.storage.size"),
        ("{redis: {maxMemoryPercentOfLimit: 100}}", "spec.redis.maxMemoryPercentOfLimit"),
        ("{redis: {replicas: 3}}", "spec.redis.replicas: is for the modes Sentinel and Cluster only"),
        ("{redis: {mode: Sentinel, replicas: 4}}", "spec.redis.replicas: must be odd"),
        ("{redis: {mode: Sentinel, replicas: 1}}", "spec.redis.replicas"),
        ("{backup: {destination: {persistentVolumeClaim: {}}}}", "persistentVolumeClaim: needs claimName, or size"),
        ("{backup: {destination: {persistentVolumeClaim: {size: 1Gi, claimName: a}}}}", "needs claimName, or size"),
        ("{backup: {schedule: '@hourly', destination: {persistentVolumeClaim: {size: 1Gi}}}}", "spec.backup.schedule"),
        ("{backup: {retention: 0, destination: {persistentVolumeClaim: {size: 1Gi}}}}", "spec.backup.retention"),
        ("{restore: {backup: ../a.hebb, from: {persistentVolumeClaim: {claimName: a}}}}", "spec.restore.backup"),
        ("{redis: {mode: Sentinel, replicas: 11}}", "spec.redis.replicas: must be odd"),
        ("{redis: {mode: Cluster, replicas: 4}}", "spec.redis.replicas: must be even"),
        ("{redis: {mode: Cluster, replicas: 7}}", "spec.redis.replicas: must be even"),
        ("{redis: {mode: Cluster, replicas: 20}}", "spec.redis.replicas"),
        (
            "{redis: {durability: Replicated}}",
            "spec.redis.durability: Replicated is for the modes Sentinel and Cluster",
        ),
        (
            "{redis: {tls: {secretRef: {name: a}, issuerRef: {name: b}}}}",
            "spec.redis.tls: takes secretRef or issuerRef",
        ),
        ("{redis: {mode: External, external: {host: x}, tls: {}}}", "spec.redis.tls: is for a Redis that Hebb runs"),
        ("{redis: {tls: {secretRef: {}}}}", "spec.redis.tls.secretRef.name"),
        ("{gateway: {service: {type: Magic}}}", "spec.gateway.service.type"),
        ("{workerz: {}}", "workerz"),
    ] {
        let refused = api.create(&cluster("bad", spec)).expect_err(spec);
        assert!(refused.contains(named), "{spec}: {refused}");
    }
    let refused = api.create(&cluster(&"n".repeat(41), "{}")).expect_err("a long name");
    assert!(refused.contains("metadata.name"), "{refused}");

    for (spec, named) in [
        ("{domains: [{name: a, task: Regression}]}", "spec.domains: task and partitions"),
        ("{domains: [{name: a, task: Classification, partitions: 2}]}", "spec.domains: task and partitions"),
        ("{redis: {storage: {size: 2Gi}}}", "spec.redis.storage.size: can't change"),
        ("{redis: {storage: {size: 1Gi}, tls: {}}}", "spec.redis.tls: can't be added, removed or changed"),
        ("{redis: {mode: External, external: {host: x}}}", "spec.redis.mode: can't change"),
        ("{restore: {from: {persistentVolumeClaim: {claimName: a}}}}", "spec.restore: is for a new LearningCluster"),
    ] {
        let refused = api.create(&cluster("good", spec)).expect_err(spec);
        assert!(refused.contains(named), "{spec}: {refused}");
    }
    // The number of pods that isn't named is three.
    api.create(&cluster("group", "{redis: {mode: Sentinel, durability: Replicated}}")).unwrap();
    api.create(&cluster("group", "{redis: {mode: Sentinel, durability: Replicated, replicas: 3}}")).unwrap();
    let refused = api.create(&cluster("group", "{redis: {mode: Sentinel, durability: Replicated, replicas: 5}}"));
    assert!(refused.unwrap_err().contains("spec.redis.replicas: can't change"));

    // Where a certificate comes from stands, with the defaults of a reference.
    api.create(&cluster("sealed", "{redis: {tls: {issuerRef: {name: a}}}}")).unwrap();
    let stored = api.kubectl(&["get", "lc", "sealed", "-o", "jsonpath={.spec.redis.tls}"]).unwrap();
    assert_eq!(stored, r#"{"issuerRef":{"group":"cert-manager.io","kind":"Issuer","name":"a"}}"#);
    for tls in ["{}", "{issuerRef: {name: b}}", "{secretRef: {name: a}}", "null"] {
        let refused = api.create(&cluster("sealed", &format!("{{redis: {{tls: {tls}}}}}"))).expect_err(tls);
        assert!(refused.contains("spec.redis.tls: can't be added, removed or changed"), "{tls}: {refused}");
    }

    // A cluster that was restored may forget by what, and what it was restored from can't change.
    api.create(&cluster("again", "{restore: {from: {persistentVolumeClaim: {claimName: a}}}}")).unwrap();
    let refused = api.create(&cluster("again", "{restore: {from: {persistentVolumeClaim: {claimName: b}}}}"));
    assert!(refused.unwrap_err().contains("it can be removed, not added or changed"));
    api.create(&cluster("again", "{}")).unwrap();

    // Of a Redis Cluster it is six.
    api.create(&cluster("shards", "{redis: {mode: Cluster, durability: Replicated}}")).unwrap();
    api.create(&cluster("shards", "{redis: {mode: Cluster, durability: Replicated, replicas: 6}}")).unwrap();
    let refused = api.create(&cluster("shards", "{redis: {mode: Cluster, durability: Replicated, replicas: 8}}"));
    assert!(refused.unwrap_err().contains("spec.redis.replicas: can't change"));

    let rule = "rules: [{name: r, expr: {indicator: queue_size, operator: GreaterThan, threshold: 1}}]";
    api.create(&policy(&format!("{{targetRef: {{name: good}}, {rule}}}"))).unwrap();
    let stored = api.kubectl(&["get", "ap", "p", "-o", "jsonpath={.spec.mode} {.spec.interval} {.spec.rules[0].onNoData} {.spec.rules[0].for} {.spec.rules[0].expr.window} {.spec.dedupInterval} {.spec.muteDuring[1]}"]);
    assert_eq!(stored.unwrap(), "Enforce 15s KeepLast 0s 1m 1h Suspend");
    let more = |more: &str| format!("{{targetRef: {{name: x}}, {rule}, {more}}}");
    let receiver = |member: &str| more(&format!("receivers: [{{name: r, {member}}}]"));
    let action = |fields: &str| more(&format!("actions: [{{name: a, {fields}}}]"));
    for (spec, named) in [
        (format!("{{{rule}}}"), "exactly one of targetRef and targetSelector"),
        ("{targetRef: {name: x}, rules: []}".to_owned(), "spec.rules"),
        (
            "{targetRef: {name: x}, rules: [{name: r}]}".to_owned(),
            "exactly one of expr, all, anomaly, trend and absence",
        ),
        (receiver("log: {}, event: {}"), "exactly one of slack, discord, email"),
        (more("receivers: [{name: r}]"), "exactly one of slack, discord, email"),
        (receiver("webhook: {}"), "exactly one of url and urlSecretRef"),
        (receiver("email: {host: h, from: a@b, to: []}"), "spec.receivers[0].email.to"),
        (
            receiver(
                "email: {host: h, from: a@b, to: [a@b], security: None, usernameSecretRef: {name: a, key: b}, passwordSecretRef: {name: a, key: b}}",
            ),
            "a password isn't sent without TLS",
        ),
        (receiver("file: {name: ../etc/passwd}"), "spec.receivers[0].file.name"),
        (more("routes: [{receiver: r, matchers: [{name: a, matchType: '~'}]}]"), "matchType"),
        (more("routes: [{receiver: r, escalateTo: [a]}]"), "escalateAfter and escalateTo need each other"),
        (more("timeIntervals: [{name: n, times: [{start: '9:00', end: '24:01'}]}]"), "spec.timeIntervals[0].times[0]"),
        (
            more(
                "silences: [{matchers: [{name: a}], startsAt: '2030-01-02T00:00:00Z', endsAt: '2030-01-01T00:00:00Z'}]",
            ),
            "a silence begins before it ends",
        ),
        (action("type: Scale, component: Worker"), "replicas belongs to Scale"),
        (action("type: RestartComponent"), "component belongs to RestartComponent"),
        (action("type: Webhook"), "webhook belongs to the type Webhook"),
        (action("type: Suspend, maxAffected: 101%"), "maxAffected"),
        (action("type: Suspend, maxRetries: 0"), "maxRetries"),
    ] {
        let refused = api.create(&policy(&spec)).expect_err(&spec);
        assert!(refused.contains(named), "{spec}: {refused}");
    }
    let policies = ["alertpolicy.yaml", "alertpolicy-defaults.yaml"];
    let clusters = ["learningcluster.yaml", "backup/back-up.yaml", "backup/restore.yaml"];
    for file in policies.into_iter().chain(clusters) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
        api.kubectl(&["apply", "-n", "default", "-f", &file.to_string_lossy()]).unwrap();
    }

    let explained = api.kubectl(&["explain", "lc.spec.engine.checkpointInterval"]).unwrap();
    assert!(explained.contains("Default: 5s"), "{explained}");
}
