//! Spans on their way out: made from recorded times when something has ended, put into a queue that never makes anybody
//! wait. What does not fit is dropped and counted. [`otlp`] sends them to a collector.

#[cfg(feature = "otlp")]
pub mod otlp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::trace::TraceContext;

/// One thing that took time, over and done with.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace, its own id, and what vendors have to say.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// Which side of a message it is.
    pub kind: Kind,
    /// For example `publish payments.authorise`.
    pub name: String,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// More about it: names of the semantic conventions, or `amends.…`.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong: a stable word, never what people wrote.
    pub error: Option<String>,
}

/// Which side of a message a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None: it is about the whole.
    Internal,
    /// It sent it.
    Producer,
    /// It took it.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Int(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

/// Takes spans. Clones are handles to the same queue.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Span>,
    /// Of 2^56 traces so many are recorded.
    threshold: u64,
    counts: Counts,
}

/// What became of spans since the process began.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What became of spans since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The collector took them.
    pub exported: u64,
    /// They did not fit into the queue.
    pub dropped: u64,
    /// The collector did not take them.
    pub failed: u64,
}

/// A queue for so many spans, and its other end. Of traces that nobody decided about before, `ratio` (0 to 1) are recorded,
/// by their ids: every process that is asked decides the same.
pub fn channel(ratio: f64, capacity: usize) -> (Recorder, mpsc::Receiver<Span>) {
    let (queue, spans) = mpsc::channel(capacity.max(1));
    let whole = 2_f64.powi(56);
    // Saturates: what is out of bounds is none, or all.
    let threshold = (ratio.clamp(0.0, 1.0) * whole) as u64;
    (Recorder(Arc::new(Inner { queue, threshold, counts: Counts::default() })), spans)
}

impl Recorder {
    /// Whether a trace that begins here is recorded.
    pub fn samples(&self, trace_id: u128) -> bool {
        // Ids that are made in the same moment differ in few bits: mixed, so that any share of them is drawn evenly.
        let low = (trace_id as u64) ^ ((trace_id >> 64) as u64);
        let mixed = (low ^ (low >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) >> 8 < self.0.threshold
    }

    /// Takes a span, or drops it where the queue is full.
    pub fn record(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of spans since the process began.
    pub fn told(&self) -> Told {
        let Counts { exported, dropped, failed } = &self.0.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told { exported: read(exported), dropped: read(dropped), failed: read(failed) }
    }

    #[cfg(feature = "otlp")]
    fn sent(&self, spans: usize, is_taken: bool) {
        let Counts { exported, failed, .. } = &self.0.counts;
        let counter = if is_taken { exported } else { failed };
        counter.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SagaId;
    use crate::trace;

    fn span() -> Span {
        let context = TraceContext { trace_id: 1, span_id: 1, is_sampled: true, state: None };
        let (start, end) = (Timestamp::default(), Timestamp::default());
        let (name, attributes) = ("saga".to_owned(), Vec::new());
        Span { context, parent: None, kind: Kind::Internal, name, start, end, attributes, error: None }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        let (recorder, mut spans) = channel(1.0, 2);
        for _ in 0..5 {
            recorder.record(span());
        }
        assert_eq!(recorder.told(), Told { exported: 0, dropped: 3, failed: 0 });
        assert!(spans.try_recv().is_ok() && spans.try_recv().is_ok() && spans.try_recv().is_err());
    }

    #[test]
    fn the_share_of_traces_that_is_recorded_is_as_asked_for_also_of_sagas_that_start_together() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.1, 700, 1_300), (0.5, 4_500, 5_500), (1.0, 10_000, 10_000)] {
            let (recorder, _spans) = channel(ratio, 1);
            let ids = std::iter::repeat_with(SagaId::fresh).take(10_000);
            let sampled = ids.filter(|id| recorder.samples(trace::trace_id(*id))).count();
            assert!((least..=most).contains(&sampled), "{sampled} of 10000 at {ratio}");
        }
    }
}
