//! A real Redis for the tests: on a free port of the loopback, with an append-only file in a directory of its own.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_log::{RedisConfig, RedisStore};
use tempfile::TempDir;

use crate::certificates::Certificates;

pub const PASSWORD: &str = "a-password-that-is-never-printed";
/// What the shell around a server is told where its files are to outlive it.
const KEEP: &str = "keep";

/// Ends with this value, and with the process of the test even if that is killed: the shell around it reads a pipe.
pub struct Server {
    pub port: u16,
    /// How the append-only file is synced.
    fsync: &'static str,
    /// Arguments of the command line, all but the port's and those of its files.
    arguments: String,
    tls: Option<Arc<Certificates>>,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    pub fn start(fsync: &'static str) -> Self {
        Self::start_with(fsync, "", None)
    }

    /// A replica of this server.
    pub fn replica(&self) -> Self {
        Self::start_with(self.fsync, &format!("--replicaof 127.0.0.1 {}", self.port), self.tls.clone())
    }

    /// A server with more arguments.
    pub fn start_with(fsync: &'static str, more: &str, tls: Option<Arc<Certificates>>) -> Self {
        let arguments = format!(
            "--save '' --appendonly yes --appendfsync {fsync} --requirepass {PASSWORD} --masterauth {PASSWORD} \
             --repl-diskless-sync-delay 0 --repl-ping-replica-period 1 {more}"
        );
        Self::launch(fsync, arguments, "", tls)
    }

    /// A Sentinel, whose configuration has to be in a file that it can write.
    pub fn sentinel(lines: &str, tls: Option<Arc<Certificates>>) -> Self {
        Self::launch("no", "--sentinel".to_owned(), lines, tls)
    }

    fn launch(fsync: &'static str, arguments: String, lines: &str, tls: Option<Arc<Certificates>>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("redis.conf"), lines).expect("a configuration");
        let mut server = Self { port: free_port(), fsync, arguments, tls, directory, child: None };
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
        let port = match &self.tls {
            None => format!("--port {}", self.port),
            Some(certificates) => format!("--port 0 --tls-port {} {}", self.port, certificates.arguments()),
        };
        // What is left of a server whose test was ended is removed too.
        let script = format!(
            "cd {directory} && redis-server redis.conf {port} --bind 127.0.0.1 --pidfile pid --daemonize no \
             --logfile log {arguments} & \
             read word; kill -9 $! 2>/dev/null; wait; [ \"$word\" = {KEEP} ] || rm -rf {directory} {certificates}",
            directory = self.directory.path().display(),
            arguments = self.arguments,
            certificates = self.tls.as_ref().map(|tls| tls.path("").display().to_string()).unwrap_or_default(),
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
            if let Some(mut word) = child.stdin.take() {
                writeln!(word, "{KEEP}").expect("the shell listens");
            }
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

    /// What the server answers to a command, as text.
    pub fn ask(&self, password: &str, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-a", password, "--no-auth-warning"]);
        if let Some(certificates) = &self.tls {
            certificates.encrypt(&mut cli);
        }
        let output = cli.args(command).output().expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A figure of INFO.
    pub fn figure(&self, name: &str) -> Option<String> {
        let info = self.ask(PASSWORD, &["INFO"]);
        info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    }

    pub fn is_primary(&self) -> bool {
        self.figure("role").as_deref() == Some("master")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(Path::join(self.directory.path(), "log")).unwrap_or_default()
    }

    pub fn config(&self, cluster: &str) -> RedisConfig {
        let tls = self.tls.as_ref().map(|certificates| certificates.client());
        RedisConfig { password: Some(PASSWORD.to_owned()), tls, ..RedisConfig::new("127.0.0.1", self.port, cluster) }
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

/// A port that is free, and the one 10,000 above it too, which a node of a Cluster takes for its fellows.
fn free_port() -> u16 {
    loop {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = socket.local_addr().expect("an address").port();
        if port.checked_add(10_000).is_some_and(|above| TcpListener::bind(("127.0.0.1", above)).is_ok()) {
            return port;
        }
    }
}
