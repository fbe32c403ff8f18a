//! `GET /health/detailed`: how the process is, and the governed memory behind it, in one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use prometheus::{Gauge, IntGauge, Registry};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::governed::StateBody;
use super::{Shared, governed};
use crate::cpu::{Cpu, Load};
use crate::memory::{Memory, machine_percent};

/// How long the memory's owner may take; then the answer goes without it.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// How often the memory is asked at most: whoever reaches the port may ask how the process is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What the governed memory said last, and when it was asked.
#[derive(Default)]
pub struct Last(Mutex<Option<(Instant, Option<Arc<StateBody>>)>>);

impl Last {
    async fn look(&self, shared: &Shared) -> Option<Arc<StateBody>> {
        let mut last = self.0.lock().await;
        if let Some((asked_at, state)) = &*last
            && asked_at.elapsed() < ASK_EVERY
        {
            return state.clone();
        }
        // Noted first: who hangs up has asked, too.
        *last = Some((Instant::now(), None));
        let asked = tokio::time::timeout(ASK_WITHIN, governed::look(shared)).await;
        let state = asked.ok().and_then(Result::ok).map(Arc::new);
        *last = Some((Instant::now(), state.clone()));
        state
    }
}

/// What the process needs, as metrics.
pub struct ProcessMetrics {
    memory: IntGauge,
    cpu: Gauge,
    used: Cpu,
}

impl ProcessMetrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let memory = IntGauge::new("memory_usage_bytes", "Memory of this process, in bytes")?;
        let cpu = Gauge::new("cpu_usage_percent", "Processor time of this process, of all that there is, 0 to 100")?;
        registry.register(Box::new(memory.clone()))?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self { memory, cpu, used: Cpu::default() })
    }

    /// Brings the metrics up to date; what they say.
    pub fn look(&self) -> (Memory, Load) {
        let (memory, load) = (Memory::now(), self.used.load());
        self.memory.set(i64::try_from(memory.bytes).unwrap_or(i64::MAX));
        self.cpu.set(load.process);
        (memory, load)
    }
}

/// Always 200: what is wrong stands in the answer. The memory's part is a second old at most.
pub async fn detailed(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let report = shared.health.report();
    let (memory, load) = shared.metrics.process.look();
    let state = shared.last_look.look(&shared).await;
    Json(json!({
        "status": report.status,
        "troubles": report.troubles,
        "phase": state.as_ref().map(|state| state.phase),
        "memory_state": state.as_ref().map(|state| json!({
            "vectors": state.vectors, "capacity": state.capacity, "bytes": state.bytes,
        })),
        "statistics": {
            "total_events_processed": state.as_ref().map(|state| state.accepted + state.rejected),
            "accepted_events_count": state.as_ref().map(|state| state.accepted),
            "rejected_events_count": state.as_ref().map(|state| state.rejected),
            "moral_filter_threshold": state.as_ref().map(|state| state.threshold),
        },
        "system": {
            "memory_usage_bytes": memory.bytes, "memory_limit_bytes": memory.limit, "cpu_usage_percent": load.process,
            "machine_memory_percent": machine_percent(), "machine_cpu_percent": load.machine,
        },
    }))
}
