//! What the coordinator counts.

use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;

/// The coordinator's counters, in the form that Prometheus reads.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::default())) }
    }
}

impl Metrics {
    /// All counters as OpenMetrics text: the body of `GET /metrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }
}
