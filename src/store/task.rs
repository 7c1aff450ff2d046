//! Units of database work that nobody can interrupt.

use std::future::Future;

use crate::store::StoreError;

/// Runs `work` on a task of its own, to its end even when the caller no longer waits: dropping a database driver's
/// future half-way can give its connection back to the pool inside an open transaction.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        // The process is going down, and the commit may have been under way.
        Err(error) if error.is_cancelled() => Err(StoreError::Unknown(error.to_string())),
        Err(error) => Err(StoreError::Refused(error.to_string())),
    }
}
