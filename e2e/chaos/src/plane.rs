//! The API server of the run, and the definitions on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Client, ResourceExt};

use crate::Error;

/// etcd and kube-apiserver on free ports; ended with the value.
pub struct Plane {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/control-plane.sh")
}

impl Plane {
    /// Starts both and installs the definitions.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(&[]).await
    }

    /// The same with kube-controller-manager.
    pub async fn start_with_controllers() -> Result<Self, Error> {
        Self::start_with(&["controllers"]).await
    }

    /// What a client reads to get there.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The lines that the API server has written about writes.
    ///
    /// # Errors
    /// A log that can't be read.
    pub fn audit(&self) -> Result<String, Error> {
        Ok(std::fs::read_to_string(self.folder.path().join("audit/audit.log"))?)
    }

    /// The process of a server: `etcd`, `apiserver` or `controller-manager`.
    ///
    /// # Errors
    /// One that doesn't run.
    pub fn process(&self, server: &str) -> Result<u32, Error> {
        let written = std::fs::read_to_string(self.folder.path().join(format!("run/{server}.pid")))?;
        Ok(written.split_whitespace().next().unwrap_or_default().parse()?)
    }

    async fn start_with(more: &[&str]) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let output = Command::new(script()).arg("up").arg(folder.path()).args(more).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let kubeconfig = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let plane = Self { folder, kubeconfig };
        plane.install_definitions().await?;
        Ok(plane)
    }

    /// A client that tries nothing twice: what the operator sends once must arrive once.
    pub async fn client(&self) -> Result<Client, Error> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    async fn install_definitions(&self) -> Result<(), Error> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        for crd in hebb_api::crds() {
            let name = crd.name_any();
            api.patch(&name, &PatchParams::apply("faults").force(), &Patch::Apply(&crd)).await?;
            let established = await_condition(api.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established).await??;
        }
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Nothing is left to tell when even the end fails.
        let _ = Command::new(script()).arg("down").arg(self.folder.path()).status();
    }
}
