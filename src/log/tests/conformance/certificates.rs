//! An authority, and what it vouches for: a server and a client, as PEM files.

use std::path::PathBuf;
use std::process::Command;

use hebb_log::Tls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, pem: String| std::fs::write(directory.path().join(name), pem).expect("a file");
        // A certificate whose subject is also its issuer would look as if it vouched for itself.
        let parameters = |subject: Option<&str>| {
            let mut parameters =
                CertificateParams::new(subject.map(str::to_owned).into_iter().collect::<Vec<_>>()).expect("parameters");
            parameters.distinguished_name.push(DnType::CommonName, subject.unwrap_or("authority"));
            parameters
        };
        let mut authority = parameters(None);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        write("ca.pem", authority.self_signed(&key).expect("a certificate").pem());
        let authority = Issuer::new(authority, key);
        for (name, subject) in [("server", "127.0.0.1"), ("client", "client.test")] {
            let key = KeyPair::generate().expect("a key");
            let certificate = parameters(Some(subject)).signed_by(&key, &authority).expect("a certificate");
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a server is started with. It lets nobody in who doesn't show a certificate.
    pub fn arguments(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "--tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {} --tls-auth-clients yes \
             --tls-replication yes --tls-cluster yes",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        )
    }

    /// How `redis-cli` gets in.
    pub fn encrypt(&self, cli: &mut Command) {
        cli.arg("--tls").arg("--cacert").arg(self.path("ca.pem"));
        cli.arg("--cert").arg(self.path("client.pem")).arg("--key").arg(self.path("client.key"));
    }

    pub fn client(&self) -> Tls {
        let identity = (self.path("client.pem"), self.path("client.key"));
        Tls::read(&self.path("ca.pem"), Some((&identity.0, &identity.1))).expect("readable files")
    }
}
