//! Forgets what a domain has learned, because somebody asks for it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use futures::{TryStreamExt, stream};
use hebb_engine::{Control, Entry};
use hebb_log::{Domain, LogError, PartitionKey, Record};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::Shared;
use super::admission::Admitted;
use super::dispatch::{ANSWER_TIMEOUT, DispatchError};
use super::http::{described, known_domain, respond};
use super::reply::{Address, Failure};
use super::wire::{self, WireError};
use crate::store::Store;

/// Partitions that are told at once.
const AT_ONCE: usize = 16;
/// How long that may take: a client waits no longer, and neither does a stop.
const WITHIN: Duration = ANSWER_TIMEOUT;
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
    fn targets(&self, domain: &Domain) -> Result<Range<u32>, WireError> {
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
        let targets = body.targets(&domain)?;
        warn!(domain = %domain.name, partitions = ?targets, client = %admitted.client(), "everything learned is forgotten");
        // A client that hangs up meanwhile has asked for all of it.
        let told = shared.lasting.spawn(tell(shared.store.clone(), domain.name.clone(), targets));
        told.await.map_err(|_panic| Failure::Unexpected)??;
        described(&shared, domain).await.map_err(|failure| match failure {
            Failure::Dispatch(DispatchError::Late) => Failure::ResetPending,
            other => other,
        })
    };
    respond(&shared, "reset", started, result.await)
}

/// Appends a reset to the log of each of these partitions.
async fn tell(store: Store, domain: String, targets: Range<u32>) -> Result<(), LogError> {
    let record = Record { entry: Entry::Control(Control::Reset).encode().into(), reply_to: None };
    let (log, domain, record) = (store.log.as_ref(), domain.as_str(), std::slice::from_ref(&record));
    let appends = stream::iter(targets.map(Ok)).try_for_each_concurrent(AT_ONCE, |index| async move {
        let partition = PartitionKey { domain: domain.to_owned(), index };
        log.append(&partition, record, NO_WAITING_MAX).await.map(drop)
    });
    let late = |_| Err(LogError::Unavailable(format!("not every log took the reset in {WITHIN:?}").into()));
    timeout(WITHIN, appends).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::{ConnectInfo, Request};
    use hebb_engine::{Hyperparameters, PartitionConfig, Task};
    use hebb_log::{Directory, LocalStore, Log};
    use tower::Service;

    use super::*;
    use crate::gated::Gated;
    use crate::gateway::{Gateway, GatewayOptions};
    use crate::stop::stop_channel;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    #[tokio::test]
    async fn a_reset_that_was_begun_ends_when_its_client_has_hung_up_and_a_stop_waits_for_it() -> Result {
        const PARTITIONS: u32 = 3 * AT_ONCE as u32;
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        let config = PartitionConfig::new(Task::Classification);
        let domain = local.declare(&Domain { name: "d".to_owned(), partitions: PARTITIONS, config }).await?;
        let options = GatewayOptions {
            id: "gateway-0".to_owned(),
            max_queue_size: 10,
            allow_undeclared_domains: false,
            hyperparameters: Hyperparameters::default(),
            keys: None,
            limits: None,
            sync_interval: None,
        };
        let gateway = Gateway::new(store, options)?;
        let client = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
        let request = Request::post("/v1/domains/d/reset").extension(client).body(Body::from(r#"{"confirm":"d"}"#))?;
        let asked = tokio::spawn(gateway.router().call(request));
        let told = async || {
            let mut told = 0;
            for partition in domain.keys() {
                told += local.status(&partition).await?.length;
            }
            Ok::<_, LogError>(told as usize)
        };
        while told().await? < AT_ONCE {
            tokio::task::yield_now().await;
        }
        asked.abort();
        assert!(asked.await.is_err_and(|ended| ended.is_cancelled()), "nothing was answered yet");

        let (stopper, stop) = stop_channel();
        stopper.stop();
        let mut ended = std::pin::pin!(gateway.run(stop));
        assert!(timeout(Duration::from_millis(100), &mut ended).await.is_err(), "left a reset that is under way");
        assert_eq!(told().await?, AT_ONCE);
        gates.appends.add_permits(PARTITIONS as usize);
        timeout(Duration::from_secs(5), ended).await?;
        assert_eq!(told().await?, PARTITIONS as usize);
        Ok(())
    }

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
