//! A local store whose process is killed at random while it writes large checkpoints. Nothing else runs beside it: a process
//! that is about to begin has the files of this one open for a moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails, its helpers too"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hebb_log::{Claimed, EntryId, Kept, LocalConfig, LocalStore, Log, PartitionKey, Record};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Where the process that is killed keeps its data.
const DIRECTORY: &str = "HEBB_TEST_KILLED_DIRECTORY";
const ROUNDS: u64 = 16;
/// The longest that the process lives after its first checkpoint: it writes one within some tens of milliseconds.
const LIFE_MAX_MS: u64 = 250;
const PIECES: TableDefinition<'_, (u32, u64, u32), &[u8]> = TableDefinition::new("pieces");
const FILE: &str = "hebb.redb";
const LEASE: Duration = Duration::from_secs(60);

fn key() -> PartitionKey {
    PartitionKey { domain: "killed".to_owned(), index: 0 }
}

/// The state after so many entries: none to eight pieces.
fn state(number: u64) -> Vec<u8> {
    let bytes = 1_000 + number as usize % 9 * 450_000;
    (0..bytes).map(|at| number as u8 ^ (at >> 10) as u8).collect()
}

/// A process that is killed at the latest when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has a process write checkpoints and kills it; the number of the last one that it knew to be stored.
fn kill(directory: &Path, after: Duration) -> u64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "the_process_that_is_killed"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let stored = |line: String| line.strip_prefix("stored ").and_then(|number| number.parse().ok());
    let first = lines.by_ref().find_map(stored).unwrap();
    std::thread::sleep(after);
    drop(child);
    lines.filter_map(stored).last().unwrap_or(first)
}

/// Of how many states the file of a closed store has pieces.
fn states_in_pieces(directory: &Path) -> usize {
    let file = Database::open(directory.join(FILE)).unwrap();
    let pieces = file.begin_read().unwrap().open_table(PIECES).unwrap();
    let serials: BTreeSet<u64> = pieces.iter().unwrap().map(|piece| piece.unwrap().0.value().1).collect();
    serials.len()
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_a_checkpoint_whole_and_what_follows_it() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for round in 0..ROUNDS {
        let stored = kill(directory.path(), Duration::from_millis(rand::random_range(0..LIFE_MAX_MS)));
        let is_kept = runtime.block_on(async {
            let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
            let newest = store.load(&key()).await.unwrap().unwrap();
            let fallback = store.fallback(&key()).await.unwrap();
            assert_eq!(fallback.as_ref().map(|kept| kept.position), newest.kept.map(|kept| kept.position));
            let entries = store.read(&key(), EntryId::default(), 1_000, Duration::ZERO).await.unwrap();
            let number = |record: &Record| u64::from_le_bytes(record.entry[..].try_into().unwrap());
            // What follows the fallback is there without a gap; without one, what follows the checkpoint.
            let numbers: Vec<u64> = entries.iter().map(|(_, record)| number(record)).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "round {round}: {numbers:?}");
            let until = entries.iter().filter(|(id, _)| *id <= newest.position).count() as u64;
            assert_eq!(until, newest.kept.map_or(0, |kept| kept.entries), "round {round}");
            let of = |state: &[u8]| u64::from_le_bytes(state[..8].try_into().unwrap());
            let at = of(&newest.state);
            assert!(at >= stored, "round {round}: {at} after {stored}");
            assert!(newest.state[8..] == state(at), "round {round}: checkpoint {at}");
            if let Some(fallback) = &fallback {
                let at = of(&fallback.state);
                assert!(fallback.state[8..] == state(at), "round {round}: fallback {at}");
            }
            fallback.is_some()
        });
        let found = states_in_pieces(directory.path());
        assert!(found <= 1 + usize::from(is_kept), "round {round}: pieces of {found} states");
        let size = std::fs::metadata(directory.path().join(FILE)).unwrap().len();
        assert!(size < 40 << 20, "round {round}: {size} bytes");
    }
}

#[tokio::test]
#[ignore = "a part of the test above, which runs it as a process of its own"]
async fn the_process_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = LocalStore::open(directory, LocalConfig::default()).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(), "worker-0", None, LEASE).await.unwrap() else { panic!("held") };
    // Everything that was appended counts, whether a checkpoint has it or not.
    let newest = store.load(&key()).await.unwrap();
    let (mut position, mut number) = newest.as_ref().map_or((EntryId::default(), 0), |newest| {
        (newest.position, u64::from_le_bytes(newest.state[..8].try_into().unwrap()))
    });
    let left = store.read(&key(), position, 1_000, Duration::ZERO).await.unwrap();
    if let Some((last, record)) = left.last() {
        (position, number) = (*last, u64::from_le_bytes(record.entry[..].try_into().unwrap()));
    }
    loop {
        let before = store.load(&key()).await.unwrap();
        for _ in 0..3 {
            number += 1;
            let record = Record { entry: number.to_le_bytes().to_vec().into(), reply_to: None };
            position = store.append(&key(), &[record], 1_000).await.unwrap()[0];
        }
        // Every other pair of checkpoints keeps the one before.
        let kept = before.filter(|_| number / 3 % 2 == 0).map(|before| {
            let at = u64::from_le_bytes(before.state[..8].try_into().unwrap());
            Kept { position: before.position, since: position, entries: number - at, bytes: 8 * (number - at) }
        });
        let state = [&number.to_le_bytes()[..], &state(number)].concat();
        store.checkpoint(&claim, position, &state, kept).await.unwrap();
        println!("stored {number}");
    }
}
