//! Waiting for a saga's end.

use std::time::Duration;

use crate::client::views::SagaView;
use crate::client::{Client, ClientError};

/// The first pause between two looks; it grows while nothing changes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many looks in a row may fail for reasons that pass.
const MAX_FAILURES: u32 = 10;

impl Client {
    /// Looks at a saga until it has ended or is stuck, telling `on_change` of each revision that it sees. Returns the
    /// saga as it is then. A coordinator that is away for a moment is waited for.
    ///
    /// # Errors
    /// `SAGA_UNKNOWN`; or the last error, when ten looks in a row failed.
    pub async fn watch(&self, id: &str, mut on_change: impl FnMut(&SagaView)) -> Result<SagaView, ClientError> {
        let (mut pause, mut failures, mut seen) = (FIRST_PAUSE, 0, None);
        loop {
            match self.saga(id).await {
                Ok(saga) => {
                    failures = 0;
                    if seen != Some(saga.revision) {
                        seen = Some(saga.revision);
                        pause = FIRST_PAUSE;
                        on_change(&saga);
                    }
                    if saga.has_ended() || saga.stuck.is_some() {
                        return Ok(saga);
                    }
                }
                Err(error) if error.is_transient() && failures < MAX_FAILURES => failures += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}
