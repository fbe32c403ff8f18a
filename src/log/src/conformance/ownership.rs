//! Claims, fencing, checkpoints, progress.

use std::pin::pin;

use tokio::time::sleep;

use super::{AFTER_SHORT, LONG, NO_WAIT, PLENTY, SHORT, START, Store, key, new_claim, records};
use crate::{Checkpoint, Claim, Claimed, EntryId, Kept, LogError};

/// The three answers to a claim.
pub async fn a_claim_is_new_resumed_or_held<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("claims");
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    assert_eq!((first.owner.as_str(), &first.partition), ("worker-0", &key));
    match store.claim(&key, "worker-1", None, LONG).await? {
        Claimed::Held { owner, expires_in } => {
            assert_eq!(owner, "worker-0");
            assert!(expires_in <= LONG && LONG / 2 < expires_in, "{expires_in:?}");
        }
        other => return Err(LogError::Corrupt(format!("{other:?}"))),
    }
    assert_eq!(store.claim(&key, "worker-0", Some(&first), LONG).await?, Claimed::Resumed(first.clone()));
    // The same worker, started anew: it has no state in memory, so its own old lease holds it off.
    assert!(matches!(store.claim(&key, "worker-0", None, LONG).await?, Claimed::Held { .. }));
    let status = store.status(&key).await?;
    assert_eq!((status.owner.as_deref(), status.epoch), (Some("worker-0"), first.epoch));
    Ok(())
}

/// After a lease the next may come, or the last again.
pub async fn an_expired_lease_is_for_the_taking<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("expiry");
    let first = new_claim(store, &key, "worker-0", SHORT).await?;
    sleep(AFTER_SHORT).await;
    assert_eq!(store.status(&key).await?.owner, None);
    assert_eq!(store.claim(&key, "worker-0", Some(&first), SHORT).await?, Claimed::Resumed(first.clone()));
    sleep(AFTER_SHORT).await;
    store.renew(&first, SHORT).await?;
    assert!(matches!(store.claim(&key, "worker-1", None, LONG).await?, Claimed::Held { .. }));
    sleep(AFTER_SHORT).await;
    let second = new_claim(store, &key, "worker-1", LONG).await?;
    assert!(first.epoch < second.epoch && first.token != second.token);
    assert!(matches!(store.claim(&key, "worker-0", Some(&first), LONG).await?, Claimed::Held { .. }));
    store.release(&second).await?;
    let third = store.claim(&key, "worker-0", Some(&first), LONG).await?;
    assert!(matches!(&third, Claimed::New(claim) if second.epoch < claim.epoch), "{third:?}");
    Ok(())
}

/// Renewal moves the end.
pub async fn a_renewed_lease_holds<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("renewal");
    let claim = new_claim(store, &key, "worker-0", SHORT).await?;
    store.renew(&claim, LONG).await?;
    sleep(AFTER_SHORT).await;
    assert!(matches!(store.claim(&key, "worker-1", None, LONG).await?, Claimed::Held { .. }));
    Ok(())
}

/// Release is at once, and only of one's own.
pub async fn a_released_partition_is_free<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("release");
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    store.release(&first).await?;
    assert_eq!(store.status(&key).await?.owner, None);
    let second = new_claim(store, &key, "worker-1", LONG).await?;
    store.release(&first).await?;
    assert_eq!(store.status(&key).await?.owner.as_deref(), Some("worker-1"));
    store.renew(&second, LONG).await?;
    Ok(())
}

/// Whoever was superseded writes nothing any more.
pub async fn a_superseded_owner_is_fenced<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("fencing");
    let ids = store.append(&key, &records(4), PLENTY).await?;
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    store.checkpoint(&first, ids[0], b"first", None).await?;
    store.release(&first).await?;
    let second = new_claim(store, &key, "worker-1", LONG).await?;
    let before = store.status(&key).await?;
    assert!(matches!(store.checkpoint(&first, ids[3], b"stale", None).await, Err(LogError::Fenced)));
    assert!(matches!(store.renew(&first, LONG).await, Err(LogError::Fenced)));
    assert!(matches!(store.progress(&first, 3).await, Err(LogError::Fenced)));
    store.release(&first).await?;
    for forged in
        [Claim { epoch: second.epoch - 1, ..second.clone() }, Claim { token: String::new(), ..second.clone() }]
    {
        assert!(matches!(store.progress(&forged, 3).await, Err(LogError::Fenced)));
    }
    assert_eq!(store.status(&key).await?, before);
    let kept = store.load(&key).await?;
    assert!(kept.is_some_and(|kept| kept.state == b"first" && kept.epoch == first.epoch && kept.position == ids[0]));
    store.checkpoint(&second, ids[3], b"second", None).await?;
    Ok(())
}

/// Up to the position and no further.
pub async fn a_checkpoint_trims_exactly<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("trim");
    let ids = store.append(&key, &records(1000), PLENTY).await?;
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    store.checkpoint(&claim, ids[499], b"\0state\xff", None).await?;
    let left = store.read(&key, START, 1000, NO_WAIT).await?;
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[500..]);
    let stored = store.load(&key).await?;
    assert!(stored.is_some_and(|stored| stored.position == ids[499]
        && stored.epoch == claim.epoch
        && stored.state == b"\0state\xff"));
    let status = store.status(&key).await?;
    assert_eq!((status.checkpointed, status.checkpoint_bytes), (Some(ids[499]), 7));
    store.checkpoint(&claim, ids[999], b"", None).await?;
    assert_eq!(store.status(&key).await?.length, 0);
    let next = store.append(&key, &records(1), PLENTY).await?[0];
    assert!(ids[999] < next, "an emptied log gives no id twice");
    assert_eq!(store.read(&key, ids[999], 10, NO_WAIT).await?.len(), 1);
    // A position ahead of the log, as after a loss of its end: what comes then is after it.
    let ahead = EntryId { at_ms: next.at_ms + 3_600_000, seq: 5 };
    store.checkpoint(&claim, ahead, b"ahead", None).await?;
    assert_eq!(store.status(&key).await?.length, 0);
    let after = store.append(&key, &records(1), PLENTY).await?[0];
    assert!(ahead < after, "{after}");
    assert_eq!(store.read(&key, ahead, 10, NO_WAIT).await?.len(), 1);
    Ok(())
}

/// A delayed retry of an older checkpoint changes nothing.
pub async fn a_checkpoint_never_goes_back<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("back");
    let ids = store.append(&key, &records(10), PLENTY).await?;
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    store.checkpoint(&claim, ids[7], b"new", None).await?;
    store.checkpoint(&claim, ids[3], b"old", None).await?;
    assert!(store.load(&key).await?.is_some_and(|stored| stored.position == ids[7] && stored.state == b"new"));
    store.checkpoint(&claim, ids[7], b"again", None).await?;
    assert!(store.load(&key).await?.is_some_and(|stored| stored.state == b"again"));
    Ok(())
}

/// A state of 20 MiB is nothing special.
pub async fn a_checkpoint_keeps_large_states<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("large");
    let id = store.append(&key, &records(1), PLENTY).await?[0];
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    let state: Vec<u8> = (0..20_u32 << 20).map(|n| (n % 251) as u8).collect();
    store.checkpoint(&claim, id, &state, None).await?;
    assert!(store.load(&key).await?.is_some_and(|stored| stored.state == state));
    Ok(())
}

/// Whoever loads meanwhile gets the former one or the new one, and what others append and read goes on.
pub async fn a_checkpoint_is_whole_while_it_is_replaced<S: Store>(store: &S) -> Result<(), LogError> {
    let (key, other) = (key("replaced"), super::key("undisturbed"));
    let ids = store.append(&key, &records(2), PLENTY).await?;
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    let states = [vec![1; 4 << 20], vec![2; 5 << 20]];
    store.checkpoint(&claim, ids[0], &states[0], None).await?;
    let is_whole = |found: &Checkpoint| {
        let number = usize::from(found.position == ids[1]);
        found.position == ids[number] && found.state == states[number]
    };
    let mut replaced = pin!(store.checkpoint(&claim, ids[1], &states[1], None));
    let mut last = EntryId::default();
    loop {
        tokio::select! {
            biased;
            done = &mut replaced => break done?,
            found = store.load(&key) => assert!(found?.as_ref().is_some_and(is_whole)),
        }
        let appended = store.append(&other, &records(1), PLENTY).await?[0];
        assert_eq!(store.read(&other, last, 10, NO_WAIT).await?.len(), 1);
        last = appended;
    }
    let found = store.load(&key).await?;
    assert!(found.is_some_and(|found| is_whole(&found) && found.position == ids[1]));
    Ok(())
}

/// The log since a fallback stays, over checkpoints and owners, until a checkpoint that keeps none.
pub async fn a_fallback_stands_with_its_log_beside_the_newest<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("fallback");
    let ids = store.append(&key, &records(10), PLENTY).await?;
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    store.checkpoint(&first, ids[1], b"old", None).await?;
    assert_eq!(store.fallback(&key).await?, None);
    assert_eq!(store.load(&key).await?.and_then(|newest| newest.kept), None);

    let kept = Kept { position: ids[1], since: ids[4], entries: 3, bytes: 30 };
    store.checkpoint(&first, ids[4], b"new", Some(kept)).await?;
    let newest = store.load(&key).await?;
    assert!(newest.is_some_and(|newest| newest.state == b"new" && newest.kept == Some(kept)));
    let fallback = store.fallback(&key).await?;
    let is_old = |fallback: &Checkpoint| (fallback.position, fallback.state.as_slice()) == (ids[1], b"old");
    assert!(fallback.as_ref().is_some_and(is_old), "{fallback:?}");
    assert_eq!(fallback.map(|fallback| (fallback.epoch, fallback.kept)), Some((first.epoch, None)));
    let left = store.read(&key, START, 100, NO_WAIT).await?;
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[2..]);

    // It outlives its owner, and who was superseded can't end it.
    store.release(&first).await?;
    let second = new_claim(store, &key, "worker-1", LONG).await?;
    assert!(matches!(store.checkpoint(&first, ids[9], b"stale", None).await, Err(LogError::Fenced)));
    let kept = Kept { entries: 5, bytes: 50, ..kept };
    store.checkpoint(&second, ids[6], b"newer", Some(kept)).await?;
    // A delayed one, and one that comes twice, change nothing.
    store.checkpoint(&second, ids[4], b"new", None).await?;
    store.checkpoint(&second, ids[6], b"newer", Some(kept)).await?;
    let newest = store.load(&key).await?;
    assert!(newest.is_some_and(|newest| newest.state == b"newer" && newest.kept == Some(kept)));
    assert!(store.fallback(&key).await?.as_ref().is_some_and(is_old));
    assert_eq!(store.read(&key, ids[1], 100, NO_WAIT).await?.len(), 8);

    // The same place, to end it.
    store.checkpoint(&second, ids[6], b"newer", None).await?;
    assert_eq!(store.fallback(&key).await?, None);
    assert!(store.load(&key).await?.is_some_and(|newest| newest.state == b"newer" && newest.kept.is_none()));
    let left = store.read(&key, START, 100, NO_WAIT).await?;
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[7..]);
    Ok(())
}

/// A checkpoint that isn't the newest, nor the fallback, is gone.
pub async fn only_what_is_there_is_kept<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("gone");
    let ids = store.append(&key, &records(10), PLENTY).await?;
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    let kept = |position, entries| Some(Kept { position, since: ids[3], entries, bytes: 0 });
    store.checkpoint(&claim, ids[2], b"first", kept(START, 3)).await?;
    store.checkpoint(&claim, ids[3], b"second", None).await?;
    store.checkpoint(&claim, ids[5], b"third", kept(ids[2], 3)).await?;
    assert_eq!(store.fallback(&key).await?, None);
    assert!(store.load(&key).await?.is_some_and(|newest| newest.state == b"third" && newest.kept.is_none()));
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length, status.checkpointed), (4, 4, Some(ids[5])));
    assert_eq!(store.read(&key, START, 100, NO_WAIT).await?.len(), 4);
    Ok(())
}

/// Of two changes of layout at short intervals, the later one can be taken back.
pub async fn a_later_checkpoint_takes_the_place_of_a_fallback<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("later");
    let ids = store.append(&key, &records(10), PLENTY).await?;
    let claim = new_claim(store, &key, "worker-0", LONG).await?;
    let kept = |position, since, entries| Some(Kept { position, since, entries, bytes: 1 });
    store.checkpoint(&claim, ids[0], b"1", None).await?;
    store.checkpoint(&claim, ids[3], b"2", kept(ids[0], ids[3], 3)).await?;
    store.checkpoint(&claim, ids[5], b"3", kept(ids[3], ids[5], 2)).await?;
    let fallback = store.fallback(&key).await?;
    assert!(fallback.is_some_and(|fallback| fallback.state == b"2" && fallback.position == ids[3]));
    let left = store.read(&key, START, 100, NO_WAIT).await?;
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[4..]);
    let newest = store.load(&key).await?;
    assert!(newest.is_some_and(|newest| newest.state == b"3" && newest.kept == kept(ids[3], ids[5], 2)));
    Ok(())
}

/// What is kept for a fallback waits for nobody, under whatever owner.
pub async fn a_fallback_never_fills_a_log<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("room");
    let ids = store.append(&key, &records(10), 10).await?;
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    store.checkpoint(&first, ids[0], b"old", None).await?;
    let kept = Kept { position: ids[0], since: ids[7], entries: 7, bytes: 7 };
    store.checkpoint(&first, ids[7], b"new", Some(kept)).await?;
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length), (2, 2));
    store.append(&key, &records(8), 10).await?;
    assert!(matches!(store.append(&key, &records(1), 10).await, Err(LogError::Full { waiting: 10, max: 10 })));
    store.progress(&first, 4).await?;
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length), (6, 10));
    store.append(&key, &records(4), 10).await?;
    store.release(&first).await?;
    new_claim(store, &key, "worker-1", LONG).await?;
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length), (14, 14));
    Ok(())
}

/// Appended minus applied, through progress, checkpoint and a change of owner.
pub async fn waiting_counts_what_is_not_applied<S: Store>(store: &S) -> Result<(), LogError> {
    let key = key("waiting");
    let ids = store.append(&key, &records(10), 10).await?;
    let first = new_claim(store, &key, "worker-0", LONG).await?;
    assert_eq!(store.status(&key).await?.waiting, 10);
    store.progress(&first, 4).await?;
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length), (6, 10));
    store.append(&key, &records(4), 10).await?;
    assert!(matches!(store.append(&key, &records(1), 10).await, Err(LogError::Full { waiting: 10, .. })));
    store.checkpoint(&first, ids[6], b"seven", None).await?;
    let status = store.status(&key).await?;
    assert_eq!((status.waiting, status.length), (7, 7));
    store.progress(&first, 5).await?;
    assert_eq!(store.status(&key).await?.waiting, 2);
    // The same owner goes on where it was; another one replays what follows the checkpoint.
    store.claim(&key, "worker-0", Some(&first), LONG).await?;
    assert_eq!(store.status(&key).await?.waiting, 2);
    store.release(&first).await?;
    let second = new_claim(store, &key, "worker-1", LONG).await?;
    assert_eq!(store.status(&key).await?.waiting, 7);
    store.progress(&second, 100).await?;
    assert_eq!(store.status(&key).await?.waiting, 0);
    Ok(())
}
