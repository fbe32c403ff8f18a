//! What the operator counts of itself. Labels come from closed sets.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// The operator's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    duration: HistogramVec,
    outcomes: IntCounterVec,
    writes: IntCounterVec,
    leads: IntGauge,
    watch_age: Histogram,
    watch_ages: GaugeVec,
    told: IntCounterVec,
    admitted: IntCounterVec,
    admission: Histogram,
}

impl Metrics {
    /// A registry of its own.
    ///
    /// # Errors
    /// A metric that can't be registered.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
        let duration = HistogramVec::new(
            HistogramOpts::new("hebb_reconcile_duration_seconds", "Duration of a reconcile, in seconds")
                .buckets(buckets),
            &["kind"],
        )?;
        let outcomes = IntCounterVec::new(
            Opts::new("hebb_reconcile_total", "Reconciles by kind and outcome: settled, waiting, failed"),
            &["kind", "outcome"],
        )?;
        let writes = IntCounterVec::new(
            Opts::new("hebb_api_writes_total", "Writes to the API server by kind and verb, without lease renewals"),
            &["kind", "verb"],
        )?;
        let leads = IntGauge::new("hebb_operator_leads", "1 on the operator that leads")?;
        let watch_age = Histogram::with_opts(
            HistogramOpts::new(
                "hebb_watch_silence_seconds",
                "Time between two events of the watch that proves watching",
            )
            .buckets(vec![1.0, 3.0, 5.0, 10.0, 20.0, 60.0]),
        )?;
        let watch_ages = GaugeVec::new(
            Opts::new("hebb_watch_age_seconds", "Time since a watch last received anything, bookmarks included"),
            &["resource"],
        )?;
        let told = IntCounterVec::new(
            Opts::new("hebb_alert_deliveries_total", "Attempts to deliver alerts, by outcome: delivered, failed"),
            &["outcome"],
        )?;
        let admitted = IntCounterVec::new(
            Opts::new(
                "hebb_admission_reviews_total",
                "Reviews of the webhook by kind and outcome: allowed, warned, refused, malformed, late",
            ),
            &["kind", "outcome"],
        )?;
        let admission = Histogram::with_opts(
            HistogramOpts::new(
                "hebb_admission_duration_seconds",
                "Duration of a review that got a verdict, in seconds",
            )
            .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
        )?;
        registry.register(Box::new(admitted.clone()))?;
        registry.register(Box::new(admission.clone()))?;
        registry.register(Box::new(told.clone()))?;
        registry.register(Box::new(watch_ages.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(leads.clone()))?;
        registry.register(Box::new(watch_age.clone()))?;
        Ok(Self { registry, duration, outcomes, writes, leads, watch_age, watch_ages, told, admitted, admission })
    }

    /// A pass has ended.
    pub fn reconciled(&self, kind: &str, outcome: &str, duration: Duration) {
        self.duration.with_label_values(&[kind]).observe(duration.as_secs_f64());
        self.outcomes.with_label_values(&[kind, outcome]).inc();
    }

    /// A write was sent.
    pub fn wrote(&self, kind: &str, verb: &str) {
        self.writes.with_label_values(&[kind, verb]).inc();
    }

    /// Whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// A message was handed over, or not.
    pub fn told(&self, outcome: &str) {
        self.told.with_label_values(&[outcome]).inc();
    }

    /// A review of the webhook got its verdict.
    pub fn admitted(&self, kind: &str, outcome: &str, duration: Duration) {
        self.admission.observe(duration.as_secs_f64());
        self.admitted.with_label_values(&[kind, outcome]).inc();
    }

    /// A request to the webhook got none.
    pub fn not_admitted(&self, outcome: &str) {
        self.admitted.with_label_values(&["Other", outcome]).inc();
    }

    /// How long each watch has been silent.
    pub fn watches(&self, ages: &BTreeMap<String, Duration>) {
        for (resource, age) in ages {
            self.watch_ages.with_label_values(&[resource]).set(age.as_secs_f64());
        }
    }

    /// The watch was silent for so long.
    pub fn watch_spoke(&self, after: Duration) {
        self.watch_age.observe(after.as_secs_f64());
    }
}
