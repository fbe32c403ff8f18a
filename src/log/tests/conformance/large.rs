//! Entries of a megabyte, between many that are small.

use std::time::{Duration, Instant};

use hebb_log::{EntryId, Log, LogError, PartitionKey, Record, RedisConfig, RedisStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use crate::server::Server;

/// Entries that are read at once.
const BATCH: usize = 256;

fn key() -> PartitionKey {
    PartitionKey { domain: "large".to_owned(), index: 0 }
}

fn records(count: usize, bytes: usize) -> Vec<Record> {
    vec![Record { entry: vec![7; bytes].into(), reply_to: None }; count]
}

/// Passes everything on, what comes from the server no faster than so many bytes a second.
async fn slow_link(server: &Server, bytes_per_second: u32) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (own, port) = (listener.local_addr().unwrap().port(), server.port);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut chunk = vec![0; 256 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut chunk).await {
                    tokio::time::sleep(Duration::from_secs(1) * count as u32 / bytes_per_second).await;
                    if to_client.write_all(&chunk[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_come_over_a_slow_link() {
    let server = Server::start("no");
    let direct = server.store("slow").await;
    for _ in 0..4 {
        direct.append(&key(), &records(8, 1 << 20), 1_000).await.unwrap();
    }
    let port = slow_link(&server, 5 << 20).await;
    let store = RedisStore::connect(RedisConfig {
        password: server.config("slow").password,
        ..RedisConfig::new("127.0.0.1", port, "slow")
    });
    let (store, begun) = (store.await.unwrap(), Instant::now());
    let (mut after, mut read) = (EntryId::default(), 0);
    while read < 32 {
        match store.read(&key(), after, BATCH, Duration::ZERO).await {
            Ok(entries) => (after, read) = (entries.last().unwrap().0, read + entries.len()),
            Err(LogError::Unavailable(_)) => assert!(begun.elapsed() < Duration::from_secs(60), "{read} entries"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(read, 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_entries_take_one_call_a_batch() {
    let server = Server::start("no");
    let store = server.store("small").await;
    for _ in 0..12 {
        store.append(&key(), &records(BATCH, 200), u64::MAX).await.unwrap();
    }
    let calls = || {
        let statistics = server.ask(crate::server::PASSWORD, &["INFO", "commandstats"]);
        let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_xread:calls="));
        calls.and_then(|calls| calls.split(',').next()?.parse::<u32>().ok()).unwrap()
    };
    let mut after = EntryId::default();
    let mut first = 0;
    for number in 0..12 {
        let entries = store.read(&key(), after, BATCH, Duration::from_millis(100)).await.unwrap();
        assert_eq!(entries.len(), BATCH);
        after = entries[BATCH - 1].0;
        if number == 0 {
            first = calls();
        }
    }
    assert!(first <= 5, "{first} calls of a reader that knows nothing yet");
    assert_eq!(calls() - first, 11);
}
