//! Encryption of a Redis that Hebb runs: its certificate, where pods find it, and what servers are told.

use hebb_api::names::{self, Role};
use serde_json::{Value, json};

use super::{Topology, base64};
use crate::learning_cluster::certificate::{AUTHORITY, AUTHORITY_KEY, CERTIFICATE, Fault, KEY, Source};

/// Where servers, and what runs beside them, find the certificate.
const PATH: &str = "/etc/redis-tls";
/// The volume with it.
const VOLUME: &str = "tls";

/// The Secret, where Hebb makes the certificate.
pub fn secret(topology: &Topology) -> Option<Value> {
    let certificate = topology.secrets.certificate.as_ref().filter(|found| found.source == Source::Hebb)?;
    let pems = certificate.pems.as_ref().ok()?;
    Some(json!({"type": "kubernetes.io/tls", "data": {
        CERTIFICATE: base64(&pems.certificate),
        KEY: base64(&pems.key),
        AUTHORITY: base64(&pems.authority),
        AUTHORITY_KEY: base64(pems.authority_key.as_deref().unwrap_or_default()),
    }}))
}

/// What asks cert-manager for the certificate, where it makes it and can be asked.
pub fn request(topology: &Topology) -> Option<Value> {
    let certificate = topology.secrets.certificate.as_ref()?;
    let Source::Issuer(issuer) = &certificate.source else { return None };
    if certificate.pems.as_ref().err().is_some_and(Fault::is_of_manager) {
        return None;
    }
    let host = topology.host(Role::Redis);
    Some(json!({"spec": {
        "secretName": certificate.secret,
        // By these the Secret is watched.
        "secretTemplate": {"labels": names::role_labels(&topology.name, Role::Redis)},
        "issuerRef": issuer,
        "dnsNames": [host, format!("*.{host}")],
        "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
    }}))
}

/// What a server or Sentinel listens to.
pub fn listening(topology: &Topology, port: i32) -> Vec<String> {
    if topology.secrets.certificate.is_none() {
        return vec![format!("port {port}")];
    }
    vec![
        "port 0".to_owned(),
        format!("tls-port {port}"),
        format!("tls-cert-file {PATH}/{CERTIFICATE}"),
        format!("tls-key-file {PATH}/{KEY}"),
        format!("tls-ca-cert-file {PATH}/{AUTHORITY}"),
        // Clients show a password.
        "tls-auth-clients no".to_owned(),
        "tls-replication yes".to_owned(),
    ]
}

/// The file of who vouches for the servers, as it is found in their pods; nothing where connections are in the clear.
pub fn authority_file(topology: &Topology) -> Option<String> {
    topology.secrets.certificate.as_ref().map(|_| format!("{PATH}/{AUTHORITY}"))
}

/// What tells `redis-member` who vouches for the servers.
pub fn environment(topology: &Topology) -> Option<Value> {
    authority_file(topology).map(|file| json!({"name": "REDIS_TLS_CA", "value": file}))
}

/// Where the containers of Redis find the certificate.
pub fn mount(topology: &Topology) -> Option<Value> {
    topology.secrets.certificate.as_ref().map(|_| json!({"name": VOLUME, "mountPath": PATH, "readOnly": true}))
}

/// The volume of [`mount`].
pub fn volume(topology: &Topology) -> Option<Value> {
    volume_of(topology, VOLUME, &[CERTIFICATE, KEY, AUTHORITY])
}

/// The volume with which clients know the servers.
pub fn client_volume(topology: &Topology, name: &str) -> Option<Value> {
    volume_of(topology, name, &[AUTHORITY])
}

fn volume_of(topology: &Topology, name: &str, keys: &[&str]) -> Option<Value> {
    let secret = &topology.secrets.certificate.as_ref()?.secret;
    let items: Vec<Value> = keys.iter().map(|key| json!({"key": key, "path": key})).collect();
    Some(json!({"name": name, "secret": {"secretName": secret, "items": items}}))
}

/// The command of a probe that asks the server of a pod with `redis-cli`.
pub fn cli_ping(topology: &Topology, trusting: bool) -> Value {
    let mut command = vec!["redis-cli".to_owned(), "--no-auth-warning".to_owned()];
    if let Some(file) = authority_file(topology) {
        command.push("--tls".to_owned());
        // A server that shows a certificate of yesterday answers all the same: to start it anew mends nothing.
        command.extend(if trusting { vec!["--insecure".to_owned()] } else { vec!["--cacert".to_owned(), file] });
    }
    command.push("ping".to_owned());
    json!({"exec": {"command": command}})
}

/// What makes a `redis-member ping` one over an encrypted connection.
pub fn ping_arguments(topology: &Topology) -> Vec<String> {
    let name = topology.redis_hosts().into_iter().next().unwrap_or_else(|| topology.host(Role::Redis));
    let sealed = authority_file(topology).map(|file| ["--tls-ca".to_owned(), file, "--tls-name".to_owned(), name]);
    sealed.into_iter().flatten().collect()
}

/// Name of the Secret that Hebb makes, and of the Certificate.
pub fn name(topology: &Topology) -> String {
    names::redis_tls_name(&topology.name)
}
