//! The thread that hands SQLite its statements. Each is a message to SQLite's own thread and one back: on a runtime's thread,
//! between other tasks, that thread would mostly wait to hear of the next.

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::store::StoreError;
use crate::store::task::ended;

/// A thread with a runtime of its own, which ends with this.
pub(super) struct Hand {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Hand {
    pub(super) fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("amends-sqlite".to_owned()).spawn(move || {
            // Ends when nobody holds the other side any more.
            drop(runtime.block_on(ended));
        })?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// Runs `work` there, to its end even when the caller no longer waits.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.runtime.spawn(work).await.unwrap_or_else(|error| Err(ended(&error)))
    }
}
