//! A real Redis for the tests: on a free port of the loopback, with an append-only file in a directory of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hebb_log::{RedisConfig, RedisStore};
use tempfile::TempDir;

pub const PASSWORD: &str = "a-password-that-is-never-printed";

/// Ends with this value, and with the process of the test even if that is killed: the shell around it reads a pipe.
pub struct Server {
    pub port: u16,
    /// How the append-only file is synced.
    fsync: &'static str,
    /// More arguments.
    extra: String,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    pub fn start(fsync: &'static str) -> Self {
        Self::start_with(fsync, String::new())
    }

    /// A replica of this server.
    pub fn replica(&self) -> Self {
        Self::start_with(self.fsync, format!("--replicaof 127.0.0.1 {} --masterauth {PASSWORD}", self.port))
    }

    fn start_with(fsync: &'static str, extra: String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
        let mut server = Self { port, fsync, extra, directory, child: None };
        server.restart();
        server
    }

    /// Starts the server on the port and the files it had.
    pub fn restart(&mut self) {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        assert!(
            found.is_ok_and(|status| status.success()),
            "these tests need a real Redis: apt-get install redis-server"
        );
        let script = format!(
            "redis-server --port {} --bind 127.0.0.1 --dir {} --save '' --appendonly yes --appendfsync {} \
             --requirepass {PASSWORD} --pidfile pid --daemonize no --logfile log {} & \
             read gone; kill -9 $! 2>/dev/null",
            self.port,
            self.directory.path().display(),
            self.fsync,
            self.extra,
        );
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
        self.child = Some(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server doesn't listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, as a crash or the kernel's out-of-memory killer sends it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().expect("the shell ends");
        }
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(10), "redis-server outlived its SIGKILL");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal, for example `STOP`: the connections stay, but nobody answers.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).expect("a pid file");
        let sent = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(Path::join(self.directory.path(), "log")).unwrap_or_default()
    }

    pub fn config(&self, cluster: &str) -> RedisConfig {
        RedisConfig { password: Some(PASSWORD.to_owned()), ..RedisConfig::new("127.0.0.1", self.port, cluster) }
    }

    pub async fn store(&self, cluster: &str) -> RedisStore {
        RedisStore::connect(self.config(cluster)).await.expect("redis-server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
