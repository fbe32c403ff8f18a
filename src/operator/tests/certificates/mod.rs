//! Certificates of Redis: the one that Hebb makes, somebody's, and cert-manager's. Of that there is only its kind here, and
//! the test writes the Secret in its place.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, ResourceExt};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::scenario::{Scenario, cluster, condition, within};
use crate::{CHILDREN, PATIENT};

/// What a Secret holds.
fn text(secret: &Secret, key: &str) -> String {
    let data = secret.data.clone().unwrap_or_default();
    data.get(key).map(|bytes| String::from_utf8(bytes.0.clone()).unwrap()).unwrap_or_default()
}

/// A certificate for a host and all in it, with its key and who vouches for it.
pub fn issued(host: &str) -> Value {
    let named = |names: Vec<String>, common: &str| {
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, common);
        parameters
    };
    let mut authority = named(Vec::new(), "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = vec![host.to_owned(), format!("*.{host}")];
    let certificate = named(names, "server").signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    json!({"tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": root})
}

async fn write(scenario: &Scenario, name: &str, data: Value) {
    scenario.patch::<Secret>(name, json!({"stringData": data})).await;
}

async fn digest(scenario: &Scenario, name: &str) -> String {
    let set = scenario.api::<StatefulSet>().get(name).await.unwrap().spec.unwrap_or_default();
    let annotations = set.template.metadata.unwrap_or_default().annotations.unwrap_or_default();
    annotations["hebb.dev/template-digest"].clone()
}

async fn says(scenario: &Scenario, wanted: &str) {
    let what = format!("the condition says {wanted}");
    scenario.status(&what, PATIENT, |status| condition(status, "RedisCertificateValid").starts_with(wanted)).await;
}

pub async fn a_certificate_of_hebbs_is_made_once_and_renewed_when_it_is_spoilt(client: Client) {
    let scenario = Scenario::new(client, "sealed").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({"redis": {"tls": {}}}))).await;
    scenario.children(CHILDREN + 1).await;
    says(&scenario, "True Valid").await;
    let secrets = scenario.api::<Secret>();
    let made = secrets.get("demo-redis-tls").await.unwrap();
    assert!(text(&made, "ca.key").contains("PRIVATE KEY"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = (scenario.versions().await, operator.writes().await);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!((scenario.versions().await, operator.writes().await), before, "written at rest");

    let (redis, coordinator) = (digest(&scenario, "demo-redis").await, digest(&scenario, "demo-coordinator").await);
    write(&scenario, "demo-redis-tls", json!({"tls.crt": "spoilt"})).await;
    within("the pods of Redis are renewed", PATIENT, async || {
        (digest(&scenario, "demo-redis").await != redis).then_some(())
    })
    .await;
    let renewed = secrets.get("demo-redis-tls").await.unwrap();
    assert_eq!(text(&renewed, "ca.crt"), text(&made, "ca.crt"), "who trusted the former trusts this one");
    assert_ne!(text(&renewed, "tls.crt"), text(&made, "tls.crt"));
    assert_eq!(digest(&scenario, "demo-coordinator").await, coordinator, "nodes need no restart");
    operator.stop().await.unwrap();
}

pub async fn a_certificate_that_is_of_no_use_is_said_and_harms_nothing_that_runs(client: Client) {
    let scenario = Scenario::new(client, "theirs").await;
    let operator = scenario.operator("a", "hebb:1").await;
    let redis = json!({"mode": "Sentinel", "tls": {"secretRef": {"name": "theirs"}}});
    scenario.create(&cluster("demo", json!({"redis": redis}))).await;
    says(&scenario, "False SecretMissing Secret theirs isn't there").await;
    let sets = scenario.api::<StatefulSet>();
    assert!(sets.get_opt("demo-redis").await.unwrap().is_none());

    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "theirs"}})).unwrap();
    scenario.create(&secret).await;
    write(&scenario, "theirs", json!({"tls.crt": "a", "tls.key": "b"})).await;
    says(&scenario, "False Incomplete Secret theirs has no text in ca.crt").await;
    write(&scenario, "theirs", issued("elsewhere")).await;
    says(&scenario, "False NameMismatch Secret theirs: the certificate isn't for demo-redis-0.").await;
    let host = format!("demo-redis.{}.svc.cluster.invalid", scenario.namespace());
    let good = issued(&host);
    write(&scenario, "theirs", good.clone()).await;
    says(&scenario, "True Valid").await;
    let workers = scenario.api::<Deployment>();
    let there =
        async || Some((sets.get_opt("demo-redis").await.unwrap()?, workers.get_opt("demo-worker").await.unwrap()?));
    let before = within("the workloads are made", PATIENT, there).await;

    write(&scenario, "theirs", json!({"tls.key": issued(&host)["tls.key"]})).await;
    says(&scenario, "False KeyMismatch Secret theirs: tls.key isn't the key of tls.crt").await;
    scenario.status("somebody is to act", PATIENT, |status| condition(status, "Stalled").starts_with("True")).await;
    scenario.change("demo", json!({"spec": {"workers": {"replicas": 3}}})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = there().await.unwrap();
    assert_eq!(now.0.resource_version(), before.0.resource_version());
    assert_eq!(now.1.resource_version(), before.1.resource_version());
    write(&scenario, "theirs", good).await;
    says(&scenario, "True Valid").await;
    within("the workers are as many as they should be", PATIENT, async || {
        (workers.get("demo-worker").await.unwrap().spec.unwrap_or_default().replicas == Some(3)).then_some(())
    })
    .await;
    operator.stop().await.unwrap();
}

pub async fn cert_manager_is_asked_for_a_certificate(client: Client) {
    let scenario = Scenario::new(client.clone(), "issued").await;
    let operator = scenario.operator("a", "hebb:1").await;
    let redis = json!({"mode": "Cluster", "tls": {"issuerRef": {"name": "authority", "kind": "ClusterIssuer"}}});
    scenario.create(&cluster("demo", json!({"redis": redis}))).await;
    says(&scenario, "False NoCertManager").await;

    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "certificates.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": {"kind": "Certificate", "plural": "certificates", "singular": "certificate"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    }))
    .unwrap();
    Api::all(client).create(&PostParams::default(), &definition).await.unwrap();
    says(&scenario, "False Pending cert-manager hasn't made Secret demo-redis-tls yet").await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
    let requests: Api<DynamicObject> = Api::namespaced_with(scenario.client().clone(), scenario.namespace(), &kind);
    let request = within("the request", PATIENT, async || requests.get_opt("demo-redis-tls").await.unwrap()).await;
    let host = format!("demo-redis.{}.svc.cluster.invalid", scenario.namespace());
    let spec = &request.data["spec"];
    assert_eq!(spec["dnsNames"], json!([host, format!("*.{host}")]));
    assert_eq!((&spec["secretName"], &spec["issuerRef"]["kind"]), (&json!("demo-redis-tls"), &json!("ClusterIssuer")));
    let sets = scenario.api::<StatefulSet>();
    assert!(sets.get_opt("demo-redis").await.unwrap().is_none());

    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "demo-redis-tls"}})).unwrap();
    scenario.create(&secret).await;
    write(&scenario, "demo-redis-tls", issued(&host)).await;
    says(&scenario, "True Valid").await;
    within("Redis is made", PATIENT, async || sets.get_opt("demo-redis").await.unwrap()).await;
    operator.stop().await.unwrap();
}
