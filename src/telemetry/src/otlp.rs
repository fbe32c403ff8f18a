//! What traces and metrics have in common on their way to a collector: the standard variables, and one protocol.

use opentelemetry_sdk::Resource;

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The variables say something that can't be done.
    #[error("the traces can't be exported as the OTEL_ variables say")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A variable is not understood.
    #[error("{name}={value}: {expected}")]
    Variable {
        /// Its name.
        name: String,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// There is no TLS here.
    #[error("the collector has to be at an http:// address, such as that of an agent on the node")]
    Encrypted,
    /// The client can't be made.
    #[error("the client of the collector can't be set up")]
    Client(#[from] reqwest::Error),
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a signal (`traces` or `metrics`) goes.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Its whole address.
    pub(crate) url: String,
    /// Whether the environment said nothing, so that the configuration holds.
    pub(crate) is_configured: bool,
}

/// Where a signal goes; nothing where nobody asks for it. What the environment says goes before the base address that is
/// configured.
pub(crate) fn destination(signal: &str, configured: Option<&str>) -> Result<Option<Destination>, OtlpError> {
    find(signal, configured, variable)
}

fn find(
    signal: &str,
    configured: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Destination>, OtlpError> {
    let upper = signal.to_uppercase();
    let of_signal = |what: &str| variable(&format!("OTEL_EXPORTER_OTLP_{upper}_{what}"));
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(&format!("OTEL_{upper}_EXPORTER")).is_some_and(|value| value == "none");
    let under = |base: &str| format!("{}/v1/{signal}", base.trim_end_matches('/'));
    let told = of_signal("ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT").as_deref().map(under));
    let is_configured = told.is_none();
    let Some(url) = told.or_else(|| configured.map(under)).filter(|_| !is_off) else { return Ok(None) };
    if url.starts_with("https:") {
        return Err(OtlpError::Encrypted);
    }
    let protocol = of_signal("PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(value) = protocol.filter(|protocol| protocol != "http/protobuf") {
        let expected = "only http/protobuf is spoken here, which collectors take on port 4318";
        return Err(OtlpError::Variable { name: "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), value, expected });
    }
    Ok(Some(Destination { url, is_configured }))
}

/// Who speaks: as the environment says, and a service of this name otherwise.
pub(crate) fn resource(service: &'static str) -> Resource {
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    let resource = if is_named { resource } else { resource.with_service_name(service) };
    resource.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], configured: Option<&str>) -> Result<Option<String>, OtlpError> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Ok(find("metrics", configured, variable)?.map(|destination| destination.url))
    }

    #[test]
    fn the_environment_goes_before_the_configuration() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/");
        let exact = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:1/there");
        let url = |variables: &[(&str, &str)], configured| found(variables, configured).unwrap();
        assert_eq!(url(&[], None), None);
        assert_eq!(url(&[], Some("http://c:4318")).as_deref(), Some("http://c:4318/v1/metrics"));
        assert_eq!(url(&[general], Some("http://c:4318")).as_deref(), Some("http://a:4318/v1/metrics"));
        assert_eq!(url(&[general, exact], None).as_deref(), Some("http://b:1/there"));
        assert_eq!(url(&[general, ("OTEL_METRICS_EXPORTER", "none")], None), None);
        assert_eq!(url(&[("OTEL_SDK_DISABLED", "TRUE")], Some("http://c:4318")), None);
    }

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        let encrypted = found(&[], Some("https://c:4318")).unwrap_err();
        assert!(matches!(encrypted, OtlpError::Encrypted));
        let grpc = found(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], Some("http://c:4318")).unwrap_err();
        assert!(grpc.to_string().contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "{grpc}");
    }
}
