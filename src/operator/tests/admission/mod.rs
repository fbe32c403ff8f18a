//! The admission webhook as the chart registers it, asked by a real API server: what it refuses, what it warns of, and whom it
//! never hinders. It is served by an operator that doesn't lead.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hebb_api::AlertPolicy;
use hebb_operator::Webhook;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::certificates::issued;
use crate::scenario::{Scenario, free_address, policy, within};
use crate::{PATIENT, plane};

const DENIED: &str = "admission webhook \"validate.hebb.dev\" denied the request: ";
/// Requests of a test that the webhook gets no time for would say nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A text as Kubernetes' objects hold bytes.
fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

/// Has Helm install the chart in the scenario's namespace, or upgrade what it installed there. Nothing here runs its pods.
async fn helm(scenario: &Scenario) {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/hebb");
    // The definitions are there, and those of all scenarios.
    let values = format!("webhook.enabled=true,crds.install=false,watchNamespace={}", scenario.namespace());
    let output = Command::new(plane::binaries("helm").join("helm"))
        .args(["upgrade", "--install", "hebb", "--namespace", scenario.namespace(), "--set", &values])
        .arg("--kubeconfig")
        .arg(plane::kubeconfig())
        .arg(chart)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The chart's registration of the webhook.
fn registrations(scenario: &Scenario) -> (Api<ValidatingWebhookConfiguration>, String) {
    (Api::all(scenario.client().clone()), format!("hebb-operator-webhook.{}", scenario.namespace()))
}

/// What the chart keeps in its Secrets: the authority, the certificate and the token.
async fn kept(scenario: &Scenario) -> [Option<ByteString>; 3] {
    let secrets = scenario.api::<Secret>();
    let value = async |name: &str, key: &str| secrets.get(name).await.unwrap().data.unwrap_or_default().remove(key);
    [
        value("hebb-operator-webhook-tls", "ca.crt").await,
        value("hebb-operator-webhook-tls", "tls.crt").await,
        value("hebb-operator-webhook-token", "token").await,
    ]
}

/// Leads what the chart registered to an address of this machine, whose certificate is of an authority.
async fn lead_to(scenario: &Scenario, address: SocketAddr, token: &str, authority: &str) {
    let (api, name) = registrations(scenario);
    let mut registered = serde_json::to_value(api.get(&name).await.unwrap()).unwrap();
    let url = format!("https://{address}/validate/{token}");
    registered["webhooks"][0]["clientConfig"] = json!({"url": url, "caBundle": base64(authority)});
    let registered = serde_json::from_value(registered).unwrap();
    api.replace(&name, &PostParams::default(), &registered).await.unwrap();
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
    // One that was stored before anybody looked.
    scenario.create(&policy("old", routed("nobody"))).await;
    helm(&scenario).await;
    let made = kept(&scenario).await;
    let token = String::from_utf8(made[2].clone().unwrap().0).unwrap();
    let webhook = Webhook { listen: address, certificates: folder.path().to_owned(), token: Some(token.clone()) };
    let other = scenario.operator_with("b", "hebb:1", Some(webhook)).await;

    lead_to(&scenario, address, &token, first["ca.crt"].as_str().unwrap()).await;
    is_asked(&scenario, "the API server asks the webhook").await;
    assert!(!other.is_leading().await, "whoever answers needs no lease");

    what_is_submitted_is_refused_or_warned_of(&scenario).await;
    what_was_bad_before_can_be_changed_and_deleted(&scenario).await;
    requests_that_are_no_review_are_told_so(&first, address, &token).await;

    // Another authority: whoever still showed the former certificate wouldn't be trusted.
    let second = issued("127.0.0.1");
    write(folder.path(), &second);
    lead_to(&scenario, address, &token, second["ca.crt"].as_str().unwrap()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_asked(&scenario, "a new certificate is shown without a restart").await;
    requests_that_are_no_review_are_told_so(&second, address, &token).await;

    let refused = other.sum("hebb_admission_reviews_total{kind=\"AlertPolicy\",outcome=\"refused\"}").await;
    let warned = other.sum("hebb_admission_reviews_total{kind=\"LearningCluster\",outcome=\"warned\"}").await;
    assert!(refused >= 2.0 && warned >= 1.0, "{refused} refused, {warned} warned");

    other.stop().await.unwrap();
    let (taken, said) = applied(&scenario, "AlertPolicy", "nobody-looks", &routed("nobody")).await;
    assert!(taken, "an operator that is away blocks somebody: {said}");

    // An upgrade registers what its Secrets hold, and they hold the same as before.
    let (api, name) = registrations(&scenario);
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    helm(&scenario).await;
    assert_eq!(kept(&scenario).await, made);
    let client = api.get(&name).await.unwrap().webhooks.unwrap().remove(0).client_config;
    assert_eq!((client.ca_bundle, client.url), (made[0].clone(), None));
    assert_eq!(client.service.and_then(|service| service.path), Some(format!("/validate/{token}")));
    api.delete(&name, &DeleteParams::default()).await.unwrap();
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

/// Asks the webhook directly, trusting nobody but the authority of one certificate.
async fn requests_that_are_no_review_are_told_so(certificate: &Value, address: SocketAddr, token: &str) {
    let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
    let authority = certificate["ca.crt"].as_str().unwrap();
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(authority.as_bytes()).unwrap().to_vec()]);
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let path = format!("/validate/{token}");
    for (path, body, code, named) in [
        (path.as_str(), "{".to_owned(), 400, "the body is no AdmissionReview"),
        (path.as_str(), "{}".to_owned(), 400, "is known here"),
        ("/validate", "{}".to_owned(), 404, "no such page"),
        ("/validate/0123456789abcdefghik", "{}".to_owned(), 404, "no such page"),
    ] {
        let request = http::Request::post(path).body(body.into_bytes()).unwrap();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.request_text(request)).await.unwrap();
        let said = match answer {
            Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
            other => (0, format!("{other:?}")),
        };
        assert!(said.0 == code && said.1.contains(named), "{path}: {said:?}");
    }
}
