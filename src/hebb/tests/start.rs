//! Whom `hebb start` serves: what it warns of, and what asks for a token.

mod process;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use reqwest::{Client, StatusCode};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Everything has started within this time.
const PATIENCE: Duration = Duration::from_secs(60);
const ALL_REACH_IT: &str = "other machines reach";

fn start(log: &Path, arguments: &[&str]) -> Result<Running> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    command.arg("start").args(arguments).stderr(Stdio::from(std::fs::File::create(log)?)).stdout(Stdio::null());
    for variable in ["HEBB_INTERNAL_TOKEN", "HEBB_API_KEYS", "HEBB_BIND", "REDIS_URL", "NODE_ROLE"] {
        command.env_remove(variable);
    }
    Ok(Running(command.spawn()?))
}

/// What a role has logged once it says that it starts.
async fn said_by(folder: &Path, role: &str, more: &[&str]) -> Result<String> {
    let log = folder.join("log");
    let (port, meta) = (free_port()?.to_string(), free_port()?.to_string());
    let redis = format!("redis://127.0.0.1:{}", free_port()?);
    let mut arguments = vec!["--role", role, "--redis", &redis, "--port", &port, "--coordinator-port", &port];
    arguments.extend(["--worker-port", &port, "--meta-port", &meta]);
    arguments.extend(more);
    let _running = start(&log, &arguments)?;
    let since = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log)?;
        if said.contains("starting") {
            return Ok(said);
        }
        assert!(since.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_role_that_asks_for_nothing_and_serves_every_machine_says_so() -> Result {
    let folder = tempfile::tempdir()?;
    let said = said_by(folder.path(), "gateway", &[]).await?;
    assert!(said.contains("asks for no key") && said.contains(ALL_REACH_IT), "{said}");
    let said = said_by(folder.path(), "coordinator", &[]).await?;
    assert!(said.contains("asks for no token") || said.contains("ask for no token"), "{said}");
    assert!(said.contains(ALL_REACH_IT), "{said}");

    for (role, more) in [
        ("gateway", ["--bind", "127.0.0.1"]),
        ("coordinator", ["--bind", "127.0.0.1"]),
        ("coordinator", ["--internal-token", "let-me-in"]),
    ] {
        let said = said_by(folder.path(), role, &more).await?;
        assert!(!said.contains(ALL_REACH_IT), "{role} {more:?}: {said}");
        assert!(!said.contains("let-me-in"), "the token was said");
    }
    Ok(())
}

#[tokio::test]
async fn a_process_with_a_token_asks_for_it_and_its_own_alerts_have_it() -> Result {
    let folder = tempfile::tempdir()?;
    let (log, file) = (folder.path().join("log"), folder.path().join("all.yaml"));
    std::fs::write(
        &file,
        "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: laptop}
spec: {}
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: leader}
spec:
  targetRef: {name: laptop}
  interval: 5s
  rules:
    - name: nobody-leads
      expr: {indicator: leader_up, operator: LessThan, threshold: 1}
      severity: Critical
    - name: somebody-leads
      expr: {indicator: leader_up, operator: GreaterThan, threshold: 0}
      severity: Info
      annotations: {summary: '{{ target }} is led', runbookUrl: 'https://example.org/led'}
  routes: [{receiver: log, groupWait: 0s}]
  receivers: [{name: log, log: {}}]
",
    )?;
    let ports = [free_port()?, free_port()?, free_port()?, free_port()?].map(|port| port.to_string());
    let coordinator = format!("127.0.0.1:{}", ports[1]);
    let data = folder.path().join("data").display().to_string();
    let file = file.display().to_string();
    let arguments = ["-f", &file, "--data-dir", &data, "--port", &ports[0], "--coordinator-port", &ports[1]];
    let more = ["--worker-port", &ports[2], "--meta-port", &ports[3], "--internal-token", "let-me-in"];
    let _running = start(&log, &[&arguments[..], &more].concat())?;

    // `http://` may be left out.
    let status = |token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
        command.args(["status", "--coordinator", &coordinator, "--json"]).env("HEBB_INTERNAL_TOKEN", token);
        command.output()
    };
    let since = Instant::now();
    while !status("let-me-in")?.status.success() {
        assert!(since.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Who asks in the wrong place, or without what is asked for, is told what to do.
    let gateway = format!("127.0.0.1:{}", ports[0]);
    for (line, token, wanted) in [
        (["status", "--coordinator", &coordinator], "", "asks for a token: --token, or HEBB_INTERNAL_TOKEN"),
        (["history", "--url", &coordinator], "wrong", "refuses what it was given; it asks for a token"),
        (["status", "--coordinator", &gateway], "let-me-in", "no coordinator is at http://127.0.0.1:"),
        (["history", "--url", &gateway], "let-me-in", "no coordinator is at http://127.0.0.1:"),
        (["reset", "demo", "--yes"], "", "no gateway is at http://127.0.0.1:"),
        (["reset", "nothing", "--yes"], "", "there is no domain \"nothing\""),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
        let asked = if line[1] == "demo" { &coordinator } else { &gateway };
        let output = command.args(line).envs([("HEBB_INTERNAL_TOKEN", token), ("HEBB_GATEWAY", asked)]).output()?;
        let said = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && said.contains(wanted), "{line:?}: {said}");
    }
    let url = format!("http://{coordinator}/api/v1/alerts");
    assert_eq!(Client::new().get(&url).send().await?.status(), StatusCode::UNAUTHORIZED);

    let told = async || -> Result<serde_json::Value> {
        let answer = Client::new().get(&url).bearer_auth("let-me-in").send().await?;
        Ok(answer.json().await?)
    };
    while told().await?["policies"][0]["status"]["alerts"].as_array().is_none_or(Vec::is_empty) {
        assert!(since.elapsed() < PATIENCE, "the dashboard was never told: {}", std::fs::read_to_string(&log)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let told = told().await?;
    let alerts = told["policies"][0]["status"]["alerts"].as_array().cloned().unwrap_or_default();
    let fired: Vec<&str> = alerts.iter().filter_map(|alert| alert["rule"].as_str()).collect();
    assert_eq!(fired, ["somebody-leads"], "the start is no alert: {told}");
    let notice = &told["policies"][0]["notices"][alerts[0]["fingerprint"].as_str().unwrap_or_default()];
    assert_eq!(notice["summary"], "laptop is led");
    assert_eq!((&notice["value"], &notice["runbookUrl"]), (&1.0.into(), &"https://example.org/led".into()));
    Ok(())
}
