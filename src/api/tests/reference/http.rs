//! `docs/http-reference.md`: every call of the gateway's OpenAPI document, and every object in it.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::{sentence, type_of};

/// The page as the document has it.
pub fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src/gateway/openapi.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut out = "# HTTP reference\n\n\
        Every call of the HTTP API with its parameters, bodies and answers, generated from the OpenAPI document that a gateway\n\
        serves at `/openapi.json` by `make generate`. [http-api.md](http-api.md) explains them, with examples. An error is\n\
        `{\"error\": {\"code\", \"message\"}}`, with one of the codes that its row names.\n"
        .to_owned();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            write!(out, "\n## {} {path}\n\n{}.\n", method.to_uppercase(), operation["summary"].as_str().unwrap())
                .unwrap();
            let parameters = [&methods["parameters"], &operation["parameters"]].map(Value::as_array);
            let parameters: Vec<&Value> =
                parameters.into_iter().flatten().flatten().map(|parameter| resolved(&document, parameter)).collect();
            call(&mut out, &document, &parameters, operation);
        }
    }
    out.push_str("\n# Objects\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        write!(out, "\n## {name}\n").unwrap();
        if !sentence(schema).is_empty() {
            write!(out, "\n{}\n", sentence(schema)).unwrap();
        }
        if schema["properties"].is_object() {
            out.push_str("\n| field | type | required | |\n| --- | --- | --- | --- |\n");
            rows(&mut out, "", schema);
        } else {
            write!(out, "\nType: {}.\n", kind(schema)).unwrap();
        }
    }
    out
}

fn call(out: &mut String, document: &Value, parameters: &[&Value], operation: &Value) {
    if !parameters.is_empty() {
        out.push_str("\n| parameter | in | type | default | |\n| --- | --- | --- | --- | --- |\n");
    }
    for parameter in parameters {
        let schema = &parameter["schema"];
        let default = match &schema["default"] {
            Value::Null if parameter["required"] == true => "required".to_owned(),
            Value::Null => String::new(),
            Value::String(word) => format!("`{word}`"),
            value => format!("`{value}`"),
        };
        let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
        writeln!(out, "| `{name}` | {place} | {} | {default} | {} |", kind(schema), sentence(parameter)).unwrap();
    }
    if let Some(bodies) = operation["requestBody"]["content"].as_object() {
        out.push_str("\n| body | |\n| --- | --- |\n");
        for (media, body) in bodies {
            let what = format!("{}. {}", kind(&body["schema"]), sentence(&body["schema"]));
            writeln!(out, "| `{media}` | {} |", what.trim_end()).unwrap();
        }
    }
    out.push_str("\n| status | answer |\n| --- | --- |\n");
    for (status, response) in operation["responses"].as_object().unwrap() {
        let response = resolved(document, response);
        let json = &response["content"]["application/json"]["schema"];
        // Every error is the same object: the head of the page says which.
        let is_told = json.is_object() && json["$ref"] != "#/components/schemas/Error";
        let object = if is_told { format!("{}. ", kind(json)) } else { String::new() };
        writeln!(out, "| {status} | {object}{} |", sentence(response)).unwrap();
    }
}

/// What a reference stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// A row a field; those of an object without a name of its own behind it, by their way from the outer one.
fn rows(out: &mut String, before: &str, schema: &Value) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let is_required = if required.contains(&name.as_str()) { "yes" } else { "" };
        writeln!(out, "| `{before}{name}` | {} | {is_required} | {} |", kind(field), sentence(field)).unwrap();
        let inner = if field["items"]["properties"].is_object() { (&field["items"], "[]") } else { (field, "") };
        if inner.0["properties"].is_object() {
            rows(out, &format!("{before}{name}{}.", inner.1), inner.0);
        }
    }
}

/// A type in words: with a link where it has a name, and what else it may be where it may be several.
fn kind(schema: &Value) -> String {
    if let Some(place) = schema["$ref"].as_str() {
        let name = place.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    let one_of = [&schema["oneOf"], &schema["anyOf"]].into_iter().find_map(Value::as_array);
    if let Some(kinds) = one_of.filter(|kinds| kinds.iter().all(|kind| kind["required"].is_null())) {
        return kinds.iter().map(kind).collect::<Vec<_>>().join(", or ");
    }
    if let Some(types) = schema["type"].as_array() {
        let one = |name: &Value| {
            let mut schema = schema.clone();
            schema["type"] = name.clone();
            if name != "string" {
                schema["maxLength"] = Value::Null;
            }
            kind(&schema)
        };
        return types.iter().map(one).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        let word = |word: &Value| word.as_str().map_or_else(|| word.to_string(), |word| format!("`{word}`"));
        return words.iter().map(word).collect::<Vec<_>>().join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => {
            let bound = |name: &str| schema[name].as_u64();
            let count = match (bound("minItems"), bound("maxItems")) {
                (Some(least), Some(most)) => format!(" of {least} to {most}"),
                (None, Some(most)) => format!(" of at most {most}"),
                _ => String::new(),
            };
            format!("list{count}: {}", kind(&schema["items"]))
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind(&schema["additionalProperties"]))
        }
        _ => type_of(schema),
    }
}
