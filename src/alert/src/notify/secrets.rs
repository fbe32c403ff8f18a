//! Values of Secrets, and how they are kept out of what is said.

use std::collections::BTreeMap;
use std::fmt;

use hebb_api::SecretKeyRef;

use crate::retry::{FailureKind, SendError};

/// A shorter part of a secret says nothing, and may be part of any word.
const PART_MIN: usize = 8;
/// What stands in a secret's place.
const MARK: &str = "[secret]";

/// The values of the Secrets that a receiver refers to.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<(String, String), String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Adds the value of a key. The end of the line that editors and `echo` put after a value isn't part of it.
    pub fn insert(&mut self, reference: &SecretKeyRef, value: &str) {
        let value = value.trim_end_matches(['\r', '\n']).to_owned();
        self.0.insert((reference.name.clone(), reference.key.clone()), value);
    }

    pub(crate) fn get(&self, reference: &SecretKeyRef) -> Result<&str, SendError> {
        let value = self.0.get(&(reference.name.clone(), reference.key.clone()));
        value.map(String::as_str).filter(|value| !value.is_empty()).ok_or_else(|| {
            let reason = format!("there is no Secret {} with the key {}", reference.name, reference.key);
            SendError::permanent(FailureKind::Secret, reason)
        })
    }

    /// The error without any secret or part of one.
    pub(crate) fn redacted(&self, mut error: SendError) -> SendError {
        // The whole first: its parts may be cut out of it otherwise.
        for value in self.0.values().filter(|value| value.len() >= 4) {
            error.reason = error.reason.replace(value.as_str(), MARK);
        }
        for value in self.0.values() {
            for part in value.split(['/', '?', '&', '=', ':', '@', ' ']).filter(|part| part.len() >= PART_MIN) {
                error.reason = error.reason.replace(part, MARK);
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.to_owned(), key: "k".to_owned() }
    }

    #[test]
    fn no_secret_and_no_part_of_one_is_said() {
        let mut secrets = Secrets::default();
        secrets.insert(&reference("url"), "https://hooks.example/services/T0AAAAAAAA/B0/verysecrettoken\n");
        secrets.insert(&reference("key"), "k3y!");
        assert_eq!(secrets.get(&reference("key")).unwrap(), "k3y!");
        let error = SendError::permanent(
            FailureKind::ClientError,
            "no /services/T0AAAAAAAA/B0/verysecrettoken at https://hooks.example/services/T0AAAAAAAA/B0/verysecrettoken, k3y!",
        );
        let said = secrets.redacted(error).reason;
        for secret in ["verysecrettoken", "T0AAAAAAAA", "k3y!"] {
            assert!(!said.contains(secret), "{said}");
        }
        assert!(!format!("{secrets:?}").contains("verysecrettoken"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Secrets::default().get(&reference("url")).unwrap_err();
        assert_eq!((error.reason.as_str(), error.transient), ("there is no Secret url with the key k", false));
    }
}
