//! What the documentation says is so: its commands run, and docs/features.md names every row, test and page that there is.
//!
//! A block of a page that begins with ```` ```sh run ```` is run by bash in a folder of its own page; one with `file=NAME` is
//! written there first. Commands find `hebb`, the tree's `examples`, a CSV file and free ports.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The rows of the requirements: a letter and how many there are.
const ROWS: [(char, usize); 6] = [('K', 14), ('L', 7), ('P', 10), ('M', 7), ('G', 7), ('A', 7)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A block has ended within this time.
const BLOCK_MAX_SECONDS: &str = "120";

/// Pages of the tree that may have blocks to run.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![root().join("README.md")];
    for folder in ["docs", "docs/runbooks"] {
        for entry in std::fs::read_dir(root().join(folder))? {
            pages.push(entry?.path());
        }
    }
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages.sort();
    Ok(pages)
}

/// The fenced blocks of a page: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

fn free_port() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}

/// A folder as the commands of a page expect it.
fn furnish(folder: &Path) -> Result {
    std::fs::create_dir(folder.join("bin"))?;
    for name in ["hebb", "kubectl-hebb"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hebb"), folder.join("bin").join(name))?;
    }
    std::os::unix::fs::symlink(root().join("examples").canonicalize()?, folder.join("examples"))?;
    let rows: String =
        (0..400).map(|row| format!("{},{},{}\n", row % 7, row % 3, if row % 3 == 0 { "a" } else { "b" })).collect();
    std::fs::write(folder.join("stream.csv"), format!("x,y,class\n{rows}"))?;
    Ok(())
}

#[test]
fn the_commands_in_the_pages_run() -> Result {
    let mut count = 0;
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        let blocks = blocks(&text);
        if !blocks.iter().any(|(info, _)| info == "sh run") {
            continue;
        }
        let folder = tempfile::tempdir()?;
        furnish(folder.path())?;
        for (info, text) in blocks {
            if let Some(name) = info.split_whitespace().find_map(|word| word.strip_prefix("file=")) {
                std::fs::write(folder.path().join(name), &text)?;
            }
            if info != "sh run" {
                continue;
            }
            let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
            let mut command = Command::new("timeout");
            command
                .args([BLOCK_MAX_SECONDS, "bash", "-euo", "pipefail", "-c", &text])
                .current_dir(folder.path())
                .env("PATH", path);
            for port in ["PORT", "COORDINATOR_PORT", "WORKER_PORT", "META_PORT"] {
                command.env(port, free_port()?);
            }
            let output = command.output()?;
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}\n{text}\n{}", page.display(), String::from_utf8_lossy(&said));
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} blocks are run: is the convention broken?");
    Ok(())
}

#[test]
fn every_shell_gets_a_script_and_bash_can_read_its_own() -> Result {
    for (shell, sign) in [("bash", "_hebb()"), ("zsh", "#compdef hebb"), ("fish", "complete -c hebb")] {
        let output = Command::new(env!("CARGO_BIN_EXE_hebb")).args(["completion", shell]).output()?;
        let script = String::from_utf8(output.stdout)?;
        assert!(script.contains(sign), "{shell}: {script}");
        assert!(script.contains("support-bundle"), "{shell} knows every subcommand");
        if shell == "bash" {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("hebb.bash");
            std::fs::write(&file, script)?;
            assert!(Command::new("bash").arg("-n").arg(file).status()?.success());
        }
    }
    Ok(())
}

/// Every test of the tree by its function's name.
fn tests(folder: &Path, names: &mut BTreeSet<String>) -> Result {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            tests(&path, names)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            for line in std::fs::read_to_string(&path)?.lines() {
                let line = line.trim();
                let line = line.strip_prefix("pub ").unwrap_or(line);
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                names.extend(name.and_then(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
            }
        }
    }
    Ok(())
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_list_of_features_names_every_row_and_only_tests_and_pages_that_there_are() -> Result {
    let text = std::fs::read_to_string(root().join("docs/features.md"))?;
    let makefile = std::fs::read_to_string(root().join("Makefile"))?;
    let mut known = BTreeSet::new();
    for folder in ["src", "e2e"] {
        tests(&root().join(folder), &mut known)?;
    }
    let wanted: Vec<String> =
        ROWS.iter().flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}"))).collect();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, state, proofs, page] = cells.as_slice() else { continue };
        if !wanted.iter().any(|wanted| wanted == id) {
            continue;
        }
        found.push((*id).to_owned());
        let is_done = *state == "done";
        assert!(is_done || state.starts_with("partly: ") || state.starts_with("missing: "), "{id}: {state}");
        assert!(!is_done || !quoted(proofs).is_empty(), "{id} is done and names no test");
        for proof in quoted(proofs) {
            let is_there = match proof.strip_prefix("make ") {
                Some(target) => makefile.contains(&format!("\n{target}:")),
                None => known.contains(proof) || root().join(proof).exists(),
            };
            assert!(is_there, "{id}: there is no {proof}");
        }
        let links: Vec<&str> = page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(!links.is_empty(), "{id} names no page");
        for link in links {
            let file = link.split('#').next().unwrap_or_default();
            assert!(root().join("docs").join(file).is_file(), "{id}: there is no page {link}");
        }
    }
    assert_eq!(found, wanted, "every row once, in order");
    Ok(())
}
