//! Where the coordinator is: at an address, or in a cluster behind a `kubectl port-forward`.

use std::process::Stdio;
use std::time::Duration;

use hebb_api::names::{self, Role};
use k8s_openapi::api::core::v1::Secret;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A forward is there within this time or not at all.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("kubectl can't be run")]
    Kubectl(#[source] std::io::Error),
    #[error("kubectl failed: {0}")]
    Failed(String),
    #[error("kubectl forwards no port within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the Secret {0} holds no token")]
    NoToken(String),
}

/// The coordinator that is asked.
pub struct Target {
    url: String,
    token: Option<String>,
    name: String,
    /// Ends with this value.
    _forward: Option<Child>,
}

impl Target {
    /// At an address.
    pub fn direct(url: String, token: Option<String>) -> Self {
        Self { name: url.clone(), url, token: token.filter(|token| !token.is_empty()), _forward: None }
    }

    /// A LearningCluster of the kubeconfig.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forwarded(
        cluster: &str,
        namespace: Option<&str>,
        context: Option<&str>,
    ) -> Result<Self, ForwardError> {
        let kubectl = || {
            let mut command = Command::new("kubectl");
            for (option, value) in [("--context", context), ("--namespace", namespace)] {
                if let Some(value) = value {
                    command.arg(option).arg(value);
                }
            }
            command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            command
        };
        let secret = names::internal_secret_name(cluster);
        let read = kubectl().args(["get", "secret", &secret, "--output", "json"]).output();
        let read = timeout(DEADLINE, read).await.map_err(|_| ForwardError::Late)?.map_err(ForwardError::Kubectl)?;
        if !read.status.success() {
            return Err(ForwardError::Failed(String::from_utf8_lossy(&read.stderr).trim().to_owned()));
        }
        let token = serde_json::from_slice(&read.stdout)
            .ok()
            .and_then(|read: Secret| String::from_utf8(read.data?.remove("token")?.0).ok());
        let token = token.ok_or(ForwardError::NoToken(secret))?;
        let service = format!("service/{}", Role::Coordinator.object_name(cluster));
        let port = format!(":{}", names::COORDINATOR_PORT);
        let mut forward = kubectl()
            .args(["port-forward", "--address", "127.0.0.1", &service, &port])
            .spawn()
            .map_err(ForwardError::Kubectl)?;
        let url = timeout(DEADLINE, address(&mut forward)).await.map_err(|_| ForwardError::Late)??;
        let name = format!("{}{cluster}", namespace.map_or_else(String::new, |namespace| format!("{namespace}/")));
        Ok(Self { url, token: Some(token), name, _forward: Some(forward) })
    }

    /// Where it is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it is asked with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What kubectl says that it listens on; afterwards its output is read and dropped, so that it never waits for a reader.
async fn address(forward: &mut Child) -> Result<String, ForwardError> {
    let mut found = None;
    if let Some(output) = forward.stdout.take() {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            found = forwarded_address(&line);
            if found.is_some() {
                break;
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    }
    if let Some(found) = found {
        if let Some(errors) = forward.stderr.take() {
            let mut lines = BufReader::new(errors).lines();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
        return Ok(found);
    }
    let mut said = String::new();
    if let Some(errors) = forward.stderr.take() {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            said = line;
        }
    }
    Err(ForwardError::Failed(said))
}

fn forwarded_address(line: &str) -> Option<String> {
    let address = line.strip_prefix("Forwarding from ")?.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_says_is_understood() {
        assert_eq!(
            forwarded_address("Forwarding from 127.0.0.1:40123 -> 8000").as_deref(),
            Some("http://127.0.0.1:40123")
        );
        assert_eq!(forwarded_address("Handling connection for 40123"), None);
        let token = |base64: &str| {
            let secret = format!(r#"{{"data": {{"token": "{base64}"}}}}"#);
            serde_json::from_str::<Secret>(&secret).ok()?.data?.remove("token").map(|bytes| bytes.0)
        };
        assert_eq!(token("c2VjcmV0LXRva2Vu").as_deref(), Some(&b"secret-token"[..]));
        assert_eq!(token("YQ=="), Some(b"a".to_vec()));
        assert_eq!(token("a b"), None);
    }
}
