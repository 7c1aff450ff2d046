//! Definitions written in Rust: the same document as the YAML file, with actions as types.
//!
//! ```
//! use std::time::Duration;
//! use amends::action::Action;
//! use amends::definition::build::{Saga, Step};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(rename_all = "camelCase")]
//! struct Order { order_id: String }
//!
//! struct CreateOrder;
//! impl Action for CreateOrder {
//!     const PARTICIPANT: &'static str = "orders";
//!     const NAME: &'static str = "create";
//!     type Input = Order;
//!     type Output = ();
//! }
//!
//! struct CancelOrder;
//! impl Action for CancelOrder {
//!     const PARTICIPANT: &'static str = "orders";
//!     const NAME: &'static str = "cancel";
//!     type Input = Order;
//!     type Output = ();
//! }
//!
//! let built = Saga::named("place-order")
//!     .version(1)
//!     .takes::<Order>()
//!     .key("${ input.orderId }")
//!     .step(
//!         Step::named("create-order")
//!             .does::<CreateOrder>()
//!             .input(json!({ "orderId": "${ input.orderId }" }))
//!             .undone_by::<CancelOrder>(),
//!     )
//!     .build()?;
//! assert_eq!(built.definition.steps.len(), 1);
//! # Ok::<(), amends::definition::build::InvalidSaga>(())
//! ```
//!
//! [`Saga::build`] makes the document and reads it as any other: the same checks, the same hash for equal content. What
//! is registered is [`Built::source`].

mod saga;
mod step;

use std::time::Duration;

pub use saga::{Built, Finding, InvalidSaga, Saga};
use serde_json::{Map, Value};
pub use step::{Pause, Step, SubSaga};

pub use crate::definition::OnTimeout;

/// When and how often a command is sent again. What is not said is as the saga's defaults say.
#[derive(Clone, Debug, Default)]
pub struct Retry(Map<String, Value>);

impl Retry {
    /// As the defaults say.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Attempts, the first one included.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.with("maxAttempts", attempts)
    }

    /// Attempts without limit; allowed after the pivot.
    #[must_use]
    pub fn forever(self) -> Self {
        self.with("maxAttempts", 0)
    }

    /// The wait before the second attempt.
    #[must_use]
    pub fn initial_interval(self, interval: Duration) -> Self {
        self.with("initialInterval", time(interval))
    }

    /// By what the wait grows with each further attempt.
    #[must_use]
    pub fn backoff_coefficient(self, factor: f64) -> Self {
        self.with("backoffCoefficient", factor)
    }

    /// The longest wait.
    #[must_use]
    pub fn max_interval(self, interval: Duration) -> Self {
        self.with("maxInterval", time(interval))
    }

    /// Whether each wait is drawn between zero and its full length.
    #[must_use]
    pub fn full_jitter(self, is_full: bool) -> Self {
        self.with("jitter", if is_full { "full" } else { "none" })
    }

    /// Error types that turn a `retry` into a failure.
    #[must_use]
    pub fn non_retryable<T: Into<String>>(self, types: impl IntoIterator<Item = T>) -> Self {
        let types: Vec<String> = types.into_iter().map(Into::into).collect();
        self.with("nonRetryable", types)
    }
}

impl From<Retry> for Value {
    fn from(retry: Retry) -> Self {
        Self::Object(retry.0)
    }
}

/// As a document writes it: a whole number of the largest unit that fits, so that equal times are equal content.
fn time(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, length)| millis > 0 && millis.is_multiple_of(*length)) {
        Some((unit, length)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_their_largest_unit() {
        let written =
            [200, 30_000, 900_000, 5_400_000, 172_800_000, 0].map(|millis| time(Duration::from_millis(millis)));
        assert_eq!(written, ["200ms", "30s", "15m", "90m", "2d", "0ms"]);
    }
}
