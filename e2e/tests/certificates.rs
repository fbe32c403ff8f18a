//! Redis' certificate from a real cert-manager: asked for, shown, renewed and lost under load, while nothing that was
//! acknowledged is lost. `make test-certificates` runs this: cert-manager takes minutes to build, so that it isn't part of
//! `make test`.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use hebb_e2e::group::{Group, PODS, READY, VOLUME};
use hebb_e2e::kubectl::{apply, fresh_namespace, get, kubectl, silence, wait_for};

/// An authority that vouches for itself, and an issuer that signs with it.
const ISSUER: &str = "
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self-signed}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: authority}
spec:
  isCA: true
  commonName: authority
  secretName: authority
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: self-signed}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: authority}
spec: {ca: {secretName: authority}}
";
const TLS: &str = "tls: {issuerRef: {name: authority}}";
const SECRET: &str = "group-redis-tls";

/// What openssl prints of the certificate that it is given, or that a server shows.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Whoever has read enough has closed the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

fn serial(certificate: &str) -> Option<String> {
    let printed = openssl(&["x509", "-noout", "-serial"], certificate);
    printed.trim().strip_prefix("serial=").map(str::to_owned)
}

/// The serial number of the certificate in the Secret.
fn issued(space: &str) -> Option<String> {
    let template = "go-template={{index .data \"tls.crt\" | base64decode}}";
    serial(&kubectl(&["-n", space, "get", "secret", SECRET, "-o", template]).ok()?)
}

/// The serial numbers of the certificates that the servers show; nothing for one that doesn't answer.
fn shown(space: &str) -> BTreeSet<Option<String>> {
    let pods = get(space, &["pods", "-l", PODS]).unwrap();
    let addresses = pods["items"].as_array().unwrap().iter().map(|pod| pod["status"]["podIP"].as_str());
    let server = |address| serial(&openssl(&["s_client", "-connect", &format!("{address}:6379")], ""));
    addresses.map(|address| address.and_then(server)).collect()
}

/// Every server shows the certificate of the Secret.
fn is_shown(space: &str) -> String {
    wait_for("every server shows the certificate of the Secret", Duration::from_secs(30), || {
        let issued = issued(space);
        (issued.is_some() && shown(space) == BTreeSet::from([issued.clone()])).then_some(issued).flatten()
    })
    .unwrap()
}

/// Does what `cmctl renew` does.
fn ask_for_renewal(space: &str) {
    let condition =
        "{\"type\": \"Issuing\", \"status\": \"True\", \"reason\": \"ManuallyTriggered\", \"message\": \"test\"}";
    let patch = format!("[{{\"op\": \"add\", \"path\": \"/status/conditions/-\", \"value\": {condition}}}]");
    let object = ["-n", space, "patch", "certificate", SECRET, "--subresource=status", "--type=json", "-p", &patch];
    kubectl(&object).unwrap();
}

fn certificate_condition(space: &str) -> Option<(String, String, String)> {
    let status = get(space, &["learningcluster", "group"]).ok()?["status"].clone();
    let found = status["conditions"].as_array()?.iter().find(|found| found["type"] == "RedisCertificateValid")?.clone();
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((word("status"), word("reason"), word("message")))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`, and cert-manager"]
async fn a_certificate_of_cert_manager_is_shown_and_a_renewed_one_loses_nothing() {
    const SPACE: &str = "hebb-e2e-issuer";
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, ISSUER).unwrap();
    let mut group =
        Group::begin(SPACE, &format!("{{mode: Sentinel, durability: Replicated, {TLS}, {VOLUME}}}"), 1, || ());
    group.is_sealed();
    let first = is_shown(SPACE);
    group.renew_certificate(|| ask_for_renewal(SPACE), 3, 15_000).await;
    assert_ne!(is_shown(SPACE), first, "the certificate was renewed");
    group.under_load("after", 500, || ()).await;
    assert_eq!(certificate_condition(SPACE).unwrap().0, "True");
    std::thread::sleep(Duration::from_secs(5));
    silence(SPACE).unwrap();

    kubectl(&["-n", SPACE, "delete", "learningcluster", "group"]).unwrap();
    wait_for("the Certificate goes with its cluster", Duration::from_secs(30), || {
        get(SPACE, &["certificate", SECRET]).is_err().then_some(())
    })
    .unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`, and cert-manager"]
async fn a_redis_cluster_waits_for_its_issuer_and_a_secret_that_is_lost_loses_nothing() {
    const SPACE: &str = "hebb-e2e-issuer-cluster";
    fresh_namespace(SPACE).unwrap();
    let awaited = || {
        let is_told =
            || certificate_condition(SPACE).filter(|(status, reason, _)| status == "False" && reason == "Pending");
        let (.., message) = wait_for("the certificate is awaited", READY, is_told).unwrap();
        assert!(message.contains(&format!("kubectl describe certificate {SECRET}")), "{message}");
        apply(SPACE, ISSUER).unwrap();
    };
    let redis = format!("{{mode: Cluster, durability: Replicated, {TLS}, {VOLUME}}}");
    let mut group = Group::begin(SPACE, &redis, 8, awaited);
    group.is_sealed();
    let first = is_shown(SPACE);
    let losing = || drop(kubectl(&["-n", SPACE, "delete", "secret", SECRET]).unwrap());
    group.renew_certificate(losing, 6, 4_000).await;
    assert_ne!(is_shown(SPACE), first, "cert-manager made another one");
    group.under_load("after", 500, || ()).await;
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
