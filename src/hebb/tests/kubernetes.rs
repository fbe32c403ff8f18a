//! `kubectl hebb` on a real API server (etcd and kube-apiserver, no pods): what it writes, what it says, what it keeps secret.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use hebb_api::{AlertPolicy, LearningCluster};
use hebb_chaos::plane::Plane;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const NAMESPACE: &str = "lab";
/// What must be in no support bundle.
const CANARY: &str = "canary-7f3a9c-do-not-leak";

/// The program, as kubectl runs it.
struct Hebb<'a>(&'a Path);

impl Hebb<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
        command.args(arguments).args(["--namespace", NAMESPACE]).env("KUBECONFIG", self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    /// What it prints.
    fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it refuses with.
    fn refuses(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        assert!(!output.status.success(), "{arguments:?} succeeds: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8(output.stderr)?)
    }
}

fn of<K: serde::de::DeserializeOwned>(object: Value) -> Result<K> {
    Ok(serde_json::from_value(object)?)
}

fn clusters(client: &Client) -> Api<LearningCluster> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn furnish(client: &Client) -> Result {
    let post = PostParams::default();
    let namespace = of::<Namespace>(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::all(client.clone()).create(&post, &namespace).await?;
    let backup = json!({"destination": {"persistentVolumeClaim": {"size": "1Gi"}}});
    for (name, spec) in [
        (
            "demo",
            json!({"redis": {"mode": "Sentinel"}, "backup": backup,
            "workers": {"podTemplate": {"annotations": {"note": format!("password={CANARY}")}}}}),
        ),
        ("plain", json!({})),
    ] {
        let cluster: LearningCluster = of(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": name}, "spec": spec,
        }))?;
        clusters(client).create(&post, &cluster).await?;
    }
    let policy: AlertPolicy = of(json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": "AlertPolicy", "metadata": {"name": "quality"},
        "spec": {
            "targetRef": {"name": "demo"},
            "rules": [{"name": "confused", "severity": "Critical",
                "expr": {"indicator": "accuracy", "operator": "LessThan", "threshold": 0.9}}],
            "routes": [{"receiver": "hook"}],
            "receivers": [{"name": "hook", "webhook": {"url": format!("https://hooks.example/{CANARY}")}}],
        },
    }))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&post, &policy).await?;
    let labels = json!({"hebb.dev/cluster": "demo"});
    let secret: Secret =
        of(json!({"metadata": {"name": "demo-redis", "labels": labels}, "stringData": {"password": CANARY}}))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&post, &secret).await?;
    let config: ConfigMap =
        of(json!({"metadata": {"name": "demo-config", "labels": labels}, "data": {"a": format!("x {CANARY} y")}}))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&post, &config).await?;
    let event: Event = of(json!({
        "metadata": {"name": "demo.1"}, "message": format!("could not log in with {CANARY}"), "reason": "Failed",
        "involvedObject": {"kind": "LearningCluster", "name": "demo", "namespace": NAMESPACE},
    }))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&post, &event).await?;
    let account: ServiceAccount = of(json!({"metadata": {"name": "default"}}))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&post, &account).await?;
    for (role, node) in [("worker", None), ("redis", Some("nowhere"))] {
        let pod: Pod = of(json!({
            "metadata": {"name": format!("demo-{role}-0"),
                "labels": {"hebb.dev/cluster": "demo", "app.kubernetes.io/component": role}},
            "spec": {"nodeName": node, "automountServiceAccountToken": false, "containers": [{"name": role, "image": "hebb:1",
                "env": [{"name": "API_TOKEN", "value": CANARY}]}]},
        }))?;
        Api::namespaced(client.clone(), NAMESPACE).create(&post, &pod).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_cluster_arrives_and_secrets_stay() -> Result {
    let plane = Plane::start().await?;
    let client = plane.client().await?;
    furnish(&client).await?;
    let hebb = Hebb(plane.kubeconfig());
    errors_help(&hebb)?;
    restarts_are_annotations(&hebb, &client).await?;
    a_failover_waits_for_the_operators_answer(&hebb, &client).await?;
    backups_and_restores_are_asked_for(&hebb, &client).await?;
    silences_are_added(&hebb, &client).await?;
    workers_are_drained(&hebb, &client).await?;
    a_bundle_holds_no_secret(&hebb)?;
    Ok(())
}

fn errors_help(hebb: &Hebb<'_>) -> Result {
    let said = hebb.refuses(&["status", "dmo"])?;
    assert!(said.contains("there is no LearningCluster dmo in namespace lab; it has demo, plain"), "{said}");
    let said = hebb.says(&["status", "demo"])?;
    assert!(said.contains("no operator has looked at it yet") && said.contains("demo-worker-0"), "{said}");
    let said: Value = serde_json::from_str(&hebb.says(&["status", "demo", "-o", "json"])?)?;
    assert_eq!((&said["name"], said["pods"].as_array().map(Vec::len)), (&json!("demo"), Some(2)));
    // One pod has no node yet, so it has said nothing; the node of the other can't be asked.
    assert_eq!(hebb.says(&["logs", "demo"])?, "");
    let said = hebb.refuses(&["logs", "demo", "--role", "redis"])?;
    assert!(said.contains("demo-redis-0/redis says nothing") && said.contains("no container has a log"), "{said}");
    let said = hebb.refuses(&["logs", "demo", "--role", "gateway"])?;
    assert!(said.contains("no pod is selected"), "{said}");
    let said = hebb.refuses(&["status", "demo", "--context", "elsewhere"])?;
    assert!(said.contains("there is no way to a cluster"), "{said}");
    Ok(())
}

async fn restarts_are_annotations(hebb: &Hebb<'_>, client: &Client) -> Result {
    let at = |cluster: &LearningCluster, role: &str| {
        let spec = serde_json::to_value(&cluster.spec).unwrap_or_default();
        spec[role]["podTemplate"]["annotations"]["kubectl.kubernetes.io/restartedAt"].as_str().map(str::to_owned)
    };
    hebb.says(&["restart", "demo"])?;
    let all = clusters(client).get("demo").await?;
    assert!(["gateway", "coordinator", "workers"].iter().all(|role| at(&all, role).is_some()));
    let said: Value = serde_json::from_str(&hebb.says(&["restart", "demo", "--role", "worker", "-o", "json"])?)?;
    assert_eq!(said["roles"], json!(["worker"]));
    let one = clusters(client).get("demo").await?;
    assert_ne!(at(&one, "workers"), at(&all, "workers"));
    assert_eq!(at(&one, "gateway"), at(&all, "gateway"));
    assert_eq!(one.spec.workers.pod_template.annotations.get("note").map(String::is_empty), Some(false), "kept");
    let said = hebb.refuses(&["restart", "demo", "--wait", "--timeout", "1s"])?;
    assert!(said.contains("every pod is new and ready: not within 1 s"), "{said}");
    let said = hebb.refuses(&["restart", "demo", "--role", "redis", "--role", "worker"])?;
    assert!(said.contains("one pod at a time"), "{said}");
    Ok(())
}

async fn a_failover_waits_for_the_operators_answer(hebb: &Hebb<'_>, client: &Client) -> Result {
    let said = hebb.refuses(&["failover", "plain"])?;
    assert!(said.contains("redis.mode Standalone has one server"), "{said}");
    for (granted, message) in [(true, "restarts demo-redis-1"), (false, "the budget of spec.healing doesn't allow it")]
    {
        let asking = hebb
            .command(&["failover", "demo"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        let before = clusters(client).get("demo").await?.status.and_then(|status| status.request);
        let value = loop {
            let cluster = clusters(client).get("demo").await?;
            let asked = cluster.metadata.annotations.unwrap_or_default().remove("hebb.dev/request");
            match asked {
                Some(value) if before.as_ref().is_none_or(|before| before.value != value) => break value,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        assert!(value.starts_with("failover "), "{value}");
        let answer = json!({"value": value, "granted": granted, "message": message, "at": "2030-01-01T00:00:00Z"});
        let patch = Patch::Merge(json!({"status": {"request": answer}}));
        clusters(client).patch_status("demo", &PatchParams::default(), &patch).await?;
        let output = tokio::task::spawn_blocking(|| asking.wait_with_output()).await??;
        assert_eq!(output.status.success(), granted);
        let said = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8(said)?.contains(message));
    }
    Ok(())
}

async fn backups_and_restores_are_asked_for(hebb: &Hebb<'_>, client: &Client) -> Result {
    let said = hebb.refuses(&["backup", "plain"])?;
    assert!(said.contains("plain has no spec.backup"), "{said}");
    let said: Value = serde_json::from_str(&hebb.says(&["backup", "demo", "-o", "json"])?)?;
    let cluster = clusters(client).get("demo").await?;
    let annotation = cluster.metadata.annotations.unwrap_or_default().remove("hebb.dev/backup");
    assert_eq!(said["request"].as_str(), annotation.as_deref());
    let said = hebb.refuses(&["restore", "copy", "--like", "plain"])?;
    assert!(said.contains("plain keeps no backups"), "{said}");
    hebb.says(&["restore", "copy", "--like", "demo"])?;
    let copy = clusters(client).get("copy").await?;
    let from = copy.spec.restore.map(|restore| restore.from.persistent_volume_claim.claim_name);
    assert_eq!(from.as_deref(), Some("demo-backup"));
    let said = hebb.refuses(&["restore", "copy", "--like", "demo"])?;
    assert!(said.contains("already exists"), "{said}");
    Ok(())
}

async fn silences_are_added(hebb: &Hebb<'_>, client: &Client) -> Result {
    let policies: Api<AlertPolicy> = Api::namespaced(client.clone(), NAMESPACE);
    hebb.says(&["silence", "quality", "--for", "1h", "--labels", "alertname=confused", "--comment", "disk"])?;
    hebb.says(&["silence", "quality", "--for", "2h", "--labels", "severity=Critical,cluster=demo"])?;
    let silences = policies.get("quality").await?.spec.silences;
    assert_eq!(silences.iter().map(|silence| silence.matchers.len()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(silences[0].comment.as_deref(), Some("disk"));
    let said = hebb.refuses(&["silence", "qality", "--for", "1h", "--labels", "a=b"])?;
    assert!(said.contains("there is no AlertPolicy qality in namespace lab; it has quality"), "{said}");
    Ok(())
}

async fn workers_are_drained(hebb: &Hebb<'_>, client: &Client) -> Result {
    let said = hebb.refuses(&["drain", "demo-redis-0"])?;
    assert!(said.contains("no worker of a LearningCluster"), "{said}");
    hebb.says(&["drain", "demo-worker-0"])?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let left = pods.get_opt("demo-worker-0").await?;
    assert!(left.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    Ok(())
}

fn a_bundle_holds_no_secret(hebb: &Hebb<'_>) -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bundle.tar.gz");
    hebb.says(&["support-bundle", "demo", "-o", &path.display().to_string()])?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&path)?));
    let mut files = Vec::new();
    let base64 = serde_json::to_value(k8s_openapi::ByteString(CANARY.into()))?;
    let base64 = base64.as_str().unwrap_or_default().trim_end_matches('=').to_owned();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        let name = entry.path()?.display().to_string();
        assert!(!text.contains(CANARY) && !text.contains(&base64), "{name} leaks: {text}");
        files.push((name, text));
    }
    let text = |wanted: &str| {
        let found = files.iter().find(|(name, _)| name.ends_with(wanted));
        found.map(|(_, text)| text.as_str()).unwrap_or_default()
    };
    assert!(text("/learningcluster.yaml").contains("name: demo"));
    assert!(text("/alertpolicies.yaml").contains("https://hooks.example/<redacted>"));
    assert!(text("/events.yaml").contains("could not log in with <redacted>"));
    assert!(text("/configmaps.yaml").contains("x <redacted> y"));
    assert!(text("/secrets.yaml").contains("password: <redacted>"));
    assert!(text("/pods.yaml").contains("demo-redis-0"));
    assert!(text("/about.json").contains("no log of demo-redis-0/redis"), "what is missing is said");
    Ok(())
}
