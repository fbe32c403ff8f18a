//! Both stores against the one suite, Redis for real; then what is particular to each: outages, reopening, a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails, its helpers too"
)]

mod model;
mod outage;
mod reopen;
mod server;

mod redis {
    use std::sync::LazyLock;

    use crate::server::Server;

    /// One server for all: each test has a cluster of its own in it.
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("everysec"));

    macro_rules! on_redis {
        ($($name:ident,)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let store = SERVER.store(stringify!($name)).await;
                hebb_log::conformance::$name(&store).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_redis);
}

mod directory {
    use hebb_log::{LocalConfig, LocalStore};

    macro_rules! on_directory {
        ($($name:ident,)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
                hebb_log::conformance::$name(&store).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_directory);
}

mod memory {
    macro_rules! on_memory {
        ($($name:ident,)*) => {$(
            #[tokio::test]
            async fn $name() {
                hebb_log::conformance::$name(&hebb_log::LocalStore::in_memory().unwrap()).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_memory);
}
