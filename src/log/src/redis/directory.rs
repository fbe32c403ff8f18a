//! The directory of a cluster in a few keys of one slot.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::primary::Way;
use super::scripts::Call;
use super::{CALL_DEADLINE, RedisStore, bytes, fenced, fields, list, millis, number, odd, text};
use crate::codec::{decode, encode, reconfigured, unknown};
use crate::{Assignment, Directory, Domain, Leadership, LogError, Member, bounds};

/// How often a configuration is tried again because somebody else's came between.
const CONFIGURE_ATTEMPTS: usize = 8;

/// How long members count as alive after a failover: four beats, and the pause of a dialler before the first.
const GRACE: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
#[error("others configure the domain all the time")]
struct Contended;

impl RedisStore {
    /// Reads one of the directory's keys.
    async fn ask(&self, command: &str, name: &str, fields: &[&str]) -> Result<Value, LogError> {
        let key = self.cluster_key(name);
        let mut cmd = redis::cmd(command);
        cmd.arg(&key).arg(fields);
        self.control(&Call::plain(&key, cmd)).await
    }
}

// Domains have to outlive the primary, as entries do. Leadership, assignment and heartbeats needn't: they are made anew
// every second, and a leader or an assignment of a term that the new primary hasn't heard of is refused.
#[async_trait]
impl Directory for RedisStore {
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError> {
        bounds::domain(domain)?;
        let call = Call::new(&self.inner.scripts.declare, &[self.cluster_key("domains")])
            .arg(&domain.name)
            .arg(encode(domain)?);
        decode(&bytes(self.write(Way::Control, &call, CALL_DEADLINE).await?.lasting()?, "declare")?)
    }

    async fn configure(&self, domain: &Domain) -> Result<(), LogError> {
        bounds::domain(domain)?;
        let key = [self.cluster_key("domains")];
        for _ in 0..CONFIGURE_ATTEMPTS {
            let mut get = redis::cmd("HGET");
            get.arg(&key[0]).arg(&domain.name);
            let stands = match self.control(&Call::plain(&key[0], get)).await? {
                Value::Nil => return Err(unknown(&domain.name)),
                stands => bytes(stands, "HGET")?,
            };
            let call = Call::new(&self.inner.scripts.configure, &key)
                .arg(&domain.name)
                .arg(stands.as_slice())
                .arg(encode(&reconfigured(decode(&stands)?, domain))?);
            let written = self.write(Way::Control, &call, CALL_DEADLINE).await?;
            match fenced(&written.answer, "configure") {
                Ok(()) => return written.lasting().map(drop),
                Err(LogError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
        Err(LogError::unavailable(Contended))
    }

    async fn domains(&self) -> Result<Vec<Domain>, LogError> {
        let mut domains = list(self.ask("HVALS", "domains", &[]).await?, "domains")?
            .into_iter()
            .map(|domain| decode(&bytes(domain, "domains")?))
            .collect::<Result<Vec<Domain>, _>>()?;
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(domains)
    }

    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError> {
        bounds::member(member)?;
        let keys = ["members", "beats"].map(|key| self.cluster_key(key));
        let call = Call::new(&self.inner.scripts.beat, &keys).arg(&member.id).arg(&member.report).arg(millis(ttl));
        self.control(&call).await.map(drop)
    }

    async fn leave(&self, id: &str) -> Result<(), LogError> {
        let keys = ["members", "beats"].map(|key| self.cluster_key(key));
        self.control(&Call::new(&self.inner.scripts.leave, &keys).arg(id)).await.map(drop)
    }

    async fn members(&self) -> Result<Vec<Member>, LogError> {
        let keys = ["members", "beats", "history"].map(|key| self.cluster_key(key));
        let call = Call::new(&self.inner.scripts.members, &keys).arg(millis(GRACE));
        let answer = self.control(&call).await?;
        let mut pairs = list(answer, "members")?.into_iter();
        let mut members = Vec::with_capacity(pairs.len() / 2);
        while let (Some(id), Some(report)) = (pairs.next(), pairs.next()) {
            members.push(Member { id: text(id, "members")?, report: text(report, "members")? });
        }
        members.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(members)
    }

    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError> {
        bounds::name("the candidate's id", candidate)?;
        bounds::size("the candidate's address", address.len(), bounds::MAX_NAME_BYTES + 6)?;
        let keys = ["leader", "term"].map(|key| self.cluster_key(key));
        let call = Call::new(&self.inner.scripts.campaign, &keys).arg(candidate).arg(address).arg(millis(lease));
        leadership(self.control(&call).await?)?.ok_or_else(|| odd("campaign"))
    }

    async fn leader(&self) -> Result<Option<Leadership>, LogError> {
        leadership(self.ask("HMGET", "leader", &["id", "address", "term"]).await?)
    }

    async fn resign(&self, candidate: &str) -> Result<(), LogError> {
        let call = Call::new(&self.inner.scripts.resign, &[self.cluster_key("leader")]).arg(candidate);
        self.control(&call).await.map(drop)
    }

    async fn assign(&self, term: u64, assignment: &Assignment) -> Result<(), LogError> {
        let encoded = encode(assignment)?;
        bounds::size("the assignment", encoded.len(), bounds::MAX_ASSIGNMENT_BYTES)?;
        let keys = ["term", "assignment"].map(|key| self.cluster_key(key));
        let call = Call::with_capacity(&self.inner.scripts.assign, &keys, 2, 64 + encoded.len()).arg(term).arg(encoded);
        fenced(&self.control(&call).await?, "assign")
    }

    async fn assignment(&self) -> Result<Assignment, LogError> {
        match self.ask("GET", "assignment", &[]).await? {
            Value::Nil => Ok(Assignment::default()),
            assignment => decode(&bytes(assignment, "assignment")?),
        }
    }

    async fn note(&self, term: u64, name: &str, note: &[u8]) -> Result<(), LogError> {
        bounds::note(name, note)?;
        let keys = [self.cluster_key("term"), self.cluster_key(&format!("note:{name}"))];
        let call = Call::with_capacity(&self.inner.scripts.assign, &keys, 2, 64 + note.len()).arg(term).arg(note);
        let written = self.write(Way::Control, &call, CALL_DEADLINE).await?;
        fenced(&written.answer, "note")?;
        written.lasting().map(drop)
    }

    async fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        match self.ask("GET", &format!("note:{name}"), &[]).await? {
            Value::Nil => Ok(None),
            note => bytes(note, "note").map(Some),
        }
    }
}

fn leadership(value: Value) -> Result<Option<Leadership>, LogError> {
    let [leader, address, term] = fields(value, "leader")?;
    if matches!(leader, Value::Nil) {
        return Ok(None);
    }
    Ok(Some(Leadership {
        leader: text(leader, "leader")?,
        address: text(address, "leader")?,
        term: number(&term, "leader")?,
    }))
}
