//! Asks a running coordinator or gateway, and says what can be done where it doesn't answer.

use std::fmt::{Display, Formatter};
use std::time::Duration;

use hebb_api::names::{COORDINATOR_PORT, GATEWAY_PORT};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the server says of a path that it doesn't have.
const UNKNOWN_ROUTE: &str = "unknown_route";

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Coordinator,
    Gateway,
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Peer::Coordinator => "coordinator",
            Peer::Gateway => "gateway",
        })
    }
}

impl Peer {
    /// What it may ask for, and where that is said.
    fn credential(self) -> &'static str {
        match self {
            Peer::Coordinator => "a token: --token, or HEBB_INTERNAL_TOKEN",
            Peer::Gateway => "an API key: --key, or HEBB_API_KEY",
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no {peer} answers at {url}: {why}")]
    Unreachable { peer: Peer, url: String, why: String },
    #[error("the {peer} asks for {}", peer.credential())]
    NoCredential { peer: Peer },
    #[error("the {peer} refuses what it was given; it asks for {}", peer.credential())]
    WrongCredential { peer: Peer },
    #[error(
        "no {peer} is at {url}, but something that answers {status}: a coordinator listens on port {COORDINATOR_PORT} and a \
         gateway on {GATEWAY_PORT}, unless they were told otherwise"
    )]
    Elsewhere { peer: Peer, url: String, status: StatusCode },
    #[error("the {peer} answers {status}: {message}")]
    Refused { peer: Peer, status: StatusCode, message: String },
    #[error("what the {peer} answers is not understood; is it of another version?")]
    Unreadable { peer: Peer, source: reqwest::Error },
    #[error("{0} is no address")]
    Address(String),
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

/// A client of one coordinator or gateway.
pub struct Api {
    client: Client,
    peer: Peer,
    url: Url,
    credential: Option<String>,
}

impl Api {
    /// A client that waits for each answer as long as `deadline`.
    ///
    /// # Errors
    /// [`AskError`] for what is no address, and an HTTP client that can't be made.
    pub fn new(peer: Peer, url: &str, credential: Option<&str>, deadline: Duration) -> Result<Self, AskError> {
        let parsed = Url::parse(url).ok().filter(|url| !url.cannot_be_a_base());
        let url = parsed.ok_or_else(|| AskError::Address(url.to_owned()))?;
        let client = Client::builder().timeout(deadline).build()?;
        let credential = credential.filter(|credential| !credential.is_empty()).map(str::to_owned);
        Ok(Self { client, peer, url, credential })
    }

    /// What is at a path, whose segments may hold any characters.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, AskError> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(self.client.get(url)).await
    }

    /// What comes of sending this to a path.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, AskError> {
        self.ask(self.client.post(self.at(path)).json(body)).await
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        // An address that is a base has segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, AskError> {
        let peer = self.peer;
        let request = match &self.credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        };
        let url = || self.url.as_str().trim_end_matches('/').to_owned();
        let answer = request.send().await;
        let answer = answer.map_err(|error| AskError::Unreachable { peer, url: url(), why: root_cause(&error) })?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(|source| AskError::Unreadable { peer, source });
        }
        let body: Value = answer.json().await.unwrap_or_default();
        let message = body["error"]["message"].as_str().unwrap_or_default().to_owned();
        let is_hebb = !message.is_empty() && body["error"]["code"] != UNKNOWN_ROUTE;
        Err(match status {
            StatusCode::UNAUTHORIZED if self.credential.is_some() => AskError::WrongCredential { peer },
            StatusCode::UNAUTHORIZED => AskError::NoCredential { peer },
            _ if status.is_client_error() && !is_hebb => AskError::Elsewhere { peer, url: url(), status },
            _ => AskError::Refused { peer, status, message },
        })
    }
}

/// What an error began with: of a request, what the system said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
