//! The log of a partition as a Redis stream, and its owner as a hash with a lease beside it.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::primary::Way;
use super::scripts::Call;
use super::{
    CALL_DEADLINE, RedisStore, Written, bytes, deadline, entry_id, fenced, fields, list, millis, number, odd, text,
};
use crate::{
    Checkpoint, Claim, Claimed, Durability, EntryId, Kept, Log, LogError, PartitionKey, PartitionStatus, Record,
    ReplyTo, bounds,
};

/// The longest that one read waits: a connection that died silently is noticed after it.
const MAX_WAIT: Duration = Duration::from_secs(10);

impl RedisStore {
    /// A call in the name of a claim: the owner's key comes first, token and epoch too.
    fn owned<'a>(&self, script: &'a redis::Script, claim: &Claim, keys: &[&str], bytes: usize) -> Call<'a> {
        let mut all = vec![self.key(&claim.partition, "owner")];
        all.extend(keys.iter().map(|key| self.key(&claim.partition, key)));
        Call::with_capacity(script, &all, 8, 256 + bytes).arg(&claim.token).arg(claim.epoch)
    }

    /// Sends what an owner writes and can't do without.
    async fn fenced_write(&self, way: Way, call: &Call<'_>, deadline: Duration, what: &str) -> Result<(), LogError> {
        let written = self.write(way, call, deadline).await?;
        fenced(&written.answer, what)?;
        written.lasting().map(drop)
    }

    /// The first entries after a place, in one answer.
    async fn entries(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        count: usize,
        wait: Duration,
        deadline: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        let key = self.key(partition, "log");
        let at_once = xread(&key, after, count, None);
        if wait.is_zero() || !self.can_block(at_once.slot) {
            let entries = entries(self.send(Way::Bulk, &at_once, deadline).await?)?;
            if wait.is_zero() || !entries.is_empty() {
                return Ok(entries);
            }
        }
        match self.block(&xread(&key, after, count, Some(wait)), wait, deadline).await? {
            Some(answer) => entries(answer),
            // All connections are waiting for entries, as this call would: to its caller it's the same.
            None => Ok(Vec::new()),
        }
    }

    /// The checkpoint under a key.
    async fn stored(&self, partition: &PartitionKey, name: &str) -> Result<Option<Checkpoint>, LogError> {
        bounds::partition(partition)?;
        let key = self.key(partition, name);
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&key).arg(&["position", "epoch", "state", "kept", "since", "entries", "bytes"]);
        let answer = self.send(Way::Bulk, &Call::plain(&key, cmd), deadline(bounds::MAX_STATE_BYTES)).await?;
        let [position, epoch, state, kept, since, entries, size] = fields(answer, "load")?;
        if matches!(position, Value::Nil) {
            return Ok(None);
        }
        let id = |id| entry_id(&bytes(id, "load")?).ok_or_else(|| odd("load"));
        let kept = match kept {
            Value::Nil => None,
            kept => Some(Kept {
                position: id(kept)?,
                since: id(since)?,
                entries: number(&entries, "load")?,
                bytes: number(&size, "load")?,
            }),
        };
        let (position, epoch, state) = (id(position)?, number(&epoch, "load")?, bytes(state, "load")?);
        Ok(Some(Checkpoint { position, epoch, state, kept }))
    }
}

/// The id that follows an id.
fn after(EntryId { at_ms, seq }: EntryId) -> EntryId {
    match seq.checked_add(1) {
        Some(seq) => EntryId { at_ms, seq },
        None => EntryId { at_ms: at_ms.saturating_add(1), seq: 0 },
    }
}

#[async_trait]
impl Log for RedisStore {
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError> {
        bounds::partition(partition)?;
        let size = bounds::records(records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let keys = ["log", "progress"].map(|key| self.key(partition, key));
        // Around an argument there are up to 16 bytes of protocol.
        let room = size + records.len() * 64;
        let mut call =
            Call::with_capacity(&self.inner.scripts.append, &keys, 1 + 2 * records.len(), room).arg(waiting_max);
        for Record { entry, reply_to } in records {
            let reply_to = reply_to.as_ref().map(|to| format!("{} {}", to.gateway, to.request)).unwrap_or_default();
            call = call.arg(&entry[..]).arg(reply_to);
        }
        let written = self.write(Way::Bulk, &call, deadline(size)).await?;
        // Nothing was appended where the log is full, and that needs nobody's consent.
        let answer = match written.answer {
            Value::Array(_) => written.lasting()?,
            refused => refused,
        };
        match answer {
            Value::Array(ids) if ids.len() == records.len() => {
                ids.into_iter().map(|id| entry_id(&bytes(id, "append")?).ok_or_else(|| odd("append"))).collect()
            }
            Value::Int(waiting) => {
                Err(LogError::Full { waiting: u64::try_from(waiting).unwrap_or(0), max: waiting_max })
            }
            _ => Err(odd("append")),
        }
    }

    // A Redis that crashed may have lost the last entries before `after`. The read then waits for newer ones: XADD gives
    // ids by the clock, never below the stream's last id, and a checkpoint moves that id past the owner's position.
    async fn read(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        bounds::partition(partition)?;
        let (max, mut wait) = (max.min(bounds::MAX_READ), wait.min(MAX_WAIT));
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < max && bytes < bounds::READ_ENOUGH_BYTES {
            let after = entries.last().map_or(after, |(id, _)| *id);
            let size = self.inner.sizes.expected(partition);
            let count = size.count(max - entries.len());
            let found = self.entries(partition, after, count, wait, deadline(size.bytes(count))).await;
            let size = found.as_ref().map_or_else(|_| size.doubted(), |found| size.learned(count, found));
            self.inner.sizes.expect(partition, size);
            let found = found?;
            let is_all = found.len() < count;
            bytes += bounds::bytes(&found);
            match entries.is_empty() {
                true => entries = found,
                false => entries.extend(found),
            }
            if is_all {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(entries)
    }

    async fn claim(
        &self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        bounds::partition(partition)?;
        bounds::name("the owner's name", owner)?;
        let keys = ["owner", "lease", "progress", "checkpoint"].map(|key| self.key(partition, key));
        let token = format!("{:032x}", rand::random::<u128>());
        let previous = previous.map_or("", |claim| claim.token.as_str());
        let is_replicated = matches!(self.inner.durability, Durability::Replicated { .. });
        let call = Call::new(&self.inner.scripts.claim, &keys)
            .arg(owner)
            .arg(previous)
            .arg(token)
            .arg(millis(lease))
            .arg(u8::from(is_replicated));
        let Written { answer, replicated } = self.write(Way::Control, &call, CALL_DEADLINE).await?;
        let [verdict, who, figure] = fields(answer, "claim")?;
        let (verdict, who, figure) = (text(verdict, "claim")?, text(who, "claim")?, number(&figure, "claim")?);
        let claim = |token| Claim { partition: partition.clone(), owner: owner.to_owned(), epoch: figure, token };
        if let Err(too_few) = replicated
            && verdict != "held"
        {
            if verdict == "new" {
                // Nobody knows of this claim, and its lease would keep everybody out, its owner first. Where the release is
                // lost too, the lease ends by itself.
                self.release(&claim(who)).await.ok();
            }
            return Err(LogError::unavailable(too_few));
        }
        match verdict.as_str() {
            "held" => Ok(Claimed::Held { owner: who, expires_in: Duration::from_millis(figure) }),
            "resumed" => Ok(Claimed::Resumed(claim(who))),
            "new" => Ok(Claimed::New(claim(who))),
            _ => Err(odd("claim")),
        }
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        let call = self.owned(&self.inner.scripts.renew, claim, &["lease"], 0).arg(millis(lease));
        // The owner answers until the lease ends that it knows of: a replica that knew of an earlier end would, once it is
        // primary, let the next one in before that.
        self.fenced_write(Way::Control, &call, CALL_DEADLINE, "renew").await
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        let call = self.owned(&self.inner.scripts.release, claim, &["lease"], 0);
        self.control(&call).await.map(drop)
    }

    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        self.stored(partition, "checkpoint").await
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        bounds::size("the state", state.len(), bounds::MAX_STATE_BYTES)?;
        let keys = ["checkpoint", "log", "progress", "fallback"];
        let mut call = self
            .owned(&self.inner.scripts.checkpoint, claim, &keys, state.len())
            .arg(position.to_string())
            .arg(position.at_ms)
            .arg(position.seq)
            .arg(after(position).to_string())
            .arg(state);
        if let Some(Kept { position, since, entries, bytes }) = kept {
            call = call
                .arg(position.to_string())
                .arg(after(position).to_string())
                .arg(since.to_string())
                .arg(entries)
                .arg(bytes);
        }
        // The owner may forget what it has stored, so this too has to outlive the primary. If it doesn't, the log that it
        // has trimmed comes back with the checkpoint before it, and the two still fit together.
        self.fenced_write(Way::Bulk, &call, deadline(state.len()), "checkpoint").await
    }

    async fn fallback(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        let fallback = self.stored(partition, "fallback").await?;
        // What was kept beside it before is another story.
        Ok(fallback.map(|fallback| Checkpoint { kept: None, ..fallback }))
    }

    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError> {
        let call = self
            .owned(&self.inner.scripts.progress, claim, &["progress", "checkpoint"], 0)
            .arg(applied_since_checkpoint);
        fenced(&self.control(&call).await?, "progress")
    }

    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError> {
        bounds::partition(partition)?;
        let keys = ["owner", "checkpoint", "log", "progress", "lease"].map(|key| self.key(partition, key));
        let answer = self.control(&Call::new(&self.inner.scripts.status, &keys)).await?;
        let [waiting, length, owner, epoch, position, checkpoint_bytes] = fields(answer, "status")?;
        let owner = text(owner, "status")?;
        let position = bytes(position, "status")?;
        Ok(PartitionStatus {
            waiting: number(&waiting, "status")?,
            length: number(&length, "status")?,
            owner: (!owner.is_empty()).then_some(owner),
            epoch: number(&epoch, "status")?,
            checkpointed: if position.is_empty() {
                None
            } else {
                Some(entry_id(&position).ok_or_else(|| odd("status"))?)
            },
            checkpoint_bytes: number(&checkpoint_bytes, "status")?,
        })
    }
}

fn xread(key: &str, after: EntryId, count: usize, wait: Option<Duration>) -> Call<'static> {
    let mut cmd = redis::cmd("XREAD");
    cmd.arg("COUNT").arg(count);
    if let Some(wait) = wait {
        cmd.arg("BLOCK").arg(millis(wait));
    }
    cmd.arg("STREAMS").arg(key).arg(after.to_string());
    Call::plain(key, cmd)
}

/// Takes the answer to XREAD apart without copying an entry: a map of the key to `[[id, [field, value, …]], …]`.
fn entries(answer: Value) -> Result<Vec<(EntryId, Record)>, LogError> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(streams) => streams,
        _ => return Err(odd("XREAD")),
    };
    let found = streams.into_iter().map(|(_, found)| found).next().ok_or_else(|| odd("XREAD"))?;
    list(found, "XREAD")?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<(EntryId, Record), LogError> {
    let [id, pairs] = fields(value, "XREAD")?;
    let [_, entry, _, reply_to] = fields(pairs, "XREAD")?;
    let id = entry_id(&bytes(id, "XREAD")?).ok_or_else(|| odd("XREAD"))?;
    let reply_to = match text(reply_to, "XREAD")?.rsplit_once(' ') {
        None => None,
        Some((gateway, request)) => {
            Some(ReplyTo { gateway: gateway.into(), request: request.parse().map_err(|_| odd("XREAD"))? })
        }
    };
    Ok((id, Record { entry: bytes(entry, "XREAD")?.into(), reply_to }))
}
