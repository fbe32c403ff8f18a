//! What a collector hears of the processes of a cluster: one trace from a client through gateway, log and worker, and the
//! metrics of every role.

mod process;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use process::{Running, free_port};
use prost::Message;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: traced}
spec: {domains: [{name: d, task: Classification}]}
";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Heard {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
}

/// What was sent to each path, in order.
type Ear = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector: takes what is sent by HTTP.
fn collector() -> Result<(String, Ear)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let ear = Ear::default();
    let kept = ear.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || {
                while let Ok(sent) = take(&stream) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
                }
            });
        }
    });
    Ok((address, ear))
}

fn take(stream: &TcpStream) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).ok_or("nobody speaks any more")?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if let Some(kind) = line.strip_prefix("content-type:") {
            assert_eq!(kind.trim(), "application/x-protobuf");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut out = stream;
    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    Ok((path, body))
}

/// All spans that were sent.
fn spans_of(ear: &Ear) -> Result<Vec<Heard>> {
    let sent = ear.lock().unwrap_or_else(PoisonError::into_inner);
    let batches = sent.iter().filter(|(path, _)| path == "/v1/traces");
    let decoded = batches.map(|(_, body)| ExportTraceServiceRequest::decode(body.as_slice()));
    Ok(decoded.collect::<std::result::Result<Vec<_>, _>>()?.iter().flat_map(spans).collect())
}

fn attribute(resource: Option<&Resource>, key: &str) -> String {
    let attributes = resource.iter().flat_map(|resource| &resource.attributes);
    let text = attributes.filter(|one| one.key == key).find_map(|one| match &one.value.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(text.clone()),
        _ => None,
    });
    text.unwrap_or_default()
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Heard> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut heard = Vec::new();
    for resource in &request.resource_spans {
        let service = attribute(resource.resource.as_ref(), "service.name");
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            heard.push(Heard {
                service: service.clone(),
                name: span.name.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
            });
        }
    }
    heard
}

fn role(role: &str, folder: &Path, redis: u16, collector: &str, port: u16) -> Result<Running> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(role))?;
    let child = Command::new(env!("CARGO_BIN_EXE_hebb"))
        .current_dir(folder)
        .args([role, "-f", "cluster.yaml", "--id", role, "--listen", &format!("127.0.0.1:{port}")])
        .args(["--redis-port", &redis.to_string(), "--meta-port", &free_port()?.to_string()])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .stderr(Stdio::from(log))
        .spawn()?;
    Ok(Running(child))
}

#[test]
fn one_trace_goes_from_the_client_through_the_log_to_the_worker() -> Result {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("cluster.yaml"), CLUSTER)?;
    let (collector, ear) = collector()?;
    let redis = free_port()?;
    let _redis = Running(
        Command::new("redis-server")
            .args(["--port", &redis.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::null())
            .spawn()?,
    );
    let port = free_port()?;
    let _roles = [
        role("coordinator", folder.path(), redis, &collector, free_port()?)?,
        role("worker", folder.path(), redis, &collector, free_port()?)?,
        role("gateway", folder.path(), redis, &collector, port)?,
    ];
    let url = format!("http://127.0.0.1:{port}/v1/domains/d/infer-and-adapt");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let learn = |id: &str, traceparent: Option<&str>| -> Result {
        let begun = Instant::now();
        loop {
            let body = format!(r#"{{"id":"{id}","features":[1,2],"label":"a"}}"#);
            let mut request = reqwest::Client::new().post(&url).body(body);
            if let Some(traceparent) = traceparent {
                request = request.header("traceparent", traceparent);
            }
            let status = runtime.block_on(async { request.send().await.map(|answer| answer.status()) });
            match status {
                Ok(status) if status == 200 => return Ok(()),
                other if begun.elapsed() > WITHIN => return Err(format!("never answered: {other:?}").into()),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    // Without a trace of the client's this sampler records nothing.
    learn("untraced", None)?;
    learn("unsampled", Some(&format!("00-{TRACE}-{CLIENT}-00")))?;
    learn("traced", Some(&format!("00-{TRACE}-{CLIENT}-01")))?;
    let begun = Instant::now();
    let heard = loop {
        let heard = spans_of(&ear)?;
        if heard.len() >= 4 {
            break heard;
        }
        if begun.elapsed() > WITHIN {
            let told = |role: &str| std::fs::read_to_string(folder.path().join(role)).unwrap_or_default();
            return Err(format!("only {heard:?}\n{}\n{}", told("gateway"), told("worker")).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let named = |name: &str| heard.iter().find(|span| span.name == name).ok_or(format!("no {name} among {heard:?}"));
    let request = named("POST /v1/domains/{domain}/infer-and-adapt")?;
    let (append, apply, answer) = (named("append")?, named("apply")?, named("answer")?);
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert!(heard.iter().all(|span| span.trace == TRACE), "{heard:?}");
    assert_eq!(
        [&request.parent, &append.parent, &answer.parent, &apply.parent],
        [CLIENT, &request.id, &request.id, &append.id]
    );
    for (span, service) in [(request, "gateway"), (append, "gateway"), (answer, "gateway"), (apply, "worker")] {
        assert_eq!(span.service, format!("hebb-{service}"));
    }
    Ok(())
}

/// The numbers of a metric as they were pushed last, by role.
fn pushed(ear: &Ear, name: &str) -> Result<BTreeMap<String, f64>> {
    let mut numbers = BTreeMap::new();
    for (_, body) in ear.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(path, _)| path == "/v1/metrics")
    {
        for resource in ExportMetricsServiceRequest::decode(body.as_slice())?.resource_metrics {
            assert_eq!(attribute(resource.resource.as_ref(), "service.name"), "hebb");
            let role = attribute(resource.resource.as_ref(), "hebb.role");
            let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            for metric in metrics.filter(|metric| metric.name == name) {
                let points = match &metric.data {
                    Some(Data::Sum(sum)) => &sum.data_points,
                    Some(Data::Gauge(gauge)) => &gauge.data_points,
                    other => return Err(format!("{name} is {other:?}").into()),
                };
                for point in points {
                    if let Some(number_data_point::Value::AsDouble(value)) = point.value {
                        numbers.insert(role.clone(), value);
                    }
                }
            }
        }
    }
    Ok(numbers)
}

#[test]
fn the_metrics_of_every_role_are_pushed_also_as_a_process_ends() -> Result {
    let folder = tempfile::tempdir()?;
    let (collector, ear) = collector()?;
    let metrics = format!("{CLUSTER}  metrics: {{endpoint: 'http://{collector}', interval: 1s}}\n");
    let metrics = metrics.replace(
        "spec: {domains: [{name: d, task: Classification}]}",
        "spec:\n  domains: [{name: d, task: Classification}]",
    );
    std::fs::write(folder.path().join("cluster.yaml"), metrics)?;
    let port = free_port()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    command.current_dir(folder.path()).args(["start", "-f", "cluster.yaml", "--port", &port.to_string()]);
    for option in ["--coordinator-port", "--meta-port", "--worker-port"] {
        command.args([option, &free_port()?.to_string()]);
    }
    let mut process = Running(command.stderr(Stdio::null()).spawn()?);
    let within = |what: &dyn Fn() -> Result<bool>| -> Result {
        let begun = Instant::now();
        while !what()? {
            if begun.elapsed() > WITHIN {
                return Err("not within a minute".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    within(&|| Ok(pushed(&ear, "process_resident_memory_bytes")?.len() == 3))?;
    let memory = pushed(&ear, "process_resident_memory_bytes")?;
    assert_eq!(memory.keys().collect::<Vec<_>>(), ["coordinator", "gateway", "worker"]);
    assert!(memory.values().all(|bytes| *bytes > 1e6), "{memory:?}");

    // What was applied just before the end is told at the end.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("http://127.0.0.1:{port}/v1/domains/d/infer-and-adapt");
    for id in 0..7 {
        let body = format!(r#"{{"id":"e{id}","features":[1,2],"label":"a"}}"#);
        runtime.block_on(async { reqwest::Client::new().post(&url).body(body).send().await?.error_for_status() })?;
    }
    Command::new("kill").arg(process.0.id().to_string()).status()?;
    assert!(process.0.wait()?.success());
    assert_eq!(pushed(&ear, "tasks_processed")?.get("worker"), Some(&7.0));
    Ok(())
}
