//! The admission webhook as the chart registers it, asked by a real API server: what it refuses, what it warns of, and whom it
//! never hinders. It is served by an operator that doesn't lead.

use std::path::Path;
use std::time::Duration;

use hebb_api::AlertPolicy;
use hebb_operator::Webhook;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::certificates::issued;
use crate::scenario::{Scenario, free_address, policy, within};
use crate::{PATIENT, plane};

const TOKEN: &str = "0123456789abcdefghij";
const DENIED: &str = "admission webhook \"validate.hebb.dev\" denied the request: ";
/// Requests of a test that the webhook gets no time for would say nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A text as Kubernetes' objects hold bytes.
fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

/// The chart's registration of the webhook for a namespace, at an address of this machine.
async fn registration(namespace: &str, url: &str, authority: &str) -> ValidatingWebhookConfiguration {
    let helm = plane::binaries("helm").join("helm");
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/hebb");
    let values = format!("webhook.enabled=true,webhook.token={TOKEN},watchNamespace={namespace}");
    let output = Command::new(helm)
        .args(["template", "hebb", "--namespace", namespace, "--show-only", "templates/webhook.yaml", "--set", &values])
        .arg(chart)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|part| Value::deserialize(part).unwrap());
    let mut found = documents.into_iter().find(|it| it["kind"] == "ValidatingWebhookConfiguration").unwrap();
    let client = &mut found["webhooks"][0]["clientConfig"];
    assert_eq!(client["service"]["path"], format!("/validate/{TOKEN}"));
    *client = json!({"url": url, "caBundle": base64(authority)});
    serde_json::from_value(found).unwrap()
}

fn write(folder: &Path, certificate: &Value) {
    for file in ["tls.crt", "tls.key"] {
        std::fs::write(folder.join(file), certificate[file].as_str().unwrap()).unwrap();
    }
}

/// What `kubectl apply` says of an object: whether it was taken, and the text.
async fn applied(scenario: &Scenario, kind: &str, name: &str, spec: &Value) -> (bool, String) {
    let object = json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    kubectl(scenario, &["apply", "-f", &file.path().to_string_lossy()]).await
}

async fn kubectl(scenario: &Scenario, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(plane::binaries("api").join("kubectl"))
        .arg("--kubeconfig")
        .arg(plane::kubeconfig())
        .args(["--namespace", scenario.namespace()])
        .args(arguments)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn routed(receiver: &str) -> Value {
    json!({
        "targetRef": {"name": "demo"},
        "rules": [{"name": "r", "expr": {"indicator": "queue_size", "operator": "GreaterThan", "threshold": 1}}],
        "receivers": [{"name": "chat", "slack": {"urlSecretRef": {"name": "hook", "key": "url"}}}],
        "routes": [{"receiver": receiver}],
    })
}

/// Waits until the API server asks the webhook: it learns of a registration in its own time. Nothing is stored.
async fn is_asked(scenario: &Scenario, what: &str) {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    within(what, PATIENT, async || {
        let refused = scenario.api::<AlertPolicy>().create(&dry, &policy("probe", routed("nobody"))).await.err()?;
        refused.to_string().contains(DENIED).then_some(())
    })
    .await;
}

pub async fn the_webhook_refuses_warns_and_hinders_nobody(client: Client) {
    let scenario = Scenario::new(client, "admission").await;
    let leader = scenario.operator("a", "hebb:1").await;
    leader.leads(PATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let first = issued("127.0.0.1");
    write(folder.path(), &first);
    let address = free_address().await;
    let webhook = Webhook { listen: address, certificates: folder.path().to_owned(), token: Some(TOKEN.to_owned()) };
    let other = scenario.operator_with("b", "hebb:1", Some(webhook)).await;

    // One that was stored before anybody looked.
    scenario.create(&policy("old", routed("nobody"))).await;
    let url = format!("https://{address}/validate/{TOKEN}");
    let registered = registration(scenario.namespace(), &url, first["ca.crt"].as_str().unwrap()).await;
    let registrations: Api<ValidatingWebhookConfiguration> = Api::all(scenario.client().clone());
    registrations.create(&PostParams::default(), &registered).await.unwrap();
    is_asked(&scenario, "the API server asks the webhook").await;
    assert!(!other.is_leading().await, "whoever answers needs no lease");

    what_is_submitted_is_refused_or_warned_of(&scenario).await;
    what_was_bad_before_can_be_changed_and_deleted(&scenario).await;
    requests_that_are_no_review_are_told_so(&first, &address.to_string()).await;

    // Another authority: whoever still showed the former certificate wouldn't be trusted.
    let second = issued("127.0.0.1");
    write(folder.path(), &second);
    let trusted = json!({"webhooks": [{
        "name": "validate.hebb.dev", "clientConfig": {"caBundle": base64(second["ca.crt"].as_str().unwrap())},
    }]});
    let name = registered.name_any();
    registrations.patch(&name, &PatchParams::default(), &Patch::Strategic(&trusted)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_asked(&scenario, "a new certificate is shown without a restart").await;

    let refused = other.sum("hebb_admission_reviews_total{kind=\"AlertPolicy\",outcome=\"refused\"}").await;
    let warned = other.sum("hebb_admission_reviews_total{kind=\"LearningCluster\",outcome=\"warned\"}").await;
    assert!(refused >= 2.0 && warned >= 1.0, "{refused} refused, {warned} warned");

    other.stop().await.unwrap();
    let (taken, said) = applied(&scenario, "AlertPolicy", "nobody-looks", &routed("nobody")).await;
    assert!(taken, "an operator that is away blocks somebody: {said}");
    registrations.delete(&name, &DeleteParams::default()).await.unwrap();
    leader.stop().await.unwrap();
}

async fn what_is_submitted_is_refused_or_warned_of(scenario: &Scenario) {
    let (taken, said) = applied(scenario, "AlertPolicy", "bad", &routed("nobody")).await;
    assert!(
        !taken && said.contains(DENIED) && said.contains("spec.routes[0].receiver: there is no receiver"),
        "{said}"
    );
    let schedule = json!({"backup": {
        "schedule": "61 * * * *", "destination": {"persistentVolumeClaim": {"size": "1Gi"}},
    }});
    let (taken, said) = applied(scenario, "LearningCluster", "bad", &schedule).await;
    assert!(!taken && said.contains("spec.backup.schedule: \"61\" is no minute"), "{said}");

    let (taken, said) = applied(scenario, "AlertPolicy", "good", &routed("chat")).await;
    assert!(taken, "{said}");
    for warning in [
        "Warning: spec.targetRef: there is no LearningCluster demo yet",
        "Warning: spec.receivers[0]: there is no Secret hook yet",
    ] {
        assert!(said.contains(warning), "{said}");
    }

    let somebodys = json!({"metadata": {"name": "demo-gateway"}, "spec": {"ports": [{"port": 1}]}});
    let somebodys: Service = serde_json::from_value(somebodys).unwrap();
    scenario.create(&somebodys).await;
    let keyed = json!({"gateway": {"auth": {"secretRef": {"name": "keys"}}}});
    let (taken, said) = applied(scenario, "LearningCluster", "demo", &keyed).await;
    assert!(taken, "{said}");
    for warning in [
        "Warning: spec.gateway.auth.secretRef: there is no Secret keys yet",
        "Warning: metadata.name: demo: Service demo-gateway is there already and nobody's",
    ] {
        assert!(said.contains(warning), "{said}");
    }

    // What was missing is there: the same objects, changed, are nothing to warn of.
    let secret = |name: &str, key: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {key: "x"}})).unwrap()
    };
    scenario.create(&secret("keys", "client")).await;
    scenario.create(&secret("hook", "url")).await;
    let more = json!({"gateway": {"auth": {"secretRef": {"name": "keys"}}, "replicas": 3}});
    let mut slower = routed("chat");
    slower["interval"] = json!("20s");
    for (kind, name, spec) in [("LearningCluster", "demo", more), ("AlertPolicy", "good", slower)] {
        let (taken, said) = applied(scenario, kind, name, &spec).await;
        assert!(taken && !said.contains("Warning"), "{said}");
    }
}

async fn what_was_bad_before_can_be_changed_and_deleted(scenario: &Scenario) {
    for arguments in [["annotate", "ap/old", "a=b"], ["label", "ap/old", "a=b"]] {
        let (taken, said) = kubectl(scenario, &arguments).await;
        assert!(taken && !said.contains("Warning"), "{said}");
    }
    let change = async |fields: Value| {
        kubectl(scenario, &["patch", "ap", "old", "--type=merge", "-p", &fields.to_string()]).await
    };
    let (taken, said) = change(json!({"spec": {"interval": "20s"}})).await;
    assert!(taken && said.contains("there is no receiver \"nobody\" (as before)"), "{said}");
    let (taken, said) = change(json!({"spec": {"timeIntervals": [{"name": "n", "location": "Nowhere"}]}})).await;
    assert!(!taken && said.contains("spec.timeIntervals[0].location"), "{said}");
    let (taken, said) = kubectl(scenario, &["delete", "ap", "old", "--timeout=20s"]).await;
    assert!(taken, "{said}");
}

async fn requests_that_are_no_review_are_told_so(certificate: &Value, address: &str) {
    let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
    let authority = certificate["ca.crt"].as_str().unwrap();
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(authority.as_bytes()).unwrap().to_vec()]);
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let path = format!("/validate/{TOKEN}");
    for (path, body, code, named) in [
        (path.as_str(), "{".to_owned(), 400, "the body is no AdmissionReview"),
        (path.as_str(), "{}".to_owned(), 400, "is known here"),
        ("/validate", "{}".to_owned(), 404, "no such page"),
        ("/validate/0123456789abcdefghik", "{}".to_owned(), 404, "no such page"),
    ] {
        let request = http::Request::post(path).body(body.into_bytes()).unwrap();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.request_text(request)).await.unwrap();
        let kube::Error::Api(status) = answer.unwrap_err() else { panic!("{path}: no answer of the webhook") };
        assert!(status.code == code && status.message.contains(named), "{path}: {status:?}");
    }
}
