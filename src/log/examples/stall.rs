//! Prints how long appends to a local store wait while checkpoints of another domain are written.
//! `stall [MIB [ENTRIES [DIRECTORY]]]`: the size of a checkpoint, 95 by default; how many entries it trims off the log, each
//! appended alone, 2,000 by default; and where the data goes, a temporary folder by default.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hebb_log::{Claim, Claimed, Durability, EntryId, LocalConfig, LocalStore, Log, LogError, PartitionKey, Record};

const MIB: usize = 95;
const CHECKPOINTS: usize = 4;
const LEASE: Duration = Duration::from_secs(600);
const ENTRIES: usize = 2_000;
/// About the size of an encoded event with eight features.
const ENTRY_BYTES: usize = 120;
/// How long the appends are measured alone.
const ALONE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib = arguments.next().map_or(Ok(MIB), |mib| mib.parse())?;
    let entries = arguments.next().map_or(Ok(ENTRIES), |entries| entries.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<12} {:>14} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "durability", "meanwhile", "seconds", "appends", "median ms", "99% ms", "longest ms", "file MiB"
    );
    for durability in [Durability::EverySecond, Durability::Async] {
        let directory = tempfile::tempdir_in(&parent)?;
        let store = LocalStore::open(directory.path(), LocalConfig { durability }).await?;
        measure(&store, &format!("{durability:?}"), directory.path(), mib << 20, entries).await?;
        let begun = Instant::now();
        drop(store);
        LocalStore::open(directory.path(), LocalConfig { durability }).await?;
        println!("closed and opened again within {:.1} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn measure(
    store: &LocalStore,
    name: &str,
    directory: &Path,
    bytes: usize,
    entries: usize,
) -> Result<(), Box<dyn Error>> {
    let large = PartitionKey { domain: "large".to_owned(), index: 0 };
    let Claimed::New(claim) = store.claim(&large, "worker-0", None, LEASE).await? else { return Err("held".into()) };
    let alone = tokio::time::sleep(ALONE);
    report(name, "nothing", directory, appends(store, alone).await?)?;
    for number in 0..CHECKPOINTS {
        let state: Vec<u8> = (0..bytes).map(|at| (at ^ (at >> 8) ^ number) as u8).collect();
        let position = fill(store, &large, entries).await?;
        let written = checkpoint(store, &claim, position, &state);
        report(name, &format!("checkpoint {number}"), directory, appends(store, written).await?)?;
    }
    Ok(())
}

async fn checkpoint(store: &LocalStore, claim: &Claim, position: EntryId, state: &[u8]) {
    if let Err(error) = store.checkpoint(claim, position, state, None).await {
        println!("the checkpoint failed: {error}");
    }
}

async fn fill(store: &LocalStore, key: &PartitionKey, entries: usize) -> Result<EntryId, LogError> {
    let append = |_| async {
        let ids =
            store.append(key, &[Record { entry: vec![42; ENTRY_BYTES].into(), reply_to: None }], u64::MAX).await?;
        Ok::<_, LogError>(ids[0])
    };
    let ids = futures::future::try_join_all((0..entries).map(append)).await?;
    Ok(ids.into_iter().max().unwrap_or_default())
}

/// Appends one entry after the other to a domain of its own until something ends; how long each took.
async fn appends(store: &LocalStore, until: impl Future<Output = ()>) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (sender, mut ended) = tokio::sync::oneshot::channel();
    let store = store.clone();
    let appending = tokio::spawn(async move {
        let key = PartitionKey { domain: "small".to_owned(), index: 0 };
        let mut took = Vec::new();
        while let Err(tokio::sync::oneshot::error::TryRecvError::Empty) = ended.try_recv() {
            let begun = Instant::now();
            let record = Record { entry: vec![42; ENTRY_BYTES].into(), reply_to: None };
            store.append(&key, &[record], u64::MAX).await?;
            took.push(begun.elapsed());
        }
        Ok::<_, LogError>(took)
    });
    until.await;
    // An error of the appends is told below.
    let _ = sender.send(());
    Ok(appending.await??)
}

fn report(name: &str, meanwhile: &str, directory: &Path, mut took: Vec<Duration>) -> Result<(), Box<dyn Error>> {
    took.sort();
    let ms = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let seconds = took.iter().sum::<Duration>().as_secs_f64();
    let file = std::fs::metadata(directory.join("hebb.redb"))?.len() >> 20;
    println!(
        "{name:<12} {meanwhile:>14} {seconds:>8.1} {:>10} {:>10.2} {:>10.2} {:>10.1} {file:>9}",
        took.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    Ok(())
}
