//! Everything in one process over a directory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hebb_log::{LocalConfig, LocalStore, OpenError, SqliteHistory};
use hebb_node::{
    ClusterSettings, EmbeddedAddresses, EmbeddedIdentity, NodeError, Stopper, Store, run_embedded, stop_channel,
};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{Api, free_address};

/// A server that runs in this process.
pub struct Server {
    pub api: Api,
    pub status: Api,
    pub meta: Api,
    pub worker: Api,
    pub address: SocketAddr,
    pub coordinator: SocketAddr,
    pub meta_address: SocketAddr,
    pub worker_address: SocketAddr,
    stopper: Stopper,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Server {
    /// Starts over the directory and waits until every declared domain answers.
    pub async fn start(directory: &Path, settings: ClusterSettings) -> Self {
        Self::start_at(directory, settings, free_address()).await
    }

    /// The same, with the API at this address.
    pub async fn start_at(directory: &Path, settings: ClusterSettings, gateway: SocketAddr) -> Self {
        let domains: Vec<String> = settings.domains.iter().map(|domain| domain.name.clone()).collect();
        let server = Self::begin(directory, settings, gateway).await;
        for domain in domains {
            server.api.until(&format!("/v1/domains/{domain}"), |answer| answer.status == StatusCode::OK).await;
        }
        server
    }

    /// The same, where the API may ask for keys: waits until it is ready.
    pub async fn start_locked(directory: &Path, settings: ClusterSettings) -> Self {
        Self::begin(directory, settings, free_address()).await
    }

    async fn begin(directory: &Path, settings: ClusterSettings, gateway: SocketAddr) -> Self {
        let store = Store::new(open(directory).await);
        let store = store.with_history(SqliteHistory::open(directory).await.unwrap());
        let addresses =
            EmbeddedAddresses { gateway, coordinator: free_address(), meta: free_address(), worker: free_address() };
        let (stopper, stop) = stop_channel();
        let who = EmbeddedIdentity { id: "local".to_owned(), advertise: addresses.coordinator.to_string() };
        let task = tokio::spawn(async move { run_embedded(store, &settings, who, addresses, None, stop).await });
        let server = Self {
            api: Api::new(addresses.gateway),
            status: Api::new(addresses.coordinator),
            meta: Api::new(addresses.meta),
            worker: Api::new(addresses.worker),
            address: addresses.gateway,
            coordinator: addresses.coordinator,
            meta_address: addresses.meta,
            worker_address: addresses.worker,
            stopper,
            task,
        };
        server.api.until("/health/readiness", |answer| answer.status == StatusCode::OK).await;
        server
    }

    /// Asks for the stop, waits for it, and says how long it took.
    pub async fn stop(self) -> Duration {
        let started = Instant::now();
        self.stopper.stop();
        self.task.await.unwrap().unwrap();
        started.elapsed()
    }

    /// Sends lines and returns the answers' lines.
    pub async fn stream(&self, domain: &str, lines: String) -> Vec<Value> {
        let request = reqwest::Client::new()
            .post(format!("http://{}/v1/domains/{domain}/infer-and-adapt", self.address))
            .header("content-type", "application/x-ndjson")
            .body(lines);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Opens the store; the file is free once the last task of an earlier server in this process has ended.
async fn open(directory: &Path) -> LocalStore {
    let started = Instant::now();
    loop {
        match LocalStore::open(directory, LocalConfig::default()).await {
            Ok(store) => return store,
            Err(OpenError::InUse(_)) if started.elapsed() < Duration::from_secs(5) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
