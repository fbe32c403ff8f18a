//! Forgets what a domain has learned, because somebody asks for it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use hebb_engine::{Control, Entry};
use hebb_log::{Domain, PartitionKey, Record};
use serde::Deserialize;
use tracing::warn;

use super::Shared;
use super::admission::Admitted;
use super::dispatch::DispatchError;
use super::http::{described, known_domain, respond};
use super::reply::{Address, Failure};
use super::wire::{self, WireError};

/// A control entry is never refused for a full queue: somebody waits for it.
const NO_WAITING_MAX: u64 = u64::MAX;

/// The body of `POST …/reset`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    /// The name of the domain once more: what is forgotten is gone.
    confirm: String,
    /// The one partition that forgets; all where it is absent.
    partition: Option<u32>,
}

impl ResetBody {
    /// The partitions that are to forget.
    fn targets(&self, domain: &Domain) -> Result<std::ops::Range<u32>, WireError> {
        let Domain { name, partitions, .. } = domain;
        if self.confirm != *name {
            return Err(WireError::Unfit(format!("confirm has to be {name:?}, the domain that forgets everything")));
        }
        match self.partition {
            Some(index) if index < *partitions => Ok(index..index + 1),
            Some(_) => Err(WireError::Unfit(format!("the domain {name} has {partitions} partitions, from 0 on"))),
            None => Ok(0..*partitions),
        }
    }
}

/// Appends a reset to each partition's log, and answers with the domain when all of them are applied. It doesn't go the way of
/// events, where what isn't answered at once is sent again: a second reset would forget what was learned since the first.
pub async fn reset(
    State(shared): State<Arc<Shared>>,
    Address(Path(name)): Address<Path<String>>,
    Extension(admitted): Extension<Admitted>,
    body: Body,
) -> Response {
    let started = Instant::now();
    let result = async {
        let body = shared.bodies.read(body).await?;
        let body: ResetBody = wire::parse(&body)?;
        let domain = known_domain(&shared, &name).await?;
        let record = Record { entry: Entry::Control(Control::Reset).encode().into(), reply_to: None };
        for index in body.targets(&domain)? {
            let partition = PartitionKey { domain: domain.name.clone(), index };
            warn!(%partition, client = %admitted.client(), "everything learned is forgotten");
            shared.store.log.append(&partition, std::slice::from_ref(&record), NO_WAITING_MAX).await?;
        }
        described(&shared, domain).await.map_err(|failure| match failure {
            Failure::Dispatch(DispatchError::Late) => Failure::ResetPending,
            other => other,
        })
    };
    respond(&shared, "reset", started, result.await)
}

#[cfg(test)]
mod tests {
    use hebb_engine::{PartitionConfig, Task};

    use super::*;

    #[test]
    fn a_reset_says_the_name_of_its_domain_and_is_for_the_partitions_that_there_are() {
        let domain = Domain { name: "d".to_owned(), partitions: 3, config: PartitionConfig::new(Task::Regression) };
        let targets = |body: &str| wire::parse::<ResetBody>(body.as_bytes())?.targets(&domain);
        assert_eq!(targets(r#"{"confirm":"d"}"#), Ok(0..3));
        assert_eq!(targets(r#"{"confirm":"d","partition":2}"#), Ok(2..3));
        for body in [r#"{"confirm":"d","partition":3}"#, r#"{"confirm":""}"#, r#"{"confirm":"D"}"#] {
            assert!(matches!(targets(body), Err(WireError::Unfit(_))), "{body}");
        }
        for body in ["{}", r#"{"partition":0}"#, r#"{"confirm":"d","partitions":1}"#] {
            assert!(matches!(targets(body), Err(WireError::Shape(_))), "{body}");
        }
    }
}
