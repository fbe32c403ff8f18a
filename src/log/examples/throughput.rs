//! Prints how many entries a second go into and out of one partition.
//! `throughput [HOST:PORT]`: with an address a Redis without a password is measured too.

use std::error::Error;
use std::time::{Duration, Instant};

use hebb_log::{
    Durability, EntryId, LocalConfig, LocalStore, Log, PartitionKey, Record, RedisConfig, RedisStore, ReplyTo,
};

/// How long one figure is measured.
const PERIOD: Duration = Duration::from_secs(2);
/// Clients that append at the same time.
const CLIENTS: usize = 16;
const BATCHES: [usize; 3] = [1, 64, 1000];
/// About the size of an encoded event with eight features.
const ENTRY_BYTES: usize = 120;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<18} {:>6} {:>8} {:>12} {:>12}", "store", "batch", "clients", "appends/s", "reads/s");
    if let Some((host, port)) = std::env::args().nth(1).as_deref().and_then(|address| address.rsplit_once(':')) {
        let cluster = format!("throughput-{}", std::process::id());
        measure("redis", &RedisStore::connect(RedisConfig::new(host, port.parse()?, cluster)).await?).await?;
    }
    for durability in [Durability::EverySecond, Durability::Async] {
        let directory = tempfile::tempdir()?;
        let store = LocalStore::open(directory.path(), LocalConfig { durability }).await?;
        measure(&format!("local {durability:?}"), &store).await?;
    }
    measure("local in memory", &LocalStore::in_memory()?).await
}

async fn measure(name: &str, store: &impl Log) -> Result<(), Box<dyn Error>> {
    for batch in BATCHES {
        for clients in [1, CLIENTS] {
            let key = PartitionKey { domain: format!("b{batch}c{clients}"), index: 0 };
            let begun = Instant::now();
            let append = || async {
                let reply_to = Some(ReplyTo { gateway: "gateway-0".into(), request: 7 });
                let records = vec![Record { entry: vec![42; ENTRY_BYTES].into(), reply_to }; batch];
                let mut appended = 0;
                while begun.elapsed() < PERIOD {
                    appended += store.append(&key, &records, u64::MAX).await?.len();
                }
                Ok::<_, hebb_log::LogError>(appended)
            };
            let appended: usize =
                futures::future::try_join_all((0..clients).map(|_| append())).await?.into_iter().sum();
            let appends = appended as f64 / begun.elapsed().as_secs_f64();

            let begun = Instant::now();
            let (mut after, mut read) = (EntryId::default(), 0);
            while begun.elapsed() < PERIOD {
                let entries = store.read(&key, after, batch, Duration::ZERO).await?;
                let Some((last, _)) = entries.last() else {
                    break;
                };
                (after, read) = (*last, read + entries.len());
            }
            let reads = read as f64 / begun.elapsed().as_secs_f64();
            println!("{name:<18} {batch:>6} {clients:>8} {appends:>12.0} {reads:>12.0}");
        }
    }
    Ok(())
}
