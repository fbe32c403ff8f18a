//! An API server for the test, and the definitions on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Client, ResourceExt};
use serde_json::json;

static KUBECONFIG: OnceLock<PathBuf> = OnceLock::new();

/// An API server; ended with the value unless it ran before.
pub struct ControlPlane {
    kubeconfig: PathBuf,
    started: Option<tempfile::TempDir>,
}

/// Where the programs of a group are; they are built once.
pub fn binaries(group: &str) -> PathBuf {
    let output = Command::new(scripts().join("binaries.sh")).arg(group).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// The file that says how to reach the API server.
pub fn kubeconfig() -> &'static Path {
    KUBECONFIG.get().unwrap()
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/cluster")
}

impl ControlPlane {
    pub fn start() -> Self {
        let plane = Self::find();
        KUBECONFIG.set(plane.kubeconfig.clone()).unwrap();
        plane
    }

    fn find() -> Self {
        if let Some(kubeconfig) = std::env::var_os("HEBB_APISERVER_KUBECONFIG") {
            return Self { kubeconfig: kubeconfig.into(), started: None };
        }
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(scripts().join("control-plane.sh")).arg("up").arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kubeconfig = String::from_utf8(output.stdout).unwrap().trim().into();
        Self { kubeconfig, started: Some(folder) }
    }

    pub async fn client(&self) -> Client {
        Client::try_from(config().await).unwrap()
    }
}

/// How to reach the one that was started.
pub async fn config() -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(folder) = &self.started {
            // Nothing is left to tell when even the end fails.
            let _ = Command::new(scripts().join("control-plane.sh")).arg("down").arg(folder.path()).status();
        }
    }
}

/// Applies both definitions and waits until they can be used.
pub async fn install_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in hebb_api::crds() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(std::time::Duration::from_secs(30), established).await.unwrap().unwrap();
    }
}

/// Takes the rules from the definition of LearningClusters, as an older one may not have had them.
pub async fn relax_definition(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut crd = api.get("learningclusters.hebb.dev").await.unwrap();
    let open = json!({"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    }});
    crd.spec.versions[0].schema = Some(serde_json::from_value(open).unwrap());
    api.replace("learningclusters.hebb.dev", &PostParams::default(), &crd).await.unwrap();
}
