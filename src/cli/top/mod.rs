//! `amends top`: everything at a glance, live.

mod screen;

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::sync::mpsc;

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::{Context, output};
use crate::client::views::OverviewView;
use crate::clock::Clock;
use screen::{Screen, draw};

/// How often a key is looked for.
const KEYS: Duration = Duration::from_millis(100);

/// Arguments of `amends top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys: q or Esc ends, p pauses, up and down choose a cause, Enter ends with the command that \
    lists its sagas. Off a terminal, or with --once, it is printed once.")]
pub struct Args {
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    every: f64,
    /// Print it once
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| (0.2..=3_600.0).contains(seconds)).ok_or("seconds, from 0.2 to 3600".to_owned())
}

/// Shows it until the person has seen enough.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let first = look(&remote).await?;
    let is_seen = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if args.once || !is_seen || !context.output.is_for_people() {
        context.output.one(&first, || screen::text(&first))?;
        return Ok(if first.stuck.is_empty() { Exit::Done } else { Exit::Holds });
    }
    let mut terminal = ratatui::try_init()?;
    let screen = Screen::new(first, context.settings.url_or_default(), args.every);
    let outcome = live(&mut terminal, screen, &remote).await;
    // Whatever happened, the terminal is given back as it was.
    ratatui::restore();
    if let Some(command) = outcome? {
        output::next(&[command]);
    }
    Ok(Exit::Done)
}

async fn look(remote: &Remote) -> Result<OverviewView, CliError> {
    let found: Value = remote.get(&["v1", "overview"], &[]).await?;
    serde_json::from_value(found).map_err(|error| CliError::failed(format!("the server's overview: {error}")))
}

async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    mut screen: Screen,
    remote: &Remote,
) -> Result<Option<String>, CliError> {
    let mut keys = keys();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(screen.every));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| draw(frame, &mut screen))?;
        tokio::select! {
            _ = ticks.tick(), if !screen.is_paused => match look(remote).await {
                Ok(found) => screen.see(found),
                Err(error) => screen.problem = Some(format!("{} ({})", error.message, Clock::System.now().format("%H:%M:%S"))),
            },
            key = keys.recv() => match key.map(|key| (key.code, key.modifiers)) {
                None | Some((KeyCode::Char('q') | KeyCode::Esc, _)) => return Ok(None),
                Some((KeyCode::Char('c'), KeyModifiers::CONTROL)) => return Ok(None),
                Some((KeyCode::Char('p'), _)) => screen.is_paused = !screen.is_paused,
                Some((KeyCode::Up | KeyCode::Char('k'), _)) => screen.causes.select_previous(),
                Some((KeyCode::Down | KeyCode::Char('j'), _)) => screen.causes.select_next(),
                Some((KeyCode::Enter, _)) if screen.command().is_some() => return Ok(screen.command()),
                // A key without a meaning, or a window of another size: drawn anew.
                Some(_) => {}
            },
        }
    }
}

/// Keys as they are pressed. Reading them blocks: a thread does, and ends once nobody listens.
fn keys() -> mpsc::Receiver<KeyEvent> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let read = match event::poll(KEYS) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(_) => return,
            };
            let key = match read {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key,
                Ok(Event::Resize(..)) => KeyEvent::new(KeyCode::Null, KeyModifiers::NONE),
                Ok(_) => continue,
                Err(_) => return,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    receiver
}
