//! What a page can have a browser send here: a request that looks like a form's, which needs nobody's leave, and any request at
//! all under a name that was pointed at this machine (DNS rebinding). Where a key or a token is asked for, neither helps the page.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::gateway::{ErrorBody, Failure};

/// Whether a browser sends this for a page of another site.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site != "same-origin" && site != "none",
        // A browser leaves it out where the address is neither encrypted nor of its own machine.
        None => headers.get(header::ORIGIN).is_some_and(|origin| !is_own(origin, headers.get(header::HOST))),
    }
}

fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let place = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    let host = host.and_then(|host| host.to_str().ok());
    place.zip(host).is_some_and(|(place, host)| place.eq_ignore_ascii_case(host))
}

/// Refuses what would change something for a page of another site.
pub async fn refuse_foreign(request: Request, next: Next) -> Response {
    if !request.method().is_safe() && is_foreign(request.headers()) {
        return Failure::CrossSite.body().respond(StatusCode::FORBIDDEN);
    }
    next.run(request).await
}

/// Has a server that only this machine reaches, and that `asks` for no key or token, answer to names of this machine alone.
pub fn local(router: Router, listens_on: SocketAddr, asks: bool) -> Router {
    if listens_on.ip().to_canonical().is_loopback() && !asks {
        router.layer(middleware::from_fn(refuse_other_names))
    } else {
        router
    }
}

async fn refuse_other_names(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let is_local = match request.uri().authority() {
        Some(authority) => is_loopback(authority),
        None => hosts.map(str::parse).all(|authority| authority.is_ok_and(|authority| is_loopback(&authority))),
    };
    if is_local {
        return next.run(request).await;
    }
    let why = "this process asks for no key and serves its own machine only: ask for it by localhost, 127.0.0.1 or [::1], and \
        have a proxy in front of it send one of these as Host";
    ErrorBody::new("wrong_host", why).respond(StatusCode::MISDIRECTED_REQUEST)
}

/// Whether a name, or an address, with a port or without, is one of this machine that no resolver can point elsewhere.
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_end_matches('.');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        || name == "localhost"
        || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_page_of_another_site_is_foreign_and_programs_and_own_pages_are_not() {
        for (given, foreign) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            // Behind a proxy that gives another Host, the browser's own word counts.
            (
                &[("sec-fetch-site", "same-origin"), ("origin", "https://hebb.example"), ("host", "127.0.0.1:8000")],
                false,
            ),
            (&[("origin", "http://evil.example"), ("host", "10.0.0.7:8080")], true),
            (&[("origin", "http://10.0.0.7:8080"), ("host", "10.0.0.7:8080")], false),
            (&[("origin", "null"), ("host", "10.0.0.7:8080")], true),
        ] {
            assert_eq!(is_foreign(&headers(given)), foreign, "{given:?}");
        }
    }

    #[test]
    fn names_that_nobody_can_point_elsewhere_are_this_machines() {
        for (host, local) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("localhost.", true),
            ("app.localhost:8000", true),
            ("127.0.0.1", true),
            ("127.1.2.3:8080", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("0.0.0.0:8080", false),
            ("10.0.0.7", false),
        ] {
            assert_eq!(is_loopback(&host.parse().unwrap()), local, "{host}");
        }
    }
}
