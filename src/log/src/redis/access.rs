//! Opens one connection to one address: name lookup, encryption, authentication. And asks several at once.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};

use tokio::time::{sleep, timeout};

use super::config::{Address, Tls};

/// How to enter the servers of one kind: the data servers, or the Sentinels.
#[derive(Clone)]
pub(super) struct Access {
    settings: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl Access {
    pub(super) fn new(username: Option<&str>, password: Option<&str>, tls: Option<&Tls>) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        Self { settings, certificates: tls.map(Tls::certificates) }
    }

    /// Finds fault with certificates before anything is dialled.
    pub(super) fn check(&self, address: &Address) -> Result<(), RedisError> {
        self.client(address, self.settings.clone()).map(drop)
    }

    /// Connects for commands and what the server sends unasked, which goes to `pushed`.
    pub(super) async fn connect(
        &self,
        address: &Address,
        pushed: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, RedisError> {
        // Only RESP3 says when a connection has ended.
        let client = self.client(address, self.settings.clone().set_protocol(ProtocolVersion::RESP3))?;
        let config = endless().set_push_sender(move |push: PushInfo| {
            pushed(push);
            Ok::<_, redis::aio::SendError>(())
        });
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Connects for a few questions. Sentinels of old don't speak RESP3.
    pub(super) async fn inquire(&self, address: &Address) -> Result<MultiplexedConnection, RedisError> {
        let client = self.client(address, self.settings.clone())?;
        client.get_multiplexed_async_connection_with_config(&endless()).await
    }

    fn client(&self, address: &Address, settings: RedisConnectionInfo) -> Result<Client, RedisError> {
        let Address { host, port } = address.clone();
        let info =
            |address: ConnectionAddr| address.into_connection_info().map(|info| info.set_redis_settings(settings));
        match &self.certificates {
            None => Client::open(info(ConnectionAddr::Tcp(host, port))?),
            Some(certificates) => {
                let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(info(address)?, certificates.clone())
            }
        }
    }
}

/// The deadline of a call is around the call: a blocking read may take longer than any default.
fn endless() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("no Sentinel answers: {0}")]
    Nobody(Box<Silence>),
    #[error("no answer")]
    Late,
    #[error("an answer that makes no sense")]
    Odd,
    #[error("{0}")]
    Redis(#[from] RedisError),
}

/// Waits for all, for each no longer than `deadline`, and no longer than `grace` once one has succeeded.
pub(super) async fn gather<T>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, Silence>>>,
    deadline: Duration,
    grace: Duration,
) -> Vec<Result<T, Silence>> {
    let mut pending: FuturesUnordered<_> =
        asked.map(|one| async { timeout(deadline, one).await.unwrap_or(Err(Silence::Late)) }).collect();
    let mut answers = Vec::new();
    while let Some(answer) = pending.next().await {
        let succeeded = answer.is_ok();
        answers.push(answer);
        if succeeded {
            break;
        }
    }
    let rest = async {
        while let Some(answer) = pending.next().await {
            answers.push(answer);
        }
    };
    tokio::select! {
        () = rest => {}
        () = sleep(grace) => {}
    }
    answers
}
