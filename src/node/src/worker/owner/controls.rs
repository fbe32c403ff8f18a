//! Changes of hyperparameters and of a governed memory's rhythm, which go through the log.

use hebb_engine::{Control, Entry, PartitionConfig};
use hebb_log::{Domain, LogError, PartitionKey, Record};
use tokio::sync::watch;
use tracing::info;

use super::{Owned, OwnerContext};

/// A control entry is never refused for a full queue: there is one a change.
const NO_WAITING_MAX: u64 = u64::MAX;

pub(super) async fn tell_changes(
    context: &OwnerContext,
    owned: &mut Owned,
    domain: &watch::Receiver<Domain>,
) -> Result<(), LogError> {
    configure(context, owned, domain).await?;
    govern(context, owned).await
}

/// Brings changed hyperparameters into the log, so that every replay takes them up at the same place.
async fn configure(
    context: &OwnerContext,
    owned: &mut Owned,
    domain: &watch::Receiver<Domain>,
) -> Result<(), LogError> {
    let wanted = PartitionConfig { seed: owned.partition.config().seed, ..domain.borrow().config.clone() };
    if wanted == *owned.partition.config()
        || wanted.task != owned.partition.config().task
        || owned.asked_config.as_ref() == Some(&wanted)
    {
        return Ok(());
    }
    tell(context, &owned.claim.partition, Control::Configure(wanted.clone())).await?;
    info!(partition = %owned.claim.partition, "new hyperparameters");
    owned.asked_config = Some(wanted);
    Ok(())
}

/// The same for the rhythm and the thresholds of a governed memory.
async fn govern(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    let wanted = context.governance;
    let present = owned.partition.governance();
    if present.is_none_or(|present| present == wanted) || owned.asked_governance == Some(wanted) {
        return Ok(());
    }
    tell(context, &owned.claim.partition, Control::Govern(wanted)).await?;
    info!(partition = %owned.claim.partition, "a new rhythm, or new thresholds");
    owned.asked_governance = Some(wanted);
    Ok(())
}

/// Appends a control entry; nobody waits for its outcome.
async fn tell(context: &OwnerContext, partition: &PartitionKey, control: Control) -> Result<(), LogError> {
    let record = Record { entry: Entry::Control(control).encode().into(), reply_to: None };
    context.store.log.append(partition, &[record], NO_WAITING_MAX).await.map(drop)
}
