//! What is claimed of everything that reads bytes from outside. A claim is a function of bytes that panics when it does
//! not hold; none may take longer than a moment or need more than an ordinary thread's stack.
//!
//! `tests/fuzz.rs` runs them on the corpus and on what becomes of it, with stable Rust; `fuzz/run` drives them by coverage.

mod amqp;
mod definition;
mod http;
mod message;
mod program;

/// Something that reads bytes from outside.
pub struct Target {
    /// Its name, and that of its folder in `corpus` and of its file in `words`.
    pub name: &'static str,
    /// What is claimed of every input.
    pub holds: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "definition", holds: definition::is_refused_or_usable },
    Target { name: "made-up", holds: definition::runs_with_what_is_made_up },
    Target { name: "expression", holds: definition::gives_a_value_or_says_why },
    Target { name: "command", holds: message::is_refused_or_comes_back_as_command },
    Target { name: "reply", holds: message::is_refused_or_comes_back_as_reply },
    Target { name: "inbound", holds: message::harms_no_coordinator },
    Target { name: "amqp", holds: amqp::becomes_a_message_and_back },
    Target { name: "token", holds: message::verifies_only_when_signed },
    Target { name: "http", holds: http::is_answered },
    Target { name: "cursor", holds: http::is_honoured_or_refused },
    Target { name: "plan", holds: program::is_refused_or_runs },
    Target { name: "fault", holds: program::reads_as_it_is_written },
    Target { name: "settings", holds: program::is_refused_with_place_and_help },
];

/// A runtime for one input. No worker threads, so that nothing outlives it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
