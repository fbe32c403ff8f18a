//! Metrics by OpenTelemetry: what `/metrics` shows, pushed to a collector by OTLP over HTTP.
//!
//! Off unless `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, or a configuration
//! does. Names and labels are those of the scrape; counters and histograms are cumulative since the process started.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus::proto::{self, MetricFamily, MetricType};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::otlp::{OtlpError, destination, resource, variable};

/// How often metrics are pushed where nothing says otherwise; the standard's default.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How long a push may take.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long the end of a process waits for its last push.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// A part of the process that has metrics, by its role.
struct Source {
    role: &'static str,
    gather: Box<dyn Fn() -> Vec<MetricFamily> + Send>,
}

/// The parts whose metrics are pushed; there while an export is on.
static SOURCES: OnceLock<Mutex<Vec<Source>>> = OnceLock::new();

/// Where metrics go, where the environment doesn't say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// The collector, for example `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// From one push to the next.
    pub interval: Duration,
}

/// Offers the metrics of a part of this process to the export, where there is one.
pub fn offer(role: &'static str, gather: impl Fn() -> Vec<MetricFamily> + Send + 'static) {
    if let Some(sources) = SOURCES.get() {
        let source = Source { role, gather: Box::new(gather) };
        sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }
}

/// The export under way.
#[derive(Debug)]
pub struct Export {
    pusher: Arc<Pusher>,
    task: JoinHandle<()>,
}

/// Starts the export, if the environment asks for it, or a configuration does. `service` is the name of the process where
/// `OTEL_SERVICE_NAME` gives none. Runs on the runtime that this is called on.
///
/// # Errors
/// [`OtlpError`] where what is asked for can't be done.
pub fn export_metrics(service: &'static str, configured: Option<Collector>) -> Result<Option<Export>, OtlpError> {
    let Some(to) = destination("metrics", configured.as_ref().map(|collector| collector.endpoint.as_str()))? else {
        return Ok(None);
    };
    let configured = configured.filter(|_| to.is_configured).map_or(INTERVAL, |collector| collector.interval);
    let every = match variable("OTEL_METRIC_EXPORT_INTERVAL") {
        Some(text) => Duration::from_millis(text.parse().map_err(|_| OtlpError::Variable {
            name: "OTEL_METRIC_EXPORT_INTERVAL".to_owned(),
            value: text,
            expected: "milliseconds are expected, such as 60000",
        })?),
        None => configured,
    };
    let client = reqwest::Client::builder().timeout(SEND_WITHIN).default_headers(headers()?).build()?;
    let attributes = resource(service).iter().map(|(key, value)| attribute(key.as_str(), &value.as_str())).collect();
    let pusher = Arc::new(Pusher { client, url: to.url, attributes, began: now() });
    SOURCES.get_or_init(Mutex::default);
    let task = tokio::spawn(pusher.clone().run(every.max(INTERVAL_MIN)));
    Ok(Some(Export { pusher, task }))
}

/// What the environment wants to be said to the collector with each push.
fn headers() -> Result<HeaderMap, OtlpError> {
    let mut headers = HeaderMap::new();
    for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"] {
        let Some(value) = variable(name) else { continue };
        for pair in value.split(',').filter(|pair| !pair.trim().is_empty()) {
            let header = pair.split_once('=').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                let mut value = HeaderValue::from_str(value.trim()).ok()?;
                value.set_sensitive(true);
                Some((name, value))
            });
            let Some((header, value)) = header else {
                // The value may be a secret.
                let (value, expected) = ("…".to_owned(), "names and values are expected, as in name=value,name=value");
                return Err(OtlpError::Variable { name: name.to_owned(), value, expected });
            };
            headers.insert(header, value);
        }
    }
    Ok(headers)
}

impl Export {
    /// Pushes once more, and waits for it a little.
    pub async fn finish(self) {
        self.task.abort();
        // Whoever stops has nobody to tell that a collector is away.
        let _ = timeout(FINISH_WITHIN, self.pusher.push()).await;
    }
}

#[derive(Debug)]
struct Pusher {
    client: reqwest::Client,
    url: String,
    attributes: Vec<KeyValue>,
    /// Since when counters count, in nanoseconds of Unix time.
    began: u64,
}

impl Pusher {
    async fn run(self: Arc<Self>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once, and nothing has been measured.
        ticks.tick().await;
        let mut arrives = true;
        loop {
            ticks.tick().await;
            match self.push().await {
                Ok(()) => arrives = true,
                // Once for each time that the collector goes away.
                Err(error) if arrives => {
                    warn!(url = self.url, %error, "the collector doesn't take the metrics; they are pushed on");
                    arrives = false;
                }
                Err(error) => debug!(url = self.url, %error, "the collector doesn't take the metrics"),
            }
        }
    }

    async fn push(&self) -> Result<(), reqwest::Error> {
        let at = now();
        let resource_metrics = match SOURCES.get() {
            Some(sources) => {
                let sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
                sources.iter().map(|source| self.told(source.role, &(source.gather)(), at)).collect()
            }
            None => Vec::new(),
        };
        let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        request.send().await?.error_for_status().map(|_| ())
    }

    /// The metrics of one part, as OTLP has them.
    fn told(&self, role: &str, families: &[MetricFamily], at: u64) -> ResourceMetrics {
        let mut attributes = self.attributes.clone();
        attributes.push(attribute("hebb.role", role));
        let metrics = families.iter().filter_map(|family| metric(family, self.began, at)).collect();
        let scope = InstrumentationScope {
            name: "hebb".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// One metric with its series; nothing of a kind that Hebb doesn't have.
fn metric(family: &MetricFamily, began: u64, at: u64) -> Option<Metric> {
    let labels = |series: &proto::Metric| -> Vec<KeyValue> {
        series.get_label().iter().map(|label| attribute(label.name(), label.value())).collect()
    };
    let series = family.get_metric().iter();
    let cumulative = AggregationTemporality::Cumulative as i32;
    let number = |series: &proto::Metric, value: f64, start: u64| NumberDataPoint {
        attributes: labels(series),
        start_time_unix_nano: start,
        time_unix_nano: at,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: series.map(|series| number(series, series.get_counter().get_value(), began)).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge {
            data_points: series.map(|series| number(series, series.get_gauge().get_value(), 0)).collect(),
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: series
                .map(|series| HistogramDataPoint {
                    attributes: labels(series),
                    start_time_unix_nano: began,
                    time_unix_nano: at,
                    ..histogram(series.get_histogram())
                })
                .collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let (name, description) = (family.name().to_owned(), family.help().to_owned());
    Some(Metric { name, description, data: Some(data), ..Metric::default() })
}

/// The buckets of a scrape hold those below them; those of OTLP don't, and have one more for what is beyond the last bound.
fn histogram(scraped: &proto::Histogram) -> HistogramDataPoint {
    let finite = scraped.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let (mut below, mut explicit_bounds, mut bucket_counts) = (0, Vec::new(), Vec::new());
    for bucket in finite {
        explicit_bounds.push(bucket.upper_bound());
        bucket_counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = scraped.get_sample_count();
    bucket_counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        count,
        sum: Some(scraped.get_sample_sum()),
        explicit_bounds,
        bucket_counts,
        ..HistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn a_scrape_is_told_as_it_is() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("requests_total", "Requests"), &["operation"]).unwrap();
        counter.with_label_values(&["infer"]).inc_by(3);
        let gauge = IntGauge::new("queue_depth", "Entries").unwrap();
        gauge.set(7);
        let options = HistogramOpts::new("seconds", "Time").buckets(vec![0.1, 1.0]);
        let histogram = prometheus::Histogram::with_opts(options).unwrap();
        for seconds in [0.0625, 0.5, 0.5, 4.0] {
            histogram.observe(seconds);
        }
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let metrics: Vec<Metric> = registry.gather().iter().map(|family| metric(family, 1, 2).unwrap()).collect();
        let of = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();

        let Some(Data::Sum(sum)) = &of("requests_total").data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        let point = &sum.data_points[0];
        assert_eq!(point.attributes, [attribute("operation", "infer")]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(3.0)));

        let Some(Data::Gauge(gauge)) = &of("queue_depth").data else { panic!("{metrics:?}") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));

        let Some(Data::Histogram(histogram)) = &of("seconds").data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(5.0625)));
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!(point.bucket_counts, [1, 2, 1]);
        assert_eq!(of("seconds").description, "Time");
    }

    #[test]
    fn without_an_export_nothing_is_kept() {
        offer("nobody", || panic!("nobody asks"));
        assert!(SOURCES.get().is_none());
    }
}
