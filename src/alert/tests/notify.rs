//! Real deliveries to sinks on the loopback that refuse, hang, answer badly and break off.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

#[expect(dead_code, reason = "the tests of mail use other parts of it")]
mod sink;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hebb_alert::notify::{Delivered, Edges, Egress, Resolver, Secrets, send};
use hebb_alert::{
    FailureKind, Message, Observation, Policy, Record, SendError, Standing, Target, evaluate, receipt, take_due,
};
use hebb_api::{AlertPolicySpec, Receiver, SecretKeyRef};
use jiff::Timestamp;
use sink::{Authority, Behaviour, Sink};

const DEADLINE: Duration = Duration::from_secs(5);

fn loopback() -> Egress {
    Egress { exceptions: vec!["127.0.0.0/8".parse().unwrap()], ..Egress::default() }
}

fn edges() -> Edges {
    Edges::new(loopback(), Resolver::System, b"", None).unwrap()
}

fn receiver(yaml: &str) -> Receiver {
    serde_yaml::from_str(&format!("{{name: r, {yaml}}}")).unwrap()
}

fn webhook(url: &str) -> Receiver {
    receiver(&format!("webhook: {{url: '{url}'}}"))
}

fn secrets(values: &[(&str, &str)]) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, value) in values {
        secrets.insert(&SecretKeyRef { name: (*name).to_owned(), key: "k".to_owned() }, value);
    }
    secrets
}

fn message() -> Message {
    let mut message = Message::test("default/p", Timestamp::UNIX_EPOCH);
    message.alerts[0].runbook_url = "https://example.org/runbook".to_owned();
    message
}

async fn deliver(receiver: &Receiver, secrets: &Secrets) -> Result<Delivered, SendError> {
    send(receiver, &message(), secrets, &edges(), DEADLINE).await
}

/// What comes of a delivery to a sink that behaves so.
async fn check(behaviour: Behaviour) -> SendError {
    let sink = Sink::start(vec![behaviour]).await;
    deliver(&webhook(&sink.url("/")), &Secrets::default()).await.unwrap_err()
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (behaviour, kind, transient) in [
        (Behaviour::status("400 Bad Request"), FailureKind::ClientError, false),
        (Behaviour::status("401 Unauthorized"), FailureKind::AuthError, false),
        (Behaviour::status("429 Too Many Requests"), FailureKind::RateLimited, true),
        (Behaviour::status("500 Internal Server Error"), FailureKind::ServerError, true),
        (Behaviour::Reset, FailureKind::AnswerLost, true),
        (Behaviour::Endless, FailureKind::ServerError, true),
    ] {
        let error = check(behaviour.clone()).await;
        assert_eq!((error.kind, error.transient), (kind, transient), "{behaviour:?}: {error}");
        assert!(error.reason.len() < 256, "{error}");
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_handed_on() {
    let answer = Behaviour::Answer("429 Too Many Requests", "retry-after: 7\r\n", "slow down".to_owned());
    let error = check(answer).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.reason, "the receiver answered 429: slow down");
}

#[tokio::test]
async fn a_hanging_receiver_costs_no_more_than_the_deadline() {
    let sink = Sink::start(vec![Behaviour::Hang]).await;
    let began = Instant::now();
    let error =
        send(&webhook(&sink.url("/")), &message(), &Secrets::default(), &edges(), Duration::from_millis(300)).await;
    assert_eq!(error.unwrap_err().kind, FailureKind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_a_receiver_has_said_stands_though_its_answer_never_ends() {
    for beginning in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"]
    {
        let sink = Sink::start(vec![Behaviour::Stall(beginning)]).await;
        assert_eq!(
            deliver(&webhook(&sink.url("/")), &Secrets::default()).await,
            Ok(Delivered::default()),
            "{beginning}"
        );
    }
    let refusal = "HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwrong\r\n";
    let error = check(Behaviour::Stall(refusal)).await;
    assert_eq!((error.kind, error.transient), (FailureKind::ClientError, false));
    assert_eq!(error.reason, "the receiver answered 400: wrong");
}

#[tokio::test]
async fn nobody_listening_is_a_refused_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = deliver(&webhook(&url), &Secrets::default()).await.unwrap_err();
    assert_eq!((error.kind, error.reason.as_str()), (FailureKind::Connect, "the connection was refused"));
}

/// The ledger: whatever the receiver does, each transition arrives once; again only where an answer was lost, under the same key.
#[tokio::test]
async fn every_transition_arrives_once_unless_an_answer_was_lost() {
    let busy = Behaviour::Answer("429 Too Many Requests", "retry-after: 20\r\n", String::new());
    let ok = Behaviour::status("200 OK");
    let trouble = Behaviour::status("500 Internal Server Error");
    let sink = Sink::start(vec![trouble, busy, Behaviour::Reset, ok.clone(), Behaviour::Reset, ok]).await;
    let spec: AlertPolicySpec = serde_yaml::from_str(&format!(
        "{{targetRef: {{name: demo}}, rules: [{{name: down, expr: {{indicator: up, operator: LessThan, threshold: 1}}}}], routes: [{{receiver: hook, groupWait: 0s, groupInterval: 1m}}], receivers: [{{name: hook, webhook: {{url: '{}'}}}}]}}",
        sink.url("/")
    ))
    .unwrap();
    let policy = Policy::new("default", "p", &spec).unwrap();
    let mut history = policy.history();
    let mut stored = Record::default().to_json().unwrap();
    for second in 0..600 {
        let now = Timestamp::from_second(1_767_225_600 + second).unwrap();
        let mut record = Record::from_json(&stored).unwrap();
        let sends = if second % 15 == 0 {
            let samples = [("up".to_owned(), if second < 200 { 0.0 } else { 1.0 })].into();
            let target = Target { samples, ..Target::default() };
            let seen = Observation { now, targets: [("demo".to_owned(), target)].into() };
            let decision = evaluate(&policy, &mut history, record, &seen);
            record = decision.record;
            decision.sends
        } else {
            take_due(&mut record, &spec.receivers, now)
        };
        stored = record.to_json().unwrap();
        for delivery in sends {
            let sent =
                send(&spec.receivers[0], &delivery.message, &Secrets::default(), &edges(), delivery.deadline).await;
            receipt(&mut record, &delivery.key, sent.as_ref().map(|_| ()), now);
            stored = record.to_json().unwrap();
        }
    }
    let seen: Vec<(String, String)> = sink
        .seen()
        .iter()
        .map(|seen| {
            (seen.json()["status"].as_str().unwrap().to_owned(), seen.header("x-idempotency-key").unwrap().to_owned())
        })
        .collect();
    let statuses: Vec<&str> = seen.iter().map(|(status, _)| status.as_str()).collect();
    // 500, 429 and a lost answer, then it is taken; the end's first answer is lost as well.
    assert_eq!(statuses, ["Firing", "Firing", "Firing", "Firing", "Resolved", "Resolved"]);
    let keys: std::collections::BTreeSet<&str> = seen.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(keys.len(), 2, "a key for each transition: {seen:?}");
    assert!(seen[..4].iter().all(|(_, key)| *key == seen[0].1));
    let record = Record::from_json(&stored).unwrap();
    assert_eq!((record.outbox.len(), record.deliveries["hook"].succeeded), (0, 2));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Sink::start(vec![Behaviour::status("200 OK")]).await;
    let location: &'static str = Box::leak(format!("location: {}\r\n", elsewhere.url("/")).into_boxed_str());
    let error = check(Behaviour::Answer("302 Found", location, String::new())).await;
    assert_eq!((error.kind, error.transient), (FailureKind::Redirect, false));
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn a_long_answer_is_cut() {
    let error = check(Behaviour::Answer("400 Bad Request", "", "page ".repeat(2_000))).await;
    assert!(error.reason.len() < 200, "{error}");
}

#[tokio::test]
async fn a_webhook_is_signed_keyed_and_templated() {
    let sink = Sink::start(vec![Behaviour::status("204 No Content")]).await;
    let receiver = receiver(
        "webhook: {urlSecretRef: {name: url, key: k}, hmacSecretRef: {name: hmac, key: k}, authorizationSecretRef: {name: token, key: k}, body: '{\"t\": {{ message.title|tojson }}}'}",
    );
    let url = sink.url("/hook?a=b");
    let secrets = secrets(&[("url", &url), ("hmac", "key"), ("token", "Bearer t0ken")]);
    assert_eq!(deliver(&receiver, &secrets).await, Ok(Delivered::default()));
    assert_eq!(deliver(&receiver, &secrets).await, Ok(Delivered::default()));
    let seen = sink.seen();
    assert!(seen[0].head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", seen[0].head);
    assert_eq!(seen[0].body, "{\"t\": \"a test of this receiver\"}");
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(seen[0].header("authorization"), Some("Bearer t0ken"));
    // printf '%s' BODY | openssl dgst -sha256 -hmac key
    assert_eq!(
        seen[0].header("x-hebb-signature"),
        Some("sha256=1633de7aaaa44660445bbb727e224278119f71dd11752ba47506012265dedf38")
    );
    assert_eq!(seen[0].header("x-idempotency-key"), Some(message().idempotency_key.as_str()));
    assert_eq!(seen[0].header("x-idempotency-key"), seen[1].header("x-idempotency-key"));
    let plain = Sink::start(vec![Behaviour::status("200 OK")]).await;
    deliver(&webhook(&plain.url("/")), &Secrets::default()).await.unwrap();
    assert_eq!(plain.seen()[0].json()["idempotencyKey"], message().idempotency_key);
}

#[tokio::test]
async fn chats_and_incidents_get_what_they_take() {
    let sink = Sink::start(vec![Behaviour::status("200 OK")]).await;
    let url = sink.url("/services/T0/B0/verysecret");
    let secrets = secrets(&[("s", &url), ("p", "routing-key")]);
    deliver(&receiver("slack: {urlSecretRef: {name: s, key: k}}"), &secrets).await.unwrap();
    deliver(&receiver("discord: {urlSecretRef: {name: s, key: k}}"), &secrets).await.unwrap();
    let base = sink.url("/");
    deliver(&receiver(&format!("pagerduty: {{routingKeySecretRef: {{name: p, key: k}}, url: '{base}'}}")), &secrets)
        .await
        .unwrap();
    let seen = sink.seen();
    assert!(seen[0].json()["text"].as_str().unwrap().contains("[FIRING] Info"));
    assert!(seen[1].json()["content"].as_str().unwrap().contains("FIRING"));
    assert!(seen[2].head.starts_with("POST /v2/enqueue "), "{}", seen[2].head);
    assert_eq!(seen[2].json()["routing_key"], "routing-key");
    assert_eq!(seen[2].json()["dedup_key"], message().group);
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said_without_a_secret() {
    let sink = Sink::start(vec![Behaviour::Answer(
        "404 Not Found",
        "",
        "no such hook: /services/T0/B0/verysecret".to_owned(),
    )])
    .await;
    let slack = receiver("slack: {urlSecretRef: {name: s, key: k}}");
    let error = deliver(&slack, &Secrets::default()).await.unwrap_err();
    assert_eq!((error.kind, error.reason.as_str()), (FailureKind::Secret, "there is no Secret s with the key k"));
    for url in [sink.url("/services/T0/B0/verysecret"), "verysecret".to_owned(), "ftp://h/verysecret".to_owned()] {
        let error = deliver(&slack, &secrets(&[("s", &url)])).await.unwrap_err();
        assert!(!error.transient && !error.reason.contains("verysecret"), "{error}");
        assert!(!format!("{error:?}").contains("verysecret"));
    }
}

#[tokio::test]
async fn connections_go_nowhere_but_where_they_may() {
    let sink = Sink::start(vec![Behaviour::status("200 OK")]).await;
    let port = sink.address.port();
    let at = |addresses: &[&str]| -> Vec<IpAddr> { addresses.iter().map(|address| address.parse().unwrap()).collect() };
    let table: BTreeMap<String, Vec<IpAddr>> = [
        ("loopback.example".to_owned(), at(&["127.0.0.1"])),
        ("mixed.example".to_owned(), at(&["93.184.216.34", "127.0.0.1"])),
        ("metadata.example".to_owned(), at(&["169.254.169.254"])),
        ("mapped.example".to_owned(), at(&["::ffff:127.0.0.1"])),
        ("private.example".to_owned(), at(&["10.96.0.1"])),
    ]
    .into();
    let strict = Edges::new(Egress::default(), Resolver::Table(table.clone()), b"", None).unwrap();
    for host in [
        "loopback.example",
        "mixed.example",
        "metadata.example",
        "mapped.example",
        "private.example",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "0.0.0.0",
    ] {
        for (member, values) in
            [(format!("webhook: {{url: 'http://{host}:{port}/', allowPrivate: true}}"), Secrets::default())]
        {
            let error = send(&receiver(&member), &message(), &values, &strict, DEADLINE).await.unwrap_err();
            assert_eq!((error.kind, error.transient), (FailureKind::Denied, false), "{host}: {error}");
        }
        let mail = receiver(&format!(
            "email: {{host: '{host}', port: {port}, security: None, from: a@b.c, to: [a@b.c], allowPrivate: true}}"
        ));
        let error = send(&mail, &message(), &Secrets::default(), &strict, DEADLINE).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Denied, "{host}: {error}");
    }
    assert_eq!(sink.seen().len(), 0);

    // Only this table knows the name, so that the connection can only have gone to the address that was checked.
    let open = Edges::new(loopback(), Resolver::Table(table), b"", None).unwrap();
    let named = webhook(&format!("http://loopback.example:{port}/"));
    send(&named, &message(), &Secrets::default(), &open, DEADLINE).await.unwrap();
    assert_eq!(sink.seen()[0].header("host"), Some(format!("loopback.example:{port}").as_str()));
    let denied = Egress { denied: vec!["127.0.0.1".parse().unwrap()], ..loopback() };
    let denied = Edges::new(denied, Resolver::System, b"", None).unwrap();
    let error = send(&webhook(&sink.url("/")), &message(), &Secrets::default(), &denied, DEADLINE).await.unwrap_err();
    assert_eq!(error.reason, "the host's address is one that is denied");

    // The system resolves other notations of an address as well.
    let error = send(
        &webhook(&format!("http://2130706433:{port}/")),
        &message(),
        &Secrets::default(),
        &self::strict(),
        DEADLINE,
    )
    .await;
    assert!(matches!(error.unwrap_err().kind, FailureKind::Denied | FailureKind::Dns));
    let error =
        send(&webhook("http://does-not-exist.invalid/"), &message(), &Secrets::default(), &self::strict(), DEADLINE)
            .await;
    assert_eq!(error.unwrap_err().kind, FailureKind::Dns);
}

fn strict() -> Edges {
    Edges::new(Egress::default(), Resolver::System, b"", None).unwrap()
}

#[tokio::test]
async fn a_certificate_has_to_be_trusted_in_time_and_for_the_host() {
    let table: BTreeMap<String, Vec<IpAddr>> = [
        ("hooks.example".to_owned(), vec!["127.0.0.1".parse().unwrap()]),
        ("other.example".to_owned(), vec!["127.0.0.1".parse().unwrap()]),
    ]
    .into();
    let ask = async |host: &str, year: i32, trusts: bool| {
        let authority = Authority::new("hooks.example", year);
        let sink = Sink::start_tls(vec![Behaviour::status("200 OK")], authority.server()).await;
        let roots = if trusts { authority.root.clone() } else { String::new() };
        let edges = Edges::new(loopback(), Resolver::Table(table.clone()), roots.as_bytes(), None).unwrap();
        let url = format!("https://{host}:{}/", sink.address.port());
        send(&webhook(&url), &message(), &Secrets::default(), &edges, DEADLINE).await
    };
    assert_eq!(ask("hooks.example", 2200, true).await, Ok(Delivered::default()));
    for (host, year, trusts) in
        [("hooks.example", 2020, true), ("other.example", 2200, true), ("hooks.example", 2200, false)]
    {
        let error = ask(host, year, trusts).await.unwrap_err();
        assert_eq!((error.kind, error.transient), (FailureKind::Tls, false), "{host} {year} {trusts}: {error}");
        assert!(error.reason.contains("isn't trusted"), "{error}");
    }
}

#[tokio::test]
async fn secrets_go_over_tls_alone() {
    let table = [("hooks.example".to_owned(), vec!["93.184.216.34".parse().unwrap()])].into();
    let edges = Edges::new(Egress::default(), Resolver::Table(table), b"", None).unwrap();
    let slack = receiver("slack: {urlSecretRef: {name: s, key: k}}");
    let secrets = secrets(&[("s", "http://hooks.example/x")]);
    let error = send(&slack, &message(), &secrets, &edges, DEADLINE).await.unwrap_err();
    assert_eq!(error.reason, "the URL must begin with https://");
}

#[tokio::test]
async fn files_get_lines_in_the_folder_that_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let edges = Edges::new(Egress::default(), Resolver::System, b"", Some(folder.path().to_owned())).unwrap();
    let file = receiver("file: {name: alerts.jsonl}");
    for _ in 0..2 {
        send(&file, &message(), &Secrets::default(), &edges, DEADLINE).await.unwrap();
    }
    let text = std::fs::read_to_string(folder.path().join("alerts.jsonl")).unwrap();
    let lines: Vec<Message> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [message(), message()]);
    for name in ["../x", "/etc/x", ".x", ""] {
        let mut file = file.clone();
        file.file.as_mut().unwrap().name = name.to_owned();
        assert_eq!(
            send(&file, &message(), &Secrets::default(), &edges, DEADLINE).await.unwrap_err().kind,
            FailureKind::File
        );
    }
    let error = send(&file, &message(), &Secrets::default(), &strict(), DEADLINE).await.unwrap_err();
    assert!(error.reason.contains("no folder"), "{error}");
}

#[tokio::test]
async fn events_are_left_to_the_caller_and_the_log_takes_everything() {
    let events = deliver(&receiver("event: {}"), &Secrets::default()).await.unwrap().events;
    assert_eq!((events.len(), events[0].warning, events[0].reason), (1, true, "AlertFiring"));
    let mut ended = message();
    ended.alerts[0].status = Standing::Resolved;
    let events = send(&receiver("event: {}"), &ended, &Secrets::default(), &edges(), DEADLINE).await.unwrap().events;
    assert_eq!((events[0].warning, events[0].reason), (false, "AlertResolved"));
    assert_eq!(deliver(&receiver("log: {}"), &Secrets::default()).await, Ok(Delivered::default()));
}
