//! Asks the Sentinels who is primary.
//!
//! The client of the redis crate asks one Sentinel after the other, without a deadline, and believes the first. A Sentinel
//! that sits on the wrong side of a split answers as readily as the others, so here all are asked at once and the answer
//! of the newest election counts.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::{Access, Silence, gather};
use super::config::Address;

/// How long one Sentinel may take, the connection to it included; below the deadline of a dial, which it's part of.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);
/// How long the others may take once one has answered.
const GRACE: Duration = Duration::from_millis(150);

/// The Sentinels of one primary, with a connection to each that has answered.
pub(super) struct Sentinels {
    service: String,
    access: Access,
    all: Vec<Sentinel>,
    /// What was said last, and when it was asked; locked by the one who asks.
    said: Mutex<Option<(Instant, Address)>>,
}

struct Sentinel {
    address: Address,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Sentinels {
    pub(super) fn new(service: String, access: Access, addresses: Vec<Address>) -> Self {
        let all = addresses.into_iter().map(|address| Sentinel { address, connection: Mutex::default() }).collect();
        Self { service, access, all, said: Mutex::default() }
    }

    /// Who is primary by the newest election that a Sentinel knows of. Those who want to know at the same time share an
    /// answer: many connections are made at once after a failover, and one of its questions is as good as all.
    pub(super) async fn primary(&self) -> Result<Address, Silence> {
        let wanted_at = Instant::now();
        let mut said = self.said.lock().await;
        if let Some((asked_at, address)) = &*said
            && wanted_at <= *asked_at
        {
            return Ok(address.clone());
        }
        let asked_at = Instant::now();
        let address = self.ask_all().await?;
        *said = Some((asked_at, address.clone()));
        Ok(address)
    }

    async fn ask_all(&self) -> Result<Address, Silence> {
        let answers = gather(self.all.iter().map(|sentinel| self.ask(sentinel)), ANSWER_DEADLINE, GRACE).await;
        let mut last = Silence::Late;
        let mut newest = None;
        for answer in answers {
            match answer {
                Ok(answer) => newest = newest.max(Some(answer)),
                Err(error) => last = error,
            }
        }
        newest.map(|(_, address)| address).ok_or_else(|| Silence::Nobody(Box::new(last)))
    }

    /// The number of the last election, and who won it.
    async fn ask(&self, sentinel: &Sentinel) -> Result<(u64, Address), Silence> {
        let mut held = sentinel.connection.lock().await;
        // Taken out, so that a question that is dropped in the middle takes its connection with it.
        if let Some(mut connection) = held.take()
            && let Ok(answer) = self.question(&mut connection).await
        {
            *held = Some(connection);
            return Ok(answer);
        }
        let mut connection = self.access.inquire(&sentinel.address).await?;
        let answer = self.question(&mut connection).await?;
        *held = Some(connection);
        Ok(answer)
    }

    async fn question(&self, connection: &mut MultiplexedConnection) -> Result<(u64, Address), Silence> {
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("MASTER").arg(&self.service);
        let fields: BTreeMap<String, Value> = cmd.query_async(connection).await?;
        let field = |name: &str| match fields.get(name) {
            Some(Value::BulkString(text)) => String::from_utf8(text.clone()).map_err(|_| Silence::Odd),
            _ => Err(Silence::Odd),
        };
        let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| Silence::Odd);
        let port = u16::try_from(number("port")?).map_err(|_| Silence::Odd)?;
        Ok((number("config-epoch")?, Address::new(field("ip")?, port)))
    }
}
