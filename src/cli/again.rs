//! Lists that are asked for again and again: `--watch`.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::error::{CliError, Exit};
use super::output;

/// Whether to list once or again and again.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct WatchArgs {
    /// List again every so many seconds until interrupted (Ctrl-C)
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let found = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    found.map(Duration::from_secs_f64).ok_or_else(|| "seconds, from 0.1 to 86400".to_owned())
}

/// Runs `list` once, or every so often until Ctrl-C. A server that is away for a while does not end the watch, once it
/// has answered.
///
/// # Errors
/// Those of `list`, when it is run once or fails at first.
pub async fn again<F: Future<Output = Result<Exit, CliError>>>(
    WatchArgs { watch }: WatchArgs,
    list: impl Fn() -> F,
) -> Result<Exit, CliError> {
    let Some(every) = watch else { return list().await };
    let last = Cell::new(None);
    tokio::select! {
        biased;
        // Listened to all the time: nobody ever hears of a signal that comes between two who listen.
        _ = tokio::signal::ctrl_c() => Ok(last.get().unwrap_or(Exit::Done)),
        ended = for_ever(every, list, &last) => ended,
    }
}

/// Until `list` fails at first, or in a way that does not pass.
async fn for_ever<F: Future<Output = Result<Exit, CliError>>>(
    every: Duration,
    list: impl Fn() -> F,
    last: &Cell<Option<Exit>>,
) -> Result<Exit, CliError> {
    loop {
        if std::io::stdout().is_terminal() {
            // Up to the corner, and away with what was there.
            let mut stdout = std::io::stdout().lock();
            write!(stdout, "\x1b[H\x1b[2J\x1b[3J")?;
            stdout.flush()?;
        }
        match list().await {
            Ok(exit) => last.set(Some(exit)),
            Err(error) if last.get().is_some() && error.exit == Exit::Failed => {
                output::note(format!("{}; trying again", error.message));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(every).await;
    }
}
