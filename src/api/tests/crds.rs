//! `crds/`, and its copy in the chart, are generated: this fails when it is stale, and `HEBB_UPDATE=1 cargo test -p hebb-api --test crds` mends it.

use std::path::Path;

#[test]
fn the_crds_in_the_tree_are_those_of_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for folder in ["crds", "charts/hebb/files/crds"] {
        for (name, yaml) in hebb_api::crd_yaml().unwrap() {
            let path = root.join(folder).join(&name);
            if std::env::var_os("HEBB_UPDATE").is_some() {
                std::fs::write(&path, &yaml).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == yaml, "{folder}/{name} is stale: HEBB_UPDATE=1 cargo test -p hebb-api --test crds");
        }
    }
}

#[test]
fn a_reader_of_yaml_1_1_finds_no_value_of_a_type_that_it_cannot_read() {
    for (crd, (name, yaml)) in hebb_api::crds().iter().zip(hebb_api::crd_yaml().unwrap()) {
        let plain = yaml.lines().find(|line| line.ends_with(": =") || line.ends_with("- ="));
        assert_eq!(plain, None, "{name}: a plain '='");
        let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(crd).unwrap(), "{name} says something else than the types");
    }
}

#[test]
fn every_field_has_a_description() {
    for crd in hebb_api::crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let properties = &schema["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            undescribed(&properties[part], part);
        }
    }
}

fn undescribed(schema: &serde_json::Value, path: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        assert!(property["description"].is_string(), "{path} has no description");
        undescribed(property, &path);
        undescribed(&property["items"], &path);
    }
}
