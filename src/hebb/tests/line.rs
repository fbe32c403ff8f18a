//! The command line as a shell meets it: variables of the environment, readers that go away, ports that are taken.

mod process;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use serde_json::Value;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What clap ends with where it doesn't take a line.
const MISUSED: Option<i32> = Some(2);
/// A folder that nobody can make: `hebb start` ends once it has understood everything else.
const NOWHERE: &str = "/dev/null/data";

fn hebb(line: &str, variables: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    let set = variables.iter().copied().chain([("KUBECONFIG", "/dev/null/config")]);
    Ok(command.env_clear().envs(set).args(line.split(' ')).stdin(Stdio::null()).output()?)
}

/// How it ended, and what it said of that.
fn ended(line: &str, variables: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let output = hebb(line, variables)?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[test]
fn who_has_seen_enough_ends_a_command_quietly() -> Result {
    for line in ["crd", "completion bash"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
        command.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn()?);
        // More is printed than a pipe holds, so that the reader is gone before all of it is written.
        let mut reader = BufReader::with_capacity(16, running.0.stdout.take().ok_or("no output")?);
        reader.read_line(&mut String::new())?;
        drop(reader);
        let mut said = String::new();
        running.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
        let status = running.0.wait()?;
        assert!(status.success() && said.is_empty(), "{line}: {status}: {said}");
    }
    Ok(())
}

#[test]
fn variables_for_the_one_form_of_a_command_leave_the_other_alone() -> Result {
    let variables = [
        ("HEBB_COORDINATOR", "http://127.0.0.1:1"),
        ("HEBB_INTERNAL_TOKEN", "secret"),
        ("CONFIG_PATH", "/dev/null/cluster.yaml"),
    ];
    for line in ["status demo", "backup demo", "restore demo-2 --like demo"] {
        let (code, said) = ended(line, &variables)?;
        assert!(code == Some(1) && said.contains("there is no way to a cluster"), "{line}: {said}");
    }
    let (code, said) = ended("top --cluster demo --summary", &variables)?;
    assert_eq!(code, Some(1), "{said}");
    // That of the other form is read where it is meant.
    let (code, said) = ended("backup verify /dev/null/backups", &variables)?;
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = ended("backup --to /dev/null/backups", &variables)?;
    assert!(code == Some(1) && said.contains("can't read /dev/null/cluster.yaml"), "{said}");
    assert_eq!(ended("status demo --token secret", &[])?.0, MISUSED);
    Ok(())
}

#[test]
fn an_empty_variable_is_none() -> Result {
    let empty = ["CONFIG_PATH", "NODE_ROLE", "NUM_WORKERS", "LOG_LEVEL", "REDIS_URL", "META_PORT", "HEBB_RATE_LIMIT"];
    let empty: Vec<(&str, &str)> = empty.into_iter().map(|name| (name, "")).collect();
    let (code, said) = ended(&format!("start --data-dir {NOWHERE}"), &empty)?;
    assert!(code == Some(1) && said.contains(NOWHERE), "{said}");
    assert_eq!(ended("start", &[("NUM_WORKERS", "few")])?.0, MISUSED);
    Ok(())
}

#[test]
fn yes_and_no_are_understood_as_people_write_them() -> Result {
    for name in ["AUTOSTART_META_LEARNING", "HEBB_SKIP_UNREADABLE", "DISABLE_RATE_LIMIT"] {
        for value in ["1", "0", "TRUE", "true", "False", "no"] {
            let (code, said) = ended(&format!("start --data-dir {NOWHERE}"), &[(name, value)])?;
            assert_eq!(code, Some(1), "{name}={value}: {said}");
        }
        assert_eq!(ended("start", &[(name, "perhaps")])?.0, MISUSED, "{name}");
    }
    Ok(())
}

#[test]
fn what_would_be_ignored_or_impossible_is_refused_with_its_name() -> Result {
    for (line, variables, wanted) in [
        ("crd", &[("LOG_LEVEL", "inof")][..], "LOG_LEVEL=inof: inof is no level"),
        (r#"start --rate-limit {"requestsPerSecond":0}"#, &[], "requestsPerSecond: must be between 1 and 1000000"),
        ("config validate /dev/null", &[], "the file holds no LearningCluster and no AlertPolicy"),
        ("start -f /dev/null", &[], "the file holds no LearningCluster and no AlertPolicy"),
        ("start --data-dir d", &[("REDIS_HOST", "r")], "--redis-host (REDIS_HOST) in a Redis"),
        ("start --data-dir d", &[("REDIS_URL", "redis://r")], "cannot be used with"),
        ("start", &[("REDIS_CLUSTER", "maybe")], "neither true nor false"),
        ("status --coordinator 127.0.0.1:1", &[], "no coordinator answers at http://127.0.0.1:1: "),
        ("history --url 127.0.0.1:1", &[], "no coordinator answers at http://127.0.0.1:1: "),
        ("top --summary --url 127.0.0.1:1", &[], "no coordinator answers at http://127.0.0.1:1: "),
        ("reset demo --yes --url 127.0.0.1:1", &[], "no gateway answers at http://127.0.0.1:1: "),
    ] {
        let (code, said) = ended(line, variables)?;
        assert!(matches!(code, Some(1 | 2)) && said.contains(wanted), "{line}: {said}");
    }
    assert_eq!(ended("crd", &[("LOG_LEVEL", "WARNING")])?.0, Some(0));
    Ok(())
}

#[test]
fn who_cannot_listen_does_not_say_that_it_serves() -> Result {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let data = folder.path().join("data");
    let mut line = format!("start --data-dir {} --worker-port {}", data.display(), taken.local_addr()?.port());
    for option in ["--port", "--coordinator-port", "--meta-port"] {
        line.push_str(&format!(" {option} {}", free_port()?));
    }
    let (code, said) = ended(&line, &[])?;
    assert!(code == Some(1) && said.contains("can't listen on") && !said.contains("serving"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "a folder is left of a start that failed");
    Ok(())
}

/// Everything has started within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// `hebb start` on free ports, which logs nothing, and what it says beside that.
fn start(data: &Path) -> Result<(Running, BufReader<ChildStderr>)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    command.env_clear().env("LOG_LEVEL", "off").args(["start", "--data-dir"]).arg(data);
    for option in ["--port", "--coordinator-port", "--meta-port", "--worker-port"] {
        command.args([option, "0"]);
    }
    let mut running = Running(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let said = running.0.stderr.take().ok_or("no errors")?;
    Ok((running, BufReader::new(said)))
}

/// Sends a signal, and waits for the end.
fn signalled(running: &mut Running, signal: &str) -> Result<Option<i32>> {
    let sent = Command::new("kill").args([signal, &running.0.id().to_string()]).status()?;
    assert!(sent.success());
    Ok(running.0.wait()?.code())
}

#[test]
fn where_it_serves_and_whom_is_said_whatever_is_logged() -> Result {
    let folder = tempfile::tempdir()?;
    let (mut running, said) = start(&folder.path().join("data"))?;
    let lines: Vec<String> = said.lines().take(2).collect::<std::io::Result<_>>()?;
    let word = |before: &str| {
        let rest = lines[0].split_once(before).map(|(_, rest)| rest).unwrap_or_default();
        rest.split([',', ' ']).next().unwrap_or_default().to_owned()
    };
    assert!(lines[1].contains("the API asks for no key; only this machine reaches it"), "{lines:?}");
    let since = Instant::now();
    while !hebb(&format!("status --coordinator {}", word("dashboard at ")), &[])?.status.success() {
        assert!(since.elapsed() < PATIENCE, "{lines:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    for place in ["API at ", "meta-learning at ", "workers at "] {
        let address = word(place).replace("http://", "");
        assert!(std::net::TcpStream::connect(&address).is_ok(), "{place}{address}: {lines:?}");
    }
    assert_eq!(signalled(&mut running, "-TERM")?, Some(0));
    Ok(())
}

#[test]
fn a_backup_is_told_as_json_and_one_that_is_broken_fails_the_list() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (mut running, mut said) = start(Path::new(&path("data")))?;
    said.read_line(&mut String::new())?;
    assert_eq!(signalled(&mut running, "-INT")?, Some(0));

    let json = |line: &str| -> Result<Value> {
        let output = hebb(line, &[])?;
        assert!(output.status.success(), "{line}: {}", String::from_utf8(output.stderr)?);
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let (data, backups, restored) = (path("data"), path("backups"), path("restored"));
    let taken = json(&format!("backup --to {backups} --data-dir {data} -o json"))?;
    let name = taken["backup"].as_str().unwrap_or_default().to_owned();
    let filled = json(&format!("restore --from {backups} --data-dir {restored} -o json"))?;
    assert_eq!((&filled["backup"], &filled["bytes"]), (&taken["backup"], &taken["bytes"]));
    for option in ["-o json", "--json"] {
        assert_eq!(json(&format!("backup verify {backups} {option}"))?["backup"], taken["backup"]);
    }
    let listed = json(&format!("backup list {backups} -o json"))?;
    assert_eq!(
        (&listed["backups"][0]["backup"], &listed["backups"][0]["state"]),
        (&taken["backup"], &"complete".into())
    );

    std::fs::write(Path::new(&backups).join(&name), "rotten")?;
    let output = hebb(&format!("backup list {backups}"), &[])?;
    let (table, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.code() == Some(1) && table.contains("BROKEN: "), "{table}");
    assert!(said.contains(&name), "{said}");
    Ok(())
}

#[test]
fn a_benchmark_that_is_stopped_leaves_nothing_behind() -> Result {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
        command.args(["benchmark", "--workers", "2", "--signals", "200000"]).env("TMPDIR", folder.path());
        let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let since = Instant::now();
        while std::fs::read_dir(folder.path())?.next().is_none() {
            assert!(since.elapsed() < PATIENCE, "nothing was made");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(signalled(&mut running, signal)?, Some(code));
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "{signal}");
    }
    Ok(())
}

#[test]
fn what_is_printed_is_printed_as_json_too() -> Result {
    let folder = tempfile::tempdir()?;
    let stream = folder.path().join("stream.csv");
    let rows: String = (0..50).map(|row| format!("{},{}\n", row % 7, f64::from(row % 7) * 1.5)).collect();
    std::fs::write(&stream, format!("x,y\n{rows}"))?;
    let stream = stream.display();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let policy = examples.join("alertpolicy-defaults.yaml").display().to_string();
    for (line, field) in [
        ("keys new --name alice -o json".to_owned(), "/key"),
        ("demo --events 1000 -o json".to_owned(), "/report/accuracy"),
        (format!("evaluate {stream} --label y -o json"), "/baselines/mean/rmse"),
        (format!("evaluate {stream} --label y --task classification --json"), "/accuracy"),
        ("simulate --duration 10s --rate 1 -o json".to_owned(), "/passed"),
        (format!("config validate {policy} -o json"), "/files/0/alertPolicies"),
        (format!("alerts route -f {policy} --labels severity=Critical -o json"), "/policies/0/explanation/0"),
    ] {
        let output = hebb(&line, &[])?;
        let said: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("{line}: {error}"))?;
        assert!(output.status.success() && said.pointer(field).is_some(), "{line}: {said}");
    }
    let output = hebb(&format!("evaluate {stream} --label y"), &[])?;
    let said = String::from_utf8(output.stdout)?;
    assert!(said.starts_with("regression: the labels are numbers"), "{said}");
    Ok(())
}

#[test]
fn every_file_that_is_wrong_is_named_and_standard_input_is_one() -> Result {
    let folder = tempfile::tempdir()?;
    let mut line = "config validate".to_owned();
    for (name, replicas) in [("good", 1), ("bad", -1), ("worse", -2)] {
        let file = folder.path().join(name);
        std::fs::write(
            &file,
            format!(
                "apiVersion: hebb.dev/v1alpha1\nkind: LearningCluster\nmetadata: {{name: a}}\nspec: {{workers: {{replicas: {replicas}}}}}\n"
            ),
        )?;
        line.push_str(&format!(" {}", file.display()));
    }
    let (code, said) = ended(&line, &[])?;
    assert_eq!((code, said.matches("spec.workers.replicas").count()), (Some(1), 2), "{said}");

    let good = folder.path().join("good");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    let read = command.args(["config", "validate", "-"]).stdin(std::fs::File::open(&good)?).output()?;
    assert!(read.status.success(), "{}", String::from_utf8(read.stderr)?);
    assert_eq!(ended("config validate", &[("CONFIG_PATH", &good.display().to_string())])?.0, Some(0));
    Ok(())
}
