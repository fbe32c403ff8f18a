//! States of a local store that are too large for one commit, looked at in its file.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use hebb_log::{Claim, Claimed, EntryId, Kept, LocalConfig, LocalStore, Log, LogError, PartitionKey, Record};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const LONG: Duration = Duration::from_secs(60);
const FILE: &str = "hebb.redb";
/// A state of so many bytes is in [`PIECES`].
const BYTES: usize = 2_000_000;
const PIECES: usize = 4;

type Row = (u64, u64, u64, &'static [u8]);
const CHECKPOINTS: TableDefinition<'_, u32, Row> = TableDefinition::new("checkpoints");
const FALLBACKS: TableDefinition<'_, u32, Row> = TableDefinition::new("fallbacks");
const STORED: TableDefinition<'_, (u32, u64, u32), &[u8]> = TableDefinition::new("pieces");

/// What the file of a closed store has of states.
pub struct Stored {
    /// The bytes of the rows of checkpoints and of fallbacks.
    pub rows: Vec<usize>,
    /// The states that are in pieces.
    pub states: usize,
    /// All pieces.
    pub pieces: usize,
    /// The most bytes of one.
    pub largest: usize,
}

impl Stored {
    pub fn of(directory: &Path) -> Self {
        let file = Database::open(directory.join(FILE)).unwrap();
        let read = file.begin_read().unwrap();
        let mut rows = Vec::new();
        for table in [CHECKPOINTS, FALLBACKS] {
            let table = read.open_table(table).unwrap();
            rows.extend(table.iter().unwrap().map(|row| row.unwrap().1.value().3.len()));
        }
        let (mut states, mut pieces, mut largest) = (BTreeSet::new(), 0, 0);
        for piece in read.open_table(STORED).unwrap().iter().unwrap() {
            let (place, piece) = piece.unwrap();
            let (number, serial, _) = place.value();
            states.insert((number, serial));
            (pieces, largest) = (pieces + 1, largest.max(piece.value().len()));
        }
        Self { rows, states: states.len(), pieces, largest }
    }
}

fn key(index: u32) -> PartitionKey {
    PartitionKey { domain: "pieces".to_owned(), index }
}

fn record() -> Record {
    Record { entry: "entry".into(), reply_to: None }
}

async fn append(store: &LocalStore, index: u32) -> EntryId {
    store.append(&key(index), &[record()], 1_000).await.unwrap()[0]
}

async fn open(directory: &Path) -> LocalStore {
    LocalStore::open(directory, LocalConfig::default()).await.unwrap()
}

async fn new_claim(store: &LocalStore, owner: &str) -> Claim {
    match store.claim(&key(0), owner, None, LONG).await.unwrap() {
        Claimed::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn state(number: u8) -> Vec<u8> {
    (0..BYTES).map(|at| number ^ (at >> 12) as u8).collect()
}

/// What a SIGKILL would leave of a store that has nothing under way.
fn crash(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join(FILE), to.join(FILE)).unwrap();
}

#[tokio::test]
async fn a_crash_after_any_commit_leaves_one_checkpoint_whole_and_no_piece_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let (live, copy) = (directory.path().join("live"), directory.path().join("copy"));
    let store = open(&live).await;
    let claim = new_claim(&store, "worker-0").await;
    let [first, second, third] = [append(&store, 0).await, append(&store, 0).await, append(&store, 0).await];
    store.checkpoint(&claim, first, &state(1), None).await.unwrap();

    let kept = Kept { position: first, since: second, entries: 1, bytes: 5 };
    let (newer, newest) = (state(2), state(3));
    let wanted = [(first, &state(1)), (second, &newer), (third, &newest)];
    let mut steps = Vec::new();
    for (number, kept) in [(1, Some(kept)), (2, None)] {
        let (position, state) = wanted[number];
        let mut written = pin!(store.checkpoint(&claim, position, state, kept));
        loop {
            // It goes on by one commit at most, which has happened when the one after it has.
            let done = futures::poll!(&mut written);
            append(&store, 1).await;
            crash(&live, &copy);
            let crashed = open(&copy).await;
            let found = crashed.load(&key(0)).await.unwrap().unwrap();
            let fallback = crashed.fallback(&key(0)).await.unwrap();
            let left = crashed.read(&key(0), EntryId::default(), 10, Duration::ZERO).await.unwrap();
            drop(crashed);
            let stands = wanted.iter().position(|(position, _)| *position == found.position).unwrap();
            assert!(stands == number || stands + 1 == number, "step {}", steps.len());
            assert!(found.state == *wanted[stands].1, "step {}", steps.len());
            assert_eq!(fallback.is_some(), stands == 1);
            assert!(fallback.is_none_or(|fallback| fallback.position == first && fallback.state == *wanted[0].1));
            let before = if stands == 1 { 0 } else { stands };
            assert!(left.iter().map(|(id, _)| *id).eq([second, third].into_iter().skip(before)));
            let stored = Stored::of(&copy);
            let states = if stands == 1 { 2 } else { 1 };
            assert_eq!((stored.states, stored.pieces), (states, states * PIECES));
            assert!(stored.largest <= 512 << 10, "{} bytes", stored.largest);
            steps.push(stands);
            if let Poll::Ready(done) = done {
                done.unwrap();
                break;
            }
        }
    }
    let at = |stands| steps.iter().filter(|found| **found == stands).count();
    assert!(at(0) >= PIECES && at(1) >= PIECES, "{steps:?}");
    assert_eq!(steps.last(), Some(&2));
    // The store removes what isn't needed itself, without being opened anew.
    drop(store);
    assert_eq!(Stored::of(&live).pieces, PIECES);
}

#[tokio::test]
async fn what_was_given_up_goes_with_the_next_checkpoint_and_the_file_does_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let claim = new_claim(&store, "worker-0").await;
    let mut sizes = Vec::new();
    for number in 0..12 {
        let position = append(&store, 0).await;
        {
            let state = state(100);
            let mut given_up = pin!(store.checkpoint(&claim, position, &state, None));
            for _ in 0..PIECES - 1 {
                assert!(futures::poll!(&mut given_up).is_pending());
                append(&store, 1).await;
            }
        }
        store.checkpoint(&claim, position, &state(number), None).await.unwrap();
        assert!(store.load(&key(0)).await.unwrap().is_some_and(|stored| stored.state == state(number)));
        assert_eq!(store.status(&key(0)).await.unwrap().checkpoint_bytes, BYTES as u64);
        sizes.push(std::fs::metadata(directory.path().join(FILE)).unwrap().len());
    }
    assert!(sizes[11] <= sizes[3] && sizes[11] < 6 * BYTES as u64, "{sizes:?}");
    // A small one has no pieces.
    let position = append(&store, 0).await;
    store.checkpoint(&claim, position, b"small", None).await.unwrap();
    drop(store);
    assert_eq!(Stored::of(directory.path()).pieces, 0);
}

#[tokio::test]
async fn who_is_superseded_while_it_writes_pieces_writes_no_more_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let first = new_claim(&store, "worker-0").await;
    let positions = [append(&store, 0).await, append(&store, 0).await];
    let late = state(1);
    let mut late = Box::pin(store.checkpoint(&first, positions[1], &late, None));
    assert!(futures::poll!(&mut late).is_pending());
    store.release(&first).await.unwrap();
    let second = new_claim(&store, "worker-1").await;
    assert!(matches!(late.await, Err(LogError::Fenced)));
    assert_eq!(store.load(&key(0)).await.unwrap(), None);
    store.checkpoint(&second, positions[0], &state(2), None).await.unwrap();
    assert!(store.load(&key(0)).await.unwrap().is_some_and(|stored| stored.state == state(2)));
    drop(store);
    assert_eq!(Stored::of(directory.path()).pieces, PIECES);
}

#[tokio::test]
async fn of_two_checkpoints_at_once_the_later_one_stands() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let claim = new_claim(&store, "worker-0").await;
    let positions = [append(&store, 0).await, append(&store, 0).await];
    let given_up = state(1);
    let mut given_up = pin!(store.checkpoint(&claim, positions[0], &given_up, None));
    assert!(futures::poll!(&mut given_up).is_pending());
    store.checkpoint(&claim, positions[1], &state(2), None).await.unwrap();
    assert!(matches!(given_up.await, Err(LogError::Unavailable(_))));
    assert!(store.load(&key(0)).await.unwrap().is_some_and(|stored| stored.state == state(2)));
}

/// Writes rows as a version did that knew no pieces.
fn write_rows(directory: &Path, rows: &[(EntryId, &[u8])], without_pieces: bool) {
    let file = Database::open(directory.join(FILE)).unwrap();
    let write = file.begin_write().unwrap();
    for (position, state) in rows {
        let mut table = write.open_table(CHECKPOINTS).unwrap();
        table.insert(0, (position.at_ms, position.seq, 1, *state)).unwrap();
    }
    if without_pieces {
        assert!(write.delete_table(STORED).unwrap());
    }
    write.commit().unwrap();
}

#[tokio::test]
async fn a_large_state_of_an_earlier_version_is_read_kept_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let claim = new_claim(&store, "worker-0").await;
    let positions = [append(&store, 0).await, append(&store, 0).await, append(&store, 0).await];
    drop(store);
    let old = state(1);
    write_rows(directory.path(), &[(positions[0], &old)], true);

    let store = open(directory.path()).await;
    assert_eq!(store.status(&key(0)).await.unwrap().checkpoint_bytes, BYTES as u64);
    assert!(store.load(&key(0)).await.unwrap().is_some_and(|stored| stored.state == old && stored.epoch == 1));
    let kept = Kept { position: positions[0], since: positions[1], entries: 1, bytes: 5 };
    store.checkpoint(&claim, positions[1], &state(2), Some(kept)).await.unwrap();
    let fallback = store.fallback(&key(0)).await.unwrap().unwrap();
    assert_eq!((fallback.position, fallback.epoch), (positions[0], 1));
    assert!(fallback.state == old);
    drop(store);
    let stored = Stored::of(directory.path());
    assert_eq!((stored.states, stored.pieces), (2, 2 * PIECES));
    assert!(stored.rows.iter().all(|bytes| *bytes < 100), "{:?}", stored.rows);

    // An earlier version that took the fallback has replaced the newest one.
    write_rows(directory.path(), &[(positions[2], b"older")], false);
    let store = open(directory.path()).await;
    assert!(store.load(&key(0)).await.unwrap().is_some_and(|stored| stored.state == b"older"));
    drop(store);
    assert_eq!(Stored::of(directory.path()).pieces, PIECES, "those of the fallback");
}

#[tokio::test]
async fn a_state_that_lacks_a_piece_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let claim = new_claim(&store, "worker-0").await;
    store.checkpoint(&claim, EntryId::default(), &state(1), None).await.unwrap();
    drop(store);
    {
        let file = Database::open(directory.path().join(FILE)).unwrap();
        let write = file.begin_write().unwrap();
        let mut pieces = write.open_table(STORED).unwrap();
        assert!(pieces.pop_last().unwrap().is_some());
        drop(pieces);
        write.commit().unwrap();
    }
    let store = open(directory.path()).await;
    assert!(matches!(store.load(&key(0)).await, Err(LogError::Corrupt(_))));
}
