//! Replies, domains, members, leader, assignment.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{AFTER_SHORT, LONG, SHORT, Store, key};
use crate::{Assignment, Domain, LogError, Member, Reply};

fn replies(requests: std::ops::Range<u64>) -> Vec<Reply> {
    requests.map(|request| Reply { request, body: vec![0, 255, (request % 256) as u8] }).collect()
}

/// Batches arrive whole and in order.
pub async fn replies_come_in_batches<S: Store>(store: &S) -> Result<(), LogError> {
    let mut listener = store.subscribe("gateway-0").await?;
    let batches = [replies(0..3), replies(3..4), replies(4..500)];
    for batch in &batches {
        store.send("gateway-0", batch.clone()).await?;
    }
    for batch in batches {
        assert_eq!(timeout(Duration::from_secs(5), listener.recv()).await.ok().flatten(), Some(batch));
    }
    Ok(())
}

/// Each gateway gets its own; nobody's replies are no error.
pub async fn replies_of_others_stay_away<S: Store>(store: &S) -> Result<(), LogError> {
    store.send("nobody", replies(0..1)).await?;
    let mut first = store.subscribe("gateway-0").await?;
    let mut second = store.subscribe("gateway-1").await?;
    store.send("gateway-1", replies(1..2)).await?;
    store.send("gateway-0", replies(0..1)).await?;
    assert_eq!(timeout(Duration::from_secs(5), first.recv()).await.ok().flatten(), Some(replies(0..1)));
    assert_eq!(timeout(Duration::from_secs(5), second.recv()).await.ok().flatten(), Some(replies(1..2)));
    drop(first);
    store.send("gateway-0", replies(2..3)).await?;
    store.send("gateway-1", replies(3..4)).await?;
    assert_eq!(timeout(Duration::from_secs(5), second.recv()).await.ok().flatten(), Some(replies(3..4)));
    Ok(())
}

fn domain(name: &str, partitions: u32) -> Domain {
    let mut config = hebb_engine::PartitionConfig::new(hebb_engine::Task::Classification);
    // More digits than a double of JavaScript or Lua keeps.
    config.seed = u64::MAX - 1;
    Domain { name: name.to_owned(), partitions, config }
}

/// The first declaration stands.
pub async fn a_domain_is_declared_once<S: Store>(store: &S) -> Result<(), LogError> {
    assert!(store.domains().await?.is_empty());
    assert_eq!(store.declare(&domain("b", 2)).await?, domain("b", 2));
    assert_eq!(store.declare(&domain("b", 7)).await?, domain("b", 2));
    assert_eq!(store.declare(&domain("a", 1)).await?, domain("a", 1));
    assert_eq!(store.domains().await?, vec![domain("a", 1), domain("b", 2)]);
    assert!(matches!(store.declare(&domain("c", 0)).await, Err(LogError::Invalid(_))));
    Ok(())
}

/// Only what may change changes.
pub async fn a_configuration_keeps_task_and_partitions<S: Store>(store: &S) -> Result<(), LogError> {
    store.declare(&domain("a", 2)).await?;
    let mut wanted = domain("a", 5);
    wanted.config.task = hebb_engine::Task::Regression;
    wanted.config.seed = 42;
    store.configure(&wanted).await?;
    let mut stands = domain("a", 2);
    stands.config.seed = 42;
    assert_eq!(store.domains().await?, vec![stands]);
    assert!(matches!(store.configure(&domain("unknown", 1)).await, Err(LogError::Invalid(_))));
    Ok(())
}

/// Who doesn't beat isn't there.
pub async fn members_expire_and_leave<S: Store>(store: &S) -> Result<(), LogError> {
    let member = |id: &str, report: &str| Member { id: id.to_owned(), report: report.to_owned() };
    assert!(store.members().await?.is_empty());
    store.beat(&member("worker-1", "{}"), SHORT).await?;
    store.beat(&member("worker-2", "{}"), LONG).await?;
    store.beat(&member("worker-0", "{}"), LONG).await?;
    store.beat(&member("worker-0", r#"{"queue":1}"#), LONG).await?;
    assert_eq!(store.members().await?.len(), 3);
    sleep(AFTER_SHORT).await;
    assert_eq!(store.members().await?, vec![member("worker-0", r#"{"queue":1}"#), member("worker-2", "{}")]);
    store.leave("worker-2").await?;
    store.leave("worker-2").await?;
    assert_eq!(store.members().await?, vec![member("worker-0", r#"{"queue":1}"#)]);
    Ok(())
}

/// The first one leads, and moves where it answers.
pub async fn one_candidate_leads<S: Store>(store: &S) -> Result<(), LogError> {
    assert_eq!(store.leader().await?, None);
    let leads = store.campaign("coordinator-0", "10.0.0.1:8000", LONG).await?;
    assert_eq!((leads.leader.as_str(), leads.address.as_str()), ("coordinator-0", "10.0.0.1:8000"));
    assert_eq!(store.campaign("coordinator-1", "10.0.0.2:8000", LONG).await?, leads);
    let moved = store.campaign("coordinator-0", "10.0.0.3:8000", LONG).await?;
    assert_eq!((moved.address.as_str(), moved.term), ("10.0.0.3:8000", leads.term));
    store.resign("coordinator-1").await?;
    assert_eq!(store.leader().await?, Some(moved));
    Ok(())
}

/// No two leaders share a term.
pub async fn terms_grow<S: Store>(store: &S) -> Result<(), LogError> {
    let first = store.campaign("coordinator-0", "a:1", SHORT).await?;
    sleep(AFTER_SHORT).await;
    assert_eq!(store.leader().await?, None);
    let second = store.campaign("coordinator-1", "b:1", LONG).await?;
    assert_eq!(second.leader, "coordinator-1");
    store.resign("coordinator-1").await?;
    assert_eq!(store.leader().await?, None);
    let third = store.campaign("coordinator-0", "a:1", LONG).await?;
    assert!(0 < first.term && first.term < second.term && second.term < third.term);
    Ok(())
}

/// A leader of the past assigns nothing.
pub async fn an_assignment_is_fenced_by_the_term<S: Store>(store: &S) -> Result<(), LogError> {
    assert_eq!(store.assignment().await?, Assignment::default());
    let assignment = |version| Assignment { version, owners: vec![(key("a"), format!("worker-{version}"))] };
    assert!(matches!(store.assign(1, &assignment(1)).await, Err(LogError::Fenced)));
    let first = store.campaign("coordinator-0", "a:1", LONG).await?;
    store.assign(first.term, &assignment(1)).await?;
    store.resign("coordinator-0").await?;
    let second = store.campaign("coordinator-1", "b:1", LONG).await?;
    assert!(matches!(store.assign(first.term, &assignment(2)).await, Err(LogError::Fenced)));
    assert_eq!(store.assignment().await?, assignment(1));
    store.assign(second.term, &assignment(3)).await?;
    assert_eq!(store.assignment().await?, assignment(3));
    Ok(())
}

/// The next leader finds it, and the one before it can't change it.
pub async fn a_note_outlives_its_leader<S: Store>(store: &S) -> Result<(), LogError> {
    assert_eq!(store.noted("meta").await?, None);
    let first = store.campaign("coordinator-0", "a:1", LONG).await?;
    store.note(first.term, "meta", &[0, 255, 1]).await?;
    store.resign("coordinator-0").await?;
    let second = store.campaign("coordinator-1", "b:1", LONG).await?;
    assert!(matches!(store.note(first.term, "meta", &[2]).await, Err(LogError::Fenced)));
    assert_eq!(store.noted("meta").await?, Some(vec![0, 255, 1]));
    store.note(second.term, "meta", &[3]).await?;
    assert_eq!((store.noted("meta").await?, store.noted("other").await?), (Some(vec![3]), None));
    let large = vec![0; crate::MAX_NOTE_BYTES + 1];
    assert!(matches!(store.note(second.term, "meta", &large).await, Err(LogError::Invalid(_))));
    Ok(())
}
