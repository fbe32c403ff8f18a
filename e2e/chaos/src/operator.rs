//! The operator of a plan: the release binary, started again whenever it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Error;
use crate::proxy::{Link, Shared};

/// The image that clusters get which name none.
pub const IMAGE: &str = "hebb:1";
/// Ends that nobody asked for, after which the operator isn't started again.
const DEATHS_MAX: usize = 5;

/// A running operator; killed with the value.
pub struct Operator {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    starts: Arc<AtomicUsize>,
    troubles: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Operator {
    /// Starts the binary against a proxy. Coordinators are asked through the server at `coordinators`.
    pub fn start(binary: &Path, folder: PathBuf, coordinators: &str, shared: Arc<Shared>) -> Self {
        let (stop, asked) = watch::channel(false);
        let starts = Arc::new(AtomicUsize::new(0));
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let keeper = Keeper {
            binary: binary.to_owned(),
            folder: folder.clone(),
            coordinators: coordinators.to_owned(),
            shared,
            starts: starts.clone(),
        };
        let noted = troubles.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = keeper.keep(asked, &noted).await {
                note(&noted, format!("the operator could not be run: {error}"));
            }
        });
        Self { stop, task, starts, troubles, folder }
    }

    /// How many times it was started.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    /// Kills it, and says what was wrong with it: ends that nobody asked for, panics and errors in its log.
    pub async fn end(self) -> Vec<String> {
        self.stop.send_replace(true);
        // A task that fails has nothing to say but its panic, which the test's output shows.
        let _ = self.task.await;
        let mut troubles = std::mem::take(&mut *self.troubles.lock().unwrap_or_else(PoisonError::into_inner));
        for start in 1..=self.starts.load(Ordering::SeqCst) {
            let log = std::fs::read_to_string(log(&self.folder, start)).unwrap_or_default();
            // The client logs every answer that a fault gives it.
            let bad = |line: &&str| {
                line.contains("panicked at") || line.contains("\"ERROR\"") && !line.contains("\"kube_client::")
            };
            let bad = log.lines().filter(bad);
            troubles.extend(bad.map(|line| format!("start {start}: {line}")));
        }
        troubles
    }
}

fn log(folder: &Path, start: usize) -> PathBuf {
    folder.join(format!("operator-{start}.log"))
}

fn note(troubles: &Mutex<Vec<String>>, trouble: String) {
    troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble);
}

struct Keeper {
    binary: PathBuf,
    folder: PathBuf,
    coordinators: String,
    shared: Arc<Shared>,
    starts: Arc<AtomicUsize>,
}

impl Keeper {
    async fn keep(&self, mut stop: watch::Receiver<bool>, troubles: &Mutex<Vec<String>>) -> Result<(), Error> {
        let mut deaths = 0;
        while deaths < DEATHS_MAX {
            let start = self.starts.fetch_add(1, Ordering::SeqCst) + 1;
            // A port of its own for each start: what a dead operator had sent must not arrive in the next one's name.
            let (link, address, server) = Link::serve(self.shared.clone(), start).await?;
            let mut child = self.spawn(start, &address.to_string())?;
            let stopped = tokio::select! {
                _ = stop.wait_for(|asked| *asked) => true,
                () = link.kill.notified() => false,
                ended = child.wait() => {
                    deaths += 1;
                    note(troubles, format!("start {start} ended by itself: {:?}", ended.map(|status| status.code())));
                    false
                }
            };
            // One that has ended already can't be killed, which is as well.
            let _ = child.kill().await;
            server.abort();
            if stopped {
                break;
            }
        }
        Ok(())
    }

    fn spawn(&self, start: usize, server: &str) -> Result<Child, Error> {
        let kubeconfig = self.folder.join(format!("kubeconfig-{start}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "operator", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        });
        std::fs::write(&kubeconfig, config.to_string())?;
        let output = File::create(log(&self.folder, start))?;
        let namespace = &self.shared.namespace;
        // The same identity each time, as a container that is started again has: its lease is its own, and needn't expire.
        let child = Command::new(&self.binary)
            .args(["operator", "--image", IMAGE, "--redis-image", "redis:7", "--cluster-domain", "cluster.test"])
            .args(["--identity", "operator", "--lease-name", "operator", "--listen", "127.0.0.1:0"])
            .args(["--namespace", namespace, "--lease-namespace", namespace])
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("HTTP_PROXY", &self.coordinators)
            .env("http_proxy", &self.coordinators)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .kill_on_drop(true)
            .spawn()?;
        Ok(child)
    }
}
