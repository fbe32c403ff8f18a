//! Whether every watch still hears from the API server.
//!
//! A watch can die silently: the connection is open, or nobody has opened it again, and nothing comes. No event is not the
//! same as nothing to tell, for an API server that works sends bookmarks. So every byte of every watch is noticed where the
//! client receives it, and readiness fails when one of them has been silent for longer than two lives of a watch.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

/// A watch lives for at most 295 seconds, then it is opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(2 * 295);

/// When each watch was last heard, by what it watches.
#[derive(Clone, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Watches {
    fn heard(&self, what: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(what) {
            Some(at) => *at = Instant::now(),
            None => {
                known.insert(what.to_owned(), Instant::now());
            }
        }
    }

    /// The silence of each watch.
    pub fn ages(&self) -> BTreeMap<String, Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(what, at)| (what.clone(), at.elapsed())).collect()
    }

    /// The watch that has been silent for too long, if there is one.
    pub fn trouble(&self) -> Option<String> {
        let (what, age) = self.ages().into_iter().max_by_key(|(_, age)| *age)?;
        (age > SILENCE_MAX).then(|| format!("the watch of {what} has been silent for {} s", age.as_secs()))
    }
}

/// What a watch request watches: the last word of its path.
fn watched<B>(request: &Request<B>) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    if !query.split('&').any(|part| part == "watch=true") {
        return None;
    }
    request.uri().path().rsplit('/').next().map(str::to_owned)
}

impl<S> Layer<S> for Watches {
    type Service = Listening<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Listening { inner, watches: self.clone() }
    }
}

/// A client that notices what its watches receive.
#[derive(Clone)]
pub struct Listening<S> {
    inner: S,
    watches: Watches,
}

impl<S, I, O> Service<Request<I>> for Listening<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
    O: Body + Unpin + Send + 'static,
{
    type Response = Response<Heard<O>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let what = watched(&request);
        let watches = self.watches.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let watch = what.filter(|_| answer.status().is_success()).map(|what| (watches, what));
            Ok(answer.map(|body| {
                if let Some((watches, what)) = &watch {
                    watches.heard(what);
                }
                Heard { body, watch }
            }))
        })
    }
}

/// A body that says when something of it came.
pub struct Heard<B> {
    body: B,
    watch: Option<(Watches, String)>,
}

impl<B: Body + Unpin> Body for Heard<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(_))), Some((watches, what))) = (&polled, &self.watch) {
            watches.heard(what);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_watches_are_noticed_and_by_what_they_watch() {
        let ask = |uri: &str| watched(&Request::get(uri).body(()).unwrap());
        assert_eq!(ask("/api/v1/pods?&watch=true&timeoutSeconds=290").as_deref(), Some("pods"));
        assert_eq!(ask("/api/v1/pods?limit=500"), None);
    }

    #[test]
    fn a_watch_that_has_been_silent_for_two_lives_is_trouble() {
        let watches = Watches::default();
        assert_eq!(watches.trouble(), None);
        watches.heard("pods");
        watches.0.lock().unwrap().insert("services".to_owned(), Instant::now() - SILENCE_MAX - Duration::from_secs(1));
        assert!(watches.trouble().unwrap().contains("watch of services"));
    }
}
