//! `docs/api.md` is generated from the definitions and `docs/http-reference.md` from the OpenAPI document: this fails when one
//! is stale, and `HEBB_UPDATE=1 cargo test -p hebb-api --test reference` mends it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

mod http;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

/// Fields that are Kubernetes' own: described there, and long.
const FOREIGN: [&str; 3] = ["conditions", "resources", "tolerations"];

#[test]
fn the_reference_is_that_of_the_types() {
    is_current("docs/api.md", &reference());
}

#[test]
fn the_reference_of_the_http_api_is_that_of_its_document() {
    is_current("docs/http-reference.md", &http::reference());
}

fn is_current(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    if std::env::var_os("HEBB_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "{page} is stale: HEBB_UPDATE=1 cargo test -p hebb-api --test reference");
}

fn reference() -> String {
    let mut out = "# API reference\n\n\
        The custom resources of `hebb.dev`, generated from `crds/` by `make generate`. `kubectl explain` shows the same of what\n\
        is installed. A field without a default is left out, or required where the table says so. `hebb config validate FILE`\n\
        checks a file without a cluster.\n"
        .to_owned();
    for crd in hebb_api::crds() {
        let names = &crd.spec.names;
        let version = &crd.spec.versions[0];
        let schema = serde_json::to_value(&version.schema).unwrap();
        let schema = &schema["openAPIV3Schema"];
        let short = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(
            out,
            "\n## {}\n\n`apiVersion: {}/{}`, namespaced, short name {short}. {}",
            names.kind,
            crd.spec.group,
            version.name,
            sentence(schema)
        )
        .unwrap();
        let mut shown = BTreeMap::new();
        for part in ["spec", "status"] {
            section(&mut out, &names.kind, part, &schema["properties"][part], &mut shown);
        }
    }
    out
}

/// A table of an object's fields, and after it those of the objects in it. One that was shown already is linked to.
fn section(out: &mut String, kind: &str, path: &str, schema: &Value, shown: &mut BTreeMap<String, String>) {
    shown.insert(schema["properties"].to_string(), path.to_owned());
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    write!(out, "\n### {kind} {path}\n\n| field | type | default | |\n| --- | --- | --- | --- |\n").unwrap();
    let mut inner = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (object, suffix) = match &field["items"] {
            Value::Null => (field, ""),
            items => (items, "[]"),
        };
        let mut type_ = type_of(field);
        if object["properties"].is_object() && !FOREIGN.contains(&name.as_str()) {
            let place = format!("{path}.{name}{suffix}");
            let known = shown.get(&object["properties"].to_string()).cloned();
            if known.is_none() {
                shown.insert(object["properties"].to_string(), place.clone());
                inner.push((place.clone(), object));
            }
            type_ = format!("[{type_}](#{})", anchor(kind, &known.unwrap_or(place)));
        }
        let default = match (&field["default"], required.contains(&name.as_str())) {
            (Value::Null, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            // The fields of an object have their own.
            (Value::Object(_), _) => String::new(),
            (value, _) => format!("`{value}`"),
        };
        writeln!(out, "| `{name}` | {type_} | {default} | {} |", sentence(field)).unwrap();
    }
    for (place, object) in inner {
        section(out, kind, &place, object, shown);
    }
}

/// As GitHub makes it from a heading.
fn anchor(kind: &str, path: &str) -> String {
    let heading = format!("{kind}-{path}").to_lowercase();
    heading.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect()
}

fn sentence(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn type_of(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`"));
        return words.collect::<Vec<_>>().join(", ");
    }
    let bound = |name: &str| schema[name].as_f64();
    match schema["type"].as_str().unwrap_or("object") {
        "array" => {
            let most = bound("maxItems").map(|most| format!(" (at most {most})")).unwrap_or_default();
            format!("list{most} of {}", type_of(&schema["items"]))
        }
        "object" => match &schema["additionalProperties"] {
            Value::Null | Value::Bool(_) => "object".to_owned(),
            values => format!("map of {}", type_of(values)),
        },
        number @ ("integer" | "number") => match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => format!("{number}, {least} to {most}"),
            (Some(least), None) => format!("{number}, {least} or more"),
            (None, Some(most)) => format!("{number}, at most {most}"),
            (None, None) => number.to_owned(),
        },
        other => match (schema["format"].as_str(), bound("maxLength")) {
            (Some("date-time"), _) => "time".to_owned(),
            (_, Some(most)) => format!("{other}, at most {most} characters"),
            _ => other.to_owned(),
        },
    }
}
