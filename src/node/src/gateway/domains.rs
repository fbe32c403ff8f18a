//! The domains as the gateway knows them, and the place of an event among a domain's partitions.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::RwLock;

use hebb_engine::{Hyperparameters, PartitionConfig, Task, event_digest};
use hebb_log::{Domain, PartitionKey};

use super::reply::Failure;
use crate::store::Store;

/// Domains of one cluster; more than this can't be made by events.
const UNDECLARED_MAX: usize = 1_000;

/// The known domains, and what becomes of unknown ones.
pub struct Domains {
    store: Store,
    allow_undeclared: bool,
    hyperparameters: Hyperparameters,
    known: RwLock<BTreeMap<String, Domain>>,
}

impl Domains {
    pub fn new(store: Store, allow_undeclared: bool, hyperparameters: Hyperparameters) -> Self {
        Self { store, allow_undeclared, hyperparameters, known: RwLock::default() }
    }

    /// Reads the directory anew.
    pub async fn refresh(&self) -> Result<(), hebb_log::LogError> {
        let domains = self.store.directory.domains().await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Ok(())
    }

    /// Every known domain.
    pub fn all(&self) -> Vec<Domain> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The domain of this name, known or found in the directory.
    pub async fn find(&self, name: &str) -> Result<Option<Domain>, Failure> {
        if !is_domain_name(name) {
            return Err(Failure::DomainName(name.to_owned()));
        }
        if let Some(domain) = self.known(name) {
            return Ok(Some(domain));
        }
        self.refresh().await?;
        Ok(self.known(name))
    }

    /// The domain of this name; made on first use with `task`, where that is allowed.
    pub async fn find_or_declare(&self, name: &str, task: impl FnOnce() -> Task) -> Result<Domain, Failure> {
        if let Some(domain) = self.find(name).await? {
            return Ok(domain);
        }
        self.check_new(name)?;
        let config =
            PartitionConfig { task: task(), hyperparameters: self.hyperparameters.clone(), seed: event_digest(name) };
        let domain = self.store.directory.declare(&Domain { name: name.to_owned(), partitions: 1, config }).await?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(domain.name.clone(), domain.clone());
        Ok(domain)
    }

    /// Whether the domain of this name is known, or may be made.
    pub async fn find_or_allow(&self, name: &str) -> Result<(), Failure> {
        match self.find(name).await? {
            Some(_) => Ok(()),
            None => self.check_new(name),
        }
    }

    fn check_new(&self, name: &str) -> Result<(), Failure> {
        if !self.allow_undeclared {
            return Err(Failure::UndeclaredDomain(name.to_owned()));
        }
        if self.all().len() >= UNDECLARED_MAX {
            return Err(Failure::TooManyDomains { name: name.to_owned(), max: UNDECLARED_MAX });
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Option<Domain> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Whether a domain may have this name: it is part of addresses and labels.
pub fn is_domain_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && ends(name.chars().next())
        && ends(name.chars().last())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The partition of an event: by its key, else by its id, so that feedback with the same two finds it.
pub fn partition_of(domain: &Domain, key: Option<&str>, id: &str) -> PartitionKey {
    let hash = event_digest(key.unwrap_or(id));
    PartitionKey { domain: domain.name.clone(), index: (hash % u64::from(domain.partitions.max(1))) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_named_like_a_dns_label() {
        for (name, good) in [
            ("electricity", true),
            ("a-1", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a/b", false),
            ("{a}", false),
        ] {
            assert_eq!(is_domain_name(name), good, "{name:?}");
        }
    }

    #[test]
    fn an_event_and_its_feedback_share_a_partition() {
        let domain = Domain { name: "d".to_owned(), partitions: 7, config: PartitionConfig::new(Task::Classification) };
        assert_eq!(partition_of(&domain, Some("k"), "a"), partition_of(&domain, Some("k"), "b"));
        assert_eq!(partition_of(&domain, None, "a"), partition_of(&domain, None, "a"));
        let spread: std::collections::BTreeSet<u32> =
            (0..100).map(|n| partition_of(&domain, None, &n.to_string()).index).collect();
        assert_eq!(spread.len(), 7);
    }
}
