//! A way to a Service from outside of the cluster's network: `kubectl port-forward`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::Error;
use crate::kubectl::wait_for;

/// Runs a command, and ends it when the standard input ends: so it goes with the process that started it, however that goes.
const TIED: &str = r#"exec 3<&0
"$@" 3<&- & command=$!
{ read -r _ <&3; kill $command; } 2>/dev/null &
wait $command
kill $! 2>/dev/null"#;
/// Between two attempts, as after the pod behind the way was killed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The ports of this process's ways, by namespace and Service.
static PORTS: Mutex<BTreeMap<String, u16>> = Mutex::new(BTreeMap::new());

/// The address of a Service's port 80 on this machine, for as long as this process lives. Whenever the pod behind it goes, it
/// leads to another.
///
/// # Errors
/// No free port, or no way within 30 s.
pub fn forward(namespace: &str, service: &str) -> Result<String, Error> {
    let mut ports = PORTS.lock().map_err(|_| "another thread panicked")?;
    let port = match ports.get(&format!("{namespace}/{service}")) {
        Some(port) => *port,
        None => {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let (namespace, service) = (namespace.to_owned(), service.to_owned());
            ports.insert(format!("{namespace}/{service}"), port);
            std::thread::spawn(move || {
                loop {
                    if let Ok(mut way) = begin(&namespace, &service, port) {
                        // Waiting closes the standard input, unless somebody has it.
                        let _open = way.stdin.take();
                        let _ = way.wait();
                    }
                    std::thread::sleep(AGAIN_AFTER);
                }
            });
            port
        }
    };
    let address = (Ipv4Addr::LOCALHOST, port);
    wait_for("a way to the Service", Duration::from_secs(30), || TcpStream::connect(address).ok())?;
    Ok(format!("http://127.0.0.1:{port}"))
}

fn begin(namespace: &str, service: &str, port: u16) -> Result<Child, std::io::Error> {
    Command::new("sh")
        .args(["-c", TIED, "sh", "kubectl", "-n", namespace, "port-forward", &format!("service/{service}")])
        .arg(format!("{port}:80"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
