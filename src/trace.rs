//! Where a saga stands in a distributed trace: W3C trace context, read and written. Pure.
//!
//! A saga outlives processes, so that nothing of its trace is kept in memory: the ids follow from those of the saga and
//! its commands. A saga's trace id is its own id without dashes, unless whoever started it gave one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, SagaId, Seq};

/// Bytes of a `tracestate` that are passed on, at most: what the recommendation asks for.
const MOST_STATE: usize = 512;

/// A span somewhere, as `traceparent` and `tracestate` tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span; never 0.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
    /// What vendors have to say, passed on as it came.
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads the two headers. `None` when the first one is not as the recommendation says: such a trace is begun anew. A
    /// `tracestate` that cannot be passed on is left out.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = traceparent.split('-').collect();
        let [version, trace, span, flags, rest @ ..] = parts.as_slice() else { return None };
        let version = hex(version, 2).filter(|version| *version != 0xff)?;
        // Later versions may add parts; what is known of them stays as it is.
        if version == 0 && !rest.is_empty() {
            return None;
        }
        let trace_id = hex(trace, 32).filter(|id| *id != 0)?;
        let span_id = hex(span, 16).and_then(|id| u64::try_from(id).ok()).filter(|id| *id != 0)?;
        let is_sampled = hex(flags, 2)? & 1 == 1;
        let fits = |state: &&str| {
            !state.is_empty() && state.len() <= MOST_STATE && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        Some(Self { trace_id, span_id, is_sampled, state: tracestate.filter(fits).map(str::to_owned) })
    }

    /// The header `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// Lower-case hexadecimal of just this many digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Written {
    traceparent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

impl From<TraceContext> for Written {
    fn from(context: TraceContext) -> Self {
        Self { traceparent: context.traceparent(), tracestate: context.state }
    }
}

impl TryFrom<Written> for TraceContext {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        Self::parse(&written.traceparent, written.tracestate.as_deref())
            .ok_or_else(|| format!("`{}` is no traceparent", written.traceparent))
    }
}

/// The trace that a saga begins when nobody gave it one.
pub fn trace_id(saga: SagaId) -> u128 {
    saga.0.as_u128()
}

/// The span of a saga as a whole.
pub fn saga_span(saga: SagaId) -> u64 {
    // No command has the place 0.
    attempt_span(CommandId { saga, seq: Seq(0) }, 0)
}

/// The span of one attempt of a command: the same from every coordinator that sends it.
pub fn attempt_span(id: CommandId, attempt: u32) -> u64 {
    // The second half of a UUID is never 0.
    id.message_id(attempt).as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = TraceContext::parse(GIVEN, Some("vendor=1")).expect("a context");
        assert_eq!(context.traceparent(), GIVEN);
        assert_eq!(context.state.as_deref(), Some("vendor=1"));
        let stored = serde_json::to_string(&context).expect("written");
        assert_eq!(serde_json::from_str::<TraceContext>(&stored).expect("read"), context);
    }

    #[test]
    fn a_later_version_may_say_more_and_is_read_for_what_is_known() {
        assert!(TraceContext::parse(&format!("{}-more", GIVEN.replacen("00", "01", 1)), None).is_some());
        assert!(TraceContext::parse(&format!("{GIVEN}-more"), None).is_none());
    }

    #[test]
    fn what_is_no_traceparent_begins_no_trace() {
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_passed_on_is_left_out() {
        for wrong in [String::new(), "a=\u{7f}".to_owned(), "a=\n".to_owned(), "x".repeat(MOST_STATE + 1)] {
            assert_eq!(TraceContext::parse(GIVEN, Some(&wrong)).expect("a context").state, None);
        }
    }

    #[test]
    fn a_saga_and_the_attempts_of_its_commands_have_spans_of_their_own() {
        let saga = SagaId::first_at(1_700_000_000_000);
        let command = CommandId { saga, seq: Seq(1) };
        let spans = [saga_span(saga), attempt_span(command, 1), attempt_span(command, 2)];
        assert!(spans.iter().all(|span| *span != 0));
        assert_eq!(spans.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        assert_eq!(attempt_span(command, 2), spans[2]);
        assert_eq!(format!("{:032x}", trace_id(saga)), saga.to_string().replace('-', ""));
    }
}
