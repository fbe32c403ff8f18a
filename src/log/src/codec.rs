//! What both stores keep of a domain: JSON, which tolerates a member that a newer version has added.

use crate::{Domain, LogError};

pub(crate) fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, LogError> {
    serde_json::to_vec(value).map_err(|error| LogError::Invalid(error.to_string()))
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, LogError> {
    serde_json::from_slice(bytes).map_err(|error| LogError::Corrupt(error.to_string()))
}

pub(crate) fn unknown(domain: &str) -> LogError {
    LogError::Invalid(format!("there is no domain {domain}"))
}

/// What stands, with the new configuration: only that may change, and not its task.
pub(crate) fn reconfigured(stands: Domain, wanted: &Domain) -> Domain {
    let task = stands.config.task;
    let mut config = wanted.config.clone();
    config.task = task;
    Domain { config, ..stands }
}
