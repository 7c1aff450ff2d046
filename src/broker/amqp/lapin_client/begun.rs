//! Requests in batches. lapin takes a frame over when its future is first polled, and completes the future once the
//! frame is written. Awaited one by one, every message would wait for a system call and a wake-up of its own; polled
//! once each, a whole batch is taken over, in order and without giving way, and then waited for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A request that was taken over.
pub(super) enum Begun<'a, T> {
    Done(T),
    Waiting(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<'a, T> Begun<'a, T> {
    /// Polls `request` once. Whoever awaits the outcome registers its own waker then.
    pub(super) fn now(request: impl Future<Output = T> + Send + 'a) -> Self {
        let mut request = Box::pin(request);
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Self::Done(outcome),
            Poll::Pending => Self::Waiting(request),
        }
    }

    pub(super) async fn outcome(self) -> T {
        match self {
            Self::Done(outcome) => outcome,
            Self::Waiting(request) => request.await,
        }
    }
}
