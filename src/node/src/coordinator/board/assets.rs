//! The files of the page, which are part of the binary: no path of a request reaches a file system.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::gateway::ErrorBody;

struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal $kind:literal),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, text: include_str!(concat!("../../../../../web/", $name)) }),*]
    };
}

const PAGE: File =
    File { name: "index.html", kind: "text/html; charset=utf-8", text: include_str!("../../../../../web/index.html") };

const FILES: &[File] = files![
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "app.js" "text/javascript; charset=utf-8",
    "alerts.js" "text/javascript; charset=utf-8",
    "api.js" "text/javascript; charset=utf-8",
    "chart.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "format.js" "text/javascript; charset=utf-8",
    "learning.js" "text/javascript; charset=utf-8",
    "memory.js" "text/javascript; charset=utf-8",
    "quality.js" "text/javascript; charset=utf-8",
    "views.js" "text/javascript; charset=utf-8",
];

/// Nothing but the page's own files runs or is shown; it sends nothing elsewhere and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub async fn page() -> Response {
    respond(&PAGE)
}

pub async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => respond(file),
        None => ErrorBody::new("unknown_file", "the page has no such file").respond(StatusCode::NOT_FOUND),
    }
}

fn respond(file: &File) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::CONTENT_TYPE, file.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // The next version of the binary has other files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (headers, file.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_weighs_less_than_300_kb_and_names_only_files_that_there_are() {
        let all = || FILES.iter().chain([&PAGE]);
        let weight: usize = all().map(|file| file.text.len()).sum();
        assert!(weight < 300_000, "{weight} bytes");
        for file in all() {
            for quoted in ["\"./", "\"web/"] {
                for (_, rest) in file.text.match_indices(quoted).map(|(at, found)| (at, &file.text[at + found.len()..]))
                {
                    let named = rest.split('"').next().unwrap();
                    assert!(FILES.iter().any(|file| file.name == named), "{} names {named}", file.name);
                }
            }
        }
    }

    #[test]
    fn the_page_fetches_nothing_from_elsewhere() {
        for file in FILES.iter().chain([&PAGE]).filter(|file| file.kind != "image/svg+xml") {
            let urls = file.text.matches("//").count() - file.text.matches("// ").count();
            let namespaces = file.text.matches("\"http://www.w3.org/2000/svg\"").count();
            assert_eq!(urls, namespaces, "{} names an address", file.name);
        }
    }
}
