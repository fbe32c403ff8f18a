//! The command line as a shell meets it: variables of the environment, readers that go away, ports that are taken.

mod process;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use process::{Running, free_port};

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
    let mut line = format!("start --data-dir {} --worker-port {}", folder.path().display(), taken.local_addr()?.port());
    for option in ["--port", "--coordinator-port", "--meta-port"] {
        line.push_str(&format!(" {option} {}", free_port()?));
    }
    let (code, said) = ended(&line, &[])?;
    assert!(code == Some(1) && said.contains("can't listen on") && !said.contains("serving"), "{said}");
    Ok(())
}
