//! The binary: arguments in, exit code out. Everything else is in the library's `cli`.

use std::process::ExitCode;

/// A fifth of the coordinator's time was spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS provider in the whole tree, chosen by the binary and never by the library. Only a second call can fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    amends::cli::run(std::env::args_os())
}
