//! The certificate that the webhook shows, as it stands in its files. They are read for every connection, so that a new one
//! counts from the next on; while they don't fit together the last one that did is shown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tracing::{info, warn};

use crate::learning_cluster::certificate::{CERTIFICATE, KEY};

/// Bytes of one of the files: a chain of certificates is some thousands.
const FILE_MAX: u64 = 1 << 18;
/// The API server speaks HTTP/2 where it may; one connection at a time has one request here.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("can't read {0}: {1}")]
    Read(String, io::Error),
    #[error("no certificate and key in PEM: {0}")]
    Pem(#[from] pem::Error),
    #[error("certificate and key are of no use together: {0}")]
    Pair(#[from] rustls::Error),
}

/// A folder with `tls.crt` and `tls.key`.
pub struct Certificates {
    folder: PathBuf,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// What the files held.
    files: (Vec<u8>, Vec<u8>),
    shown: Option<Arc<ServerConfig>>,
    /// What was wrong at the last look.
    trouble: Option<String>,
}

impl Certificates {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, last: Mutex::default() }
    }

    /// What the next connection is to see; nothing before there was a certificate.
    pub async fn shown(&self) -> Option<Arc<ServerConfig>> {
        let read = self.read().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = match read {
            Ok(files) if files == last.files => None,
            Ok(files) => Some(config(&files).map(|config| (files, config))),
            Err(error) => Some(Err(error)),
        };
        match fresh {
            Some(Ok((files, config))) => {
                info!(folder = %self.folder.display(), "the webhook shows the certificate in its files");
                *last = Last { files, shown: Some(Arc::new(config)), trouble: None };
            }
            // Said once: everybody who connects leads here.
            Some(Err(error)) => {
                let trouble = Some(error.to_string());
                if last.trouble != trouble {
                    warn!(%error, folder = %self.folder.display(), "the webhook has no new certificate");
                    last.trouble = trouble;
                }
            }
            None => {}
        }
        last.shown.clone()
    }

    async fn read(&self) -> Result<(Vec<u8>, Vec<u8>), Useless> {
        Ok((read(&self.folder.join(CERTIFICATE)).await?, read(&self.folder.join(KEY)).await?))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Useless> {
    let unread = |error| Useless::Read(path.display().to_string(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).await.map_err(unread)?;
    file.take(FILE_MAX).read_to_end(&mut bytes).await.map_err(unread)?;
    Ok(bytes)
}

fn config((certificate, key): &(Vec<u8>, Vec<u8>)) -> Result<ServerConfig, Useless> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn a_new_pair_is_shown_and_one_that_does_not_fit_together_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(folder.path().to_owned());
        let write = |certificate: &str, key: &str| {
            std::fs::write(folder.path().join(CERTIFICATE), certificate).unwrap();
            std::fs::write(folder.path().join(KEY), key).unwrap();
        };
        assert!(certificates.shown().await.is_none(), "there is nothing to show");
        let (one, other) = (pair(), pair());
        write(&one.0, &one.1);
        let first = certificates.shown().await.unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.shown().await.unwrap()), "the same files are the same certificate");
        for (certificate, key) in [(&other.0, &one.1), (&other.0, &"no key".to_owned()), (&String::new(), &one.1)] {
            write(certificate, key);
            assert!(Arc::ptr_eq(&first, &certificates.shown().await.unwrap()));
        }
        std::fs::remove_file(folder.path().join(KEY)).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.shown().await.unwrap()));
        write(&other.0, &other.1);
        assert!(!Arc::ptr_eq(&first, &certificates.shown().await.unwrap()));
    }
}
