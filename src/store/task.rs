//! Units of database work that nobody can interrupt.

use std::future::Future;

use tokio::task::JoinError;

use crate::store::StoreError;

/// Runs `work` on a task of its own, to its end even when the caller no longer waits: dropping a database driver's
/// future half-way can give its connection back to the pool inside an open transaction.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(ended(&error)))
}

/// What it means when such a task did not come to its end.
pub(super) fn ended(error: &JoinError) -> StoreError {
    if error.is_cancelled() {
        // The process is going down, and the commit may have been under way.
        return StoreError::Unknown(error.to_string());
    }
    StoreError::Refused(error.to_string())
}
