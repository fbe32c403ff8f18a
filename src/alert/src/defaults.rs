//! The alerts that Hebb ships.

/// An AlertPolicy with all of them, as a file that `kubectl apply` and `hebb start -f` take.
pub const YAML: &str = include_str!("../../../examples/alertpolicy-defaults.yaml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use hebb_api::Severity;

    use super::*;
    use crate::policy::Policy;

    #[test]
    fn the_alerts_that_are_shipped_are_valid_and_each_has_its_page() {
        let resources = hebb_api::load::load(YAML).unwrap();
        let spec = &resources.policies[0].spec;
        let policy = Policy::new("default", "hebb-defaults", spec);
        assert!(policy.is_ok(), "{policy:?}");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks");
        let mut linked = BTreeSet::new();
        for rule in &spec.rules {
            let url = rule.annotations.runbook_url.as_deref().unwrap();
            let page = url.strip_prefix("https://github.com/hebb-dev/hebb/blob/main/docs/runbooks/").unwrap();
            let text = std::fs::read_to_string(folder.join(page)).unwrap();
            let priority = match rule.severity {
                Severity::Emergency => "P0",
                Severity::Critical => "P1",
                Severity::Warning => "P2",
                Severity::Info => "P3",
            };
            let said = format!("`{}` {priority}", rule.name);
            assert!(text.contains(&said), "{page} doesn't say {said}");
            linked.insert(page.to_owned());
        }
        let pages = std::fs::read_dir(&folder).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let of_prometheus = std::fs::read_to_string(root.join("integrations/prometheus/rules.yaml")).unwrap();
        for alert in of_prometheus.split("- alert: ").skip(1) {
            let (name, rest) = alert.split_once('\n').unwrap();
            let after = |before: &str| rest.split_once(before).unwrap().1;
            let priority = &after("priority: ")[..2];
            let page = after("/docs/runbooks/").split_once('\n').unwrap().0;
            let text = std::fs::read_to_string(folder.join(page)).unwrap();
            let said = format!("`{name}` {priority}");
            assert!(text.contains(&said), "{page} doesn't say {said}");
        }
        let is_linked = |page: &String| {
            page == "README.md" || linked.contains(page) || of_prometheus.contains(&format!("/docs/runbooks/{page}"))
        };
        let unlinked: Vec<String> = pages.filter(|page| !is_linked(page)).collect();
        assert_eq!(unlinked, [] as [&str; 0], "no alert links to these");
    }

    #[test]
    fn the_same_alert_is_as_severe_in_prometheus() {
        let rules = &hebb_api::load::load(YAML).unwrap().policies[0].spec.rules;
        let file = include_str!("../../../integrations/prometheus/rules.yaml");
        let mut twins = Vec::new();
        for alert in file.split("- alert: Hebb").skip(1) {
            let (name, rest) = alert.split_once('\n').unwrap();
            // ManyRejections is many-rejections.
            let kebab = name.split_inclusive(char::is_alphabetic).fold(String::new(), |kebab, letter| {
                let dash = if kebab.is_empty() || !letter.starts_with(char::is_uppercase) { "" } else { "-" };
                kebab + dash + &letter.to_lowercase()
            });
            let severity = rest.split_once("labels: {severity: ").unwrap().1.split_once(',').unwrap().0;
            if let Some(twin) = rules.iter().find(|rule| rule.name == kebab) {
                assert_eq!(format!("{:?}", twin.severity).to_lowercase(), severity, "{kebab}");
                twins.push(kebab);
            }
        }
        assert!(twins.len() >= 6 && twins.contains(&"queue-nearly-full".to_owned()), "{twins:?}");
    }

    #[test]
    fn the_other_example_is_valid_too() {
        let resources = hebb_api::load::load(include_str!("../../../examples/alertpolicy.yaml")).unwrap();
        assert_eq!(crate::problems(&resources.policies[0].spec), Vec::<String>::new());
    }
}
