//! Traces by OpenTelemetry: spans, and their export to a collector by OTLP over HTTP.
//!
//! Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector; the other standard
//! variables, of samplers, batches, headers and resources, hold too. While it is off a span costs one look at a variable.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

pub use opentelemetry::trace::SpanKind;

use crate::otlp::{OtlpError, destination, resource, variable};

/// How long a batch may take on its way.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long the end of a process waits for its last batch.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// What is read of a collector's answer.
const ANSWER_MAX: usize = 64 << 10;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The export under way.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

/// Where traces go and how many, where the environment doesn't say.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// The collector, for example `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// Share of the requests that are part of no trace yet, 0 to 1.
    pub share: f64,
}

/// Starts the export, if the environment asks for it, or a configuration does. `service` is the name of the process where
/// `OTEL_SERVICE_NAME` gives none. Batches are sent on the runtime that this is called on.
///
/// # Errors
/// [`OtlpError`] where what is asked for can't be done.
pub fn export_traces(service: &'static str, configured: Option<Collector>) -> Result<Option<Export>, OtlpError> {
    let Some(to) = destination("traces", configured.as_ref().map(|collector| collector.endpoint.as_str()))? else {
        return Ok(None);
    };
    let client = reqwest::Client::builder().timeout(SEND_WITHIN).build()?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(OnRuntime { client, handle: Handle::current() })
        .with_endpoint(to.url)
        .build()?;
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service));
    let configured = configured.filter(|_| to.is_configured && variable("OTEL_TRACES_SAMPLER").is_none());
    let provider = match configured {
        Some(Collector { share, .. }) => {
            provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
        }
        None => provider,
    };
    let provider = provider.build();
    TRACER.get_or_init(|| provider.tracer("hebb"));
    Ok(Some(Export(provider)))
}

impl Export {
    /// Sends what is left, and waits for it a little.
    pub async fn finish(self) {
        let shut = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FINISH_WITHIN)).await;
        // Whoever stops has nobody to tell that a collector is away.
        drop(shut);
    }
}

/// Whether spans are exported.
pub fn is_traced() -> bool {
    TRACER.get().is_some()
}

/// The exporter has a thread of its own, the client needs the runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    handle: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.handle.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                let room = ANSWER_MAX - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() == ANSWER_MAX {
                    break;
                }
            }
            Ok::<_, HttpError>(Response::builder().status(answer.status()).body(Bytes::from(body))?)
        });
        sent.await?
    }
}

/// Where a span stands in a trace, as `traceparent` of W3C Trace Context says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
    is_sampled: bool,
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// A text is no `traceparent`.
#[derive(Debug, thiserror::Error)]
#[error("no traceparent")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// A later version may say more after the flags; what version 0 says stays where it is.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.splitn(5, '-');
        let mut part = |length| parts.next().filter(|part| is_hex(part, length)).ok_or(NoTraceParent);
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NoTraceParent);
        }
        let parent = Self {
            trace: TraceId::from_hex(trace).map_err(|_| NoTraceParent)?,
            span: SpanId::from_hex(span).map_err(|_| NoTraceParent)?,
            is_sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
        };
        if parent.trace == TraceId::INVALID || parent.span == SpanId::INVALID {
            return Err(NoTraceParent);
        }
        Ok(parent)
    }
}

/// Work that is under way; it ends when the value is dropped.
#[derive(Debug)]
pub struct Span(Option<opentelemetry_sdk::trace::Span>);

impl Span {
    /// Begins work that is part of `parent`, or a trace of its own.
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: Option<TraceParent>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let context = match parent {
            Some(TraceParent { trace, span, is_sampled }) => {
                let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
                let remote = SpanContext::new(trace, span, flags, true, TraceState::default());
                Context::new().with_remote_span_context(remote)
            }
            None => Context::new(),
        };
        Self(Some(tracer.build_with_context(SpanBuilder::from_name(name).with_kind(kind), &context)))
    }

    /// What its parts are told; nothing where it isn't recorded, so that neither are they.
    pub fn context(&self) -> Option<TraceParent> {
        let context = self.0.as_ref().map(|span| span.span_context()).filter(|context| context.is_sampled())?;
        Some(TraceParent { trace: context.trace_id(), span: context.span_id(), is_sampled: true })
    }

    /// Says something about it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Says that it failed.
    pub fn fail(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::Error { description: Cow::Borrowed(why) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_said_as_it_was() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
        assert!(text.replace("00-4b", "01-4b").parse::<TraceParent>().is_ok());
        assert!((text.replace("00-4b", "01-4b") + "-more").parse::<TraceParent>().is_ok());
        let unsampled: TraceParent = text.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.is_sampled);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let zero = format!("00-{:032}-00f067aa0ba902b7-01", 0);
        let upper = text.to_uppercase();
        let more = format!("{text}-more");
        let forbidden = text.replace("00-4b", "ff-4b");
        for bad in ["", "-", "00", "00-1-2-3", &text[..54], &zero, &upper, &more, &forbidden] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_an_export_there_are_no_spans() {
        let mut span = Span::begin("nothing", SpanKind::Internal, None);
        span.set("a", "b");
        span.fail("no reason");
        assert_eq!(span.context(), None);
    }
}
