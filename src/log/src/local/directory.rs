//! The directory of one process: domains and notes in the file, the rest in memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redb::{ReadableDatabase, ReadableTable};

use super::tables::{DOMAINS, NOTES, failed};
use super::{LocalStore, lock};
use crate::codec::{decode, encode, reconfigured, unknown};
use crate::{Assignment, Directory, Domain, Leadership, LogError, Member, bounds};

/// Members, leader and assignment.
#[derive(Default)]
pub(super) struct Office {
    members: BTreeMap<String, (String, Instant)>,
    leader: Option<(Leadership, Instant)>,
    term: u64,
    assignment: Assignment,
}

impl Office {
    fn leader(&mut self, now: Instant) -> Option<&mut (Leadership, Instant)> {
        self.leader.take_if(|(_, until)| *until <= now);
        self.leader.as_mut()
    }

    /// Above the last term, and above those of an earlier process by the clock.
    fn next_term(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.term = u64::try_from(since.as_millis()).unwrap_or(0).max(self.term + 1);
        self.term
    }
}

#[async_trait]
impl Directory for LocalStore {
    async fn declare(&self, domain: &Domain) -> Result<Domain, LogError> {
        bounds::domain(domain)?;
        let domain = domain.clone();
        let encoded = encode(&domain)?;
        self.write(move |tables, _| {
            if let Some(stands) = tables.domains.get(domain.name.as_str())? {
                return Ok(decode(stands.value()));
            }
            tables.domains.insert(domain.name.as_str(), encoded.as_slice())?;
            Ok(Ok(domain))
        })
        .await
    }

    async fn configure(&self, domain: &Domain) -> Result<(), LogError> {
        bounds::domain(domain)?;
        let domain = domain.clone();
        self.write(move |tables, _| {
            let stands = match tables.domains.get(domain.name.as_str())? {
                Some(stands) => decode(stands.value()),
                None => Err(unknown(&domain.name)),
            };
            match stands.and_then(|stands| encode(&reconfigured(stands, &domain))) {
                Ok(encoded) => {
                    tables.domains.insert(domain.name.as_str(), encoded.as_slice())?;
                    Ok(Ok(()))
                }
                Err(error) => Ok(Err(error)),
            }
        })
        .await
    }

    async fn domains(&self) -> Result<Vec<Domain>, LogError> {
        self.read_blocking(|database| {
            let table = database.begin_read().map_err(failed)?.open_table(DOMAINS).map_err(failed)?;
            table.iter().map_err(failed)?.map(|domain| decode(domain.map_err(failed)?.1.value())).collect()
        })
        .await
    }

    async fn beat(&self, member: &Member, ttl: Duration) -> Result<(), LogError> {
        bounds::member(member)?;
        let mut office = lock(&self.inner.office);
        office.members.insert(member.id.clone(), (member.report.clone(), Instant::now() + ttl));
        Ok(())
    }

    async fn leave(&self, id: &str) -> Result<(), LogError> {
        lock(&self.inner.office).members.remove(id);
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Member>, LogError> {
        let mut office = lock(&self.inner.office);
        let now = Instant::now();
        office.members.retain(|_, (_, until)| now < *until);
        let member =
            |(id, (report, _)): (&String, &(String, Instant))| Member { id: id.clone(), report: report.clone() };
        Ok(office.members.iter().map(member).collect())
    }

    async fn campaign(&self, candidate: &str, address: &str, lease: Duration) -> Result<Leadership, LogError> {
        bounds::name("the candidate's id", candidate)?;
        bounds::size("the candidate's address", address.len(), bounds::MAX_NAME_BYTES + 6)?;
        let mut office = lock(&self.inner.office);
        let now = Instant::now();
        if let Some((leadership, until)) = office.leader(now) {
            if leadership.leader == candidate {
                address.clone_into(&mut leadership.address);
                *until = now + lease;
            }
            return Ok(leadership.clone());
        }
        let term = office.next_term();
        let leadership = Leadership { leader: candidate.to_owned(), address: address.to_owned(), term };
        office.leader = Some((leadership.clone(), now + lease));
        Ok(leadership)
    }

    async fn leader(&self) -> Result<Option<Leadership>, LogError> {
        Ok(lock(&self.inner.office).leader(Instant::now()).map(|(leadership, _)| leadership.clone()))
    }

    async fn resign(&self, candidate: &str) -> Result<(), LogError> {
        lock(&self.inner.office).leader.take_if(|(leadership, _)| leadership.leader == candidate);
        Ok(())
    }

    async fn assign(&self, term: u64, assignment: &Assignment) -> Result<(), LogError> {
        let mut office = lock(&self.inner.office);
        if office.term != term {
            return Err(LogError::Fenced);
        }
        office.assignment = assignment.clone();
        Ok(())
    }

    async fn assignment(&self) -> Result<Assignment, LogError> {
        Ok(lock(&self.inner.office).assignment.clone())
    }

    async fn note(&self, term: u64, name: &str, note: &[u8]) -> Result<(), LogError> {
        bounds::note(name, note)?;
        if lock(&self.inner.office).term != term {
            return Err(LogError::Fenced);
        }
        let (name, note) = (name.to_owned(), note.to_vec());
        self.write(move |tables, _| {
            tables.notes.insert(name.as_str(), note.as_slice())?;
            Ok(Ok(()))
        })
        .await
    }

    async fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let name = name.to_owned();
        self.read_blocking(move |database| {
            let table = database.begin_read().map_err(failed)?.open_table(NOTES).map_err(failed)?;
            Ok(table.get(name.as_str()).map_err(failed)?.map(|note| note.value().to_vec()))
        })
        .await
    }
}
