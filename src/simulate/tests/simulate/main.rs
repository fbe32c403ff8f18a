//! The simulation itself: its store against the suite of all stores, the same run twice, planted faults, and many seeds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, its helpers too")]

mod broken;
mod fallback;
mod seeds;

mod conformance {
    macro_rules! on_the_server {
        ($($name:ident,)*) => {$(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                hebb_log::conformance::$name(&hebb_simulate::Server::new()).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_the_server);
}
