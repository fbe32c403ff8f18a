//! Appending and reading.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{NO_WAIT, PLENTY, START, Store, key, record, records};
use crate::{EntryId, LogError, PartitionKey, Record, ReplyTo, bounds};

/// Order, ids, bytes and addressees.
pub async fn entries_come_back_in_order_and_byte_by_byte<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("order");
    let reply_to = |request| Some(ReplyTo { gateway: "gateway-0".into(), request });
    let all_bytes: Vec<u8> = (0..=255).collect();
    let written = vec![
        Record { entry: all_bytes.into(), reply_to: reply_to(u64::MAX) },
        record(""),
        Record { entry: Bytes::from_static(b"\r\n\0 "), reply_to: reply_to(0) },
        record(vec![7; 100_000]),
    ];
    let mut ids = store.append(&key, &written[..3], PLENTY).await?;
    ids.extend(store.append(&key, &written[3..], PLENTY).await?);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let read = store.read(&key, START, 10, NO_WAIT).await?;
    assert_eq!(read.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(read.into_iter().map(|(_, record)| record).eq(written));
    let two = store.read(&key, ids[0], 2, NO_WAIT).await?;
    assert_eq!(two.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[1..3]);
    assert!(store.read(&key, ids[3], 10, NO_WAIT).await?.is_empty());
    assert!(store.append(&key, &[], 0).await?.is_empty());
    Ok(())
}

/// An answer has a bounded size, and a reader knows whether it was all.
pub async fn large_entries_are_read_in_parts<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("large");
    let mut written = Vec::new();
    for part in 0..4_u8 {
        let large: Vec<Record> = (0..6).map(|number| record(vec![6 * part + number; 1 << 20])).collect();
        written.extend(store.append(&key, &large, PLENTY).await?.into_iter().zip(large));
    }
    written.extend(store.append(&key, &records(100), PLENTY).await?.into_iter().zip(records(100)));
    let mut read: Vec<(EntryId, Record)> = Vec::new();
    loop {
        let after = read.last().map_or(START, |(id, _)| *id);
        let part = store.read(&key, after, 256, NO_WAIT).await?;
        assert!(bounds::bytes(&part) < bounds::READ_ENOUGH_BYTES + (17 << 20), "{} entries", part.len());
        let may_go_on = bounds::may_go_on(&part, 256);
        read.extend(part);
        if !may_go_on {
            break;
        }
    }
    assert!(read == written, "{} of {}", read.len(), written.len());
    Ok(())
}

/// Nothing there, nothing wrong.
pub async fn an_empty_log_reads_as_nothing<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("empty");
    assert!(store.read(&key, START, 10, NO_WAIT).await?.is_empty());
    let begun = Instant::now();
    assert!(store.read(&key, START, 10, Duration::from_millis(200)).await?.is_empty());
    assert!(Duration::from_millis(150) < begun.elapsed());
    assert_eq!(store.load(&key).await?, None);
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length, status.owner, status.epoch), (0, 0, None, 0));
    assert_eq!((status.checkpointed, status.checkpoint_bytes), (None, 0));
    Ok(())
}

/// Neither domain nor index leaks into another.
pub async fn partitions_are_apart<S: Store>(store: &S) -> Result<(), LogError> {
    let keys = [("a", 0), ("a", 1), ("b", 0)].map(|(domain, index)| PartitionKey { domain: domain.to_owned(), index });
    for key in &keys {
        store.append(key, &[record(key.to_string())], 1).await?;
    }
    for key in &keys {
        let read = store.read(key, START, 10, NO_WAIT).await?;
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].1.entry, key.to_string().into_bytes());
    }
    Ok(())
}

/// A batch that doesn't fit is refused as a whole.
pub async fn a_full_log_takes_all_or_none<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("full");
    store.append(&key, &records(6), 10).await?;
    match store.append(&key, &records(5), 10).await {
        Err(LogError::Full { waiting: 6, max: 10 }) => {}
        other => {
            return Err(LogError::Corrupt(format!("a full log was wanted, {other:?} came")));
        }
    }
    assert_eq!(store.status(&key).await?.length, 6);
    store.append(&key, &records(4), 10).await?;
    assert!(matches!(store.append(&key, &records(1), 10).await, Err(LogError::Full { waiting: 10, max: 10 })));
    Ok(())
}

/// Nothing unbounded gets in.
pub async fn what_is_out_of_bounds_is_refused<S: Store>(store: &S) -> Result<(), LogError> {
    let fits = store.append(&key("fits"), &records(crate::MAX_RECORDS), PLENTY).await?;
    assert_eq!(fits.len(), crate::MAX_RECORDS);
    let many = store.append(&key("many"), &records(crate::MAX_RECORDS + 1), PLENTY).await;
    assert!(matches!(many, Err(LogError::Invalid(_))), "{many:?}");
    let large = store.append(&key("large"), &[record(vec![0; crate::MAX_BATCH_BYTES + 1])], PLENTY).await;
    assert!(matches!(large, Err(LogError::Invalid(_))));
    let longest = "n".repeat(crate::MAX_NAME_BYTES);
    store.append(&key(&longest), &[record("")], PLENTY).await?;
    for name in ["", "a{b}", "a/b", "a b", &"n".repeat(crate::MAX_NAME_BYTES + 1)] {
        let odd = store.append(&key(name), &records(1), PLENTY).await;
        assert!(matches!(odd, Err(LogError::Invalid(_))), "{name}: {odd:?}");
    }
    Ok(())
}

/// A reader needn't poll.
pub async fn a_waiting_read_is_woken<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("woken");
    let last = store.append(&key, &records(3), PLENTY).await?[2];
    let begun = Instant::now();
    let reading = store.read(&key, last, 10, Duration::from_secs(8));
    let appending = async {
        sleep(Duration::from_millis(100)).await;
        store.append(&key, &[record("new")], PLENTY).await
    };
    let (read, appended) = tokio::join!(reading, appending);
    assert_eq!(read?, vec![(appended?[0], record("new"))]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    Ok(())
}

/// A reader that waits holds up neither calls nor other readers; one that is dropped spoils nothing.
pub async fn a_blocked_read_blocks_nobody<S: Store>(store: &S) -> Result<(), LogError> {
    let (quiet, busy) = (key("quiet"), key("busy"));
    for round in 0..5_u8 {
        let abandoned = timeout(Duration::from_millis(20), store.read(&quiet, START, 1, Duration::from_secs(5))).await;
        assert!(abandoned.is_err(), "nothing was appended there");
        let begun = Instant::now();
        let reading = store.read(&quiet, START, 1, Duration::from_secs(2));
        let working = async {
            let id = store.append(&busy, &[record([round])], PLENTY).await?[0];
            let before = EntryId { at_ms: id.at_ms.saturating_sub(1), seq: u64::MAX };
            let read = store.read(&busy, before, 10, Duration::from_secs(1)).await?;
            assert_eq!(read.last(), Some(&(id, record([round]))));
            let elapsed = begun.elapsed();
            assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
            Ok::<_, LogError>(())
        };
        tokio::select! {
            read = reading => assert!(read?.is_empty()),
            done = working => done?,
        }
    }
    Ok(())
}

/// More readers than a pool has connections are all served.
pub async fn many_reads_wait_at_once<S: Store>(store: &S) -> Result<(), LogError> {
    let keys: Vec<PartitionKey> = (0..80).map(|index| PartitionKey { domain: "crowd".to_owned(), index }).collect();
    let read = |key| async move {
        loop {
            let read = store.read(key, START, 1, Duration::from_secs(1)).await?;
            if !read.is_empty() {
                return Ok::<_, LogError>(read.len());
            }
        }
    };
    let reading = futures::future::try_join_all(keys.iter().map(read));
    let appending = async {
        sleep(Duration::from_millis(300)).await;
        for key in &keys {
            store.append(key, &records(1), PLENTY).await?;
        }
        Ok::<_, LogError>(())
    };
    let (counts, ()) = tokio::try_join!(reading, appending)?;
    assert_eq!(counts, vec![1; keys.len()]);
    Ok(())
}

/// Concurrent appends lose nothing and keep the order within each.
pub async fn appends_at_the_same_time_are_all_there<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("concurrent");
    let batches: Vec<Vec<Record>> = (0..20_u8).map(|writer| (0..10).map(|n| record([writer, n])).collect()).collect();
    let ids = futures::future::try_join_all(batches.iter().map(|batch| store.append(&key, batch, PLENTY))).await?;
    let mut wanted: Vec<(EntryId, Record)> = ids.into_iter().flatten().zip(batches.into_iter().flatten()).collect();
    wanted.sort_by_key(|(id, _)| *id);
    assert_eq!(store.read(&key, START, 1000, NO_WAIT).await?, wanted);
    Ok(())
}
