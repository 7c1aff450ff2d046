//! `amends encryption`: which master keys are needed, and exchanging one for another. Works on the store itself, beside
//! running coordinators.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::error::{CliError, Exit};
use super::{Context, connect, output};
use crate::store::data_keys::{DataKeyStore, WrappedKey};
use crate::store::sealed::MasterKeys;
use crate::store::{Page, Store, StoreError};

/// Data keys that are read at a time.
const BATCH: u32 = 100;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List master keys with the number of data keys that each wraps; exit code 3 when one is missing
    Status,
    /// Wrap with the active key what another one wraps, until that one is not needed any more
    #[command(
        after_help = "Beside running coordinators, which must have both keys in their settings. Interrupted, it \
        loses nothing: run it again. Payloads themselves are not written again."
    )]
    Rewrap {
        /// The key that is to be given up
        #[arg(long, value_name = "NAME")]
        from: String,
        /// Count what would be wrapped anew, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// A master key, as far as the settings and the store tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterKey {
    /// Its name.
    pub name: String,
    /// Whether it wraps what is written with from now on.
    pub is_active: bool,
    /// How many data keys it wraps.
    pub data_keys: u64,
    /// Why what it wraps cannot be opened.
    pub problem: Option<String>,
}

/// Every master key that the settings name or that a data key needs.
///
/// # Errors
/// What the store says.
pub async fn look(store: &dyn Store, masters: &MasterKeys) -> Result<Vec<MasterKey>, CliError> {
    let Some(keys) = store.data_keys() else { return Ok(Vec::new()) };
    let mut found: Vec<MasterKey> = masters
        .names()
        .map(|name| MasterKey {
            name: name.to_owned(),
            is_active: masters.active() == Some(name),
            data_keys: 0,
            problem: None,
        })
        .collect();
    for (name, count) in keys.data_key_counts().await? {
        match found.iter_mut().find(|key| key.name == name) {
            Some(key) => key.data_keys = count,
            None => {
                let problem = Some(StoreError::KeyMissing { key: name.clone() }.to_string());
                found.push(MasterKey { name, is_active: false, data_keys: count, problem });
            }
        }
    }
    // One of each is tried: a key may be there by its name, and be another one.
    let mut after = None;
    loop {
        let page = keys.data_keys(&Page { after, limit: BATCH }).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id);
        for wrapped in &page {
            if let Err(error) = masters.check(wrapped)
                && let Some(key) = found.iter_mut().find(|key| key.name == wrapped.master)
            {
                key.problem.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Tells, or exchanges.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    let place = context.settings.place()?;
    let masters = context.settings.encryption.read_for(&place.entry)?.unwrap_or_default();
    let store = connect::store_of(&place).await?;
    let outcome = match store.check_schema().await {
        Err(error) => Err(error.into()),
        Ok(()) => match &command {
            Command::Status => status(&*store, &masters, context).await,
            Command::Rewrap { from, dry_run } => rewrap(&*store, &masters, from, *dry_run, context).await,
        },
    };
    store.close().await;
    outcome
}

async fn status(store: &dyn Store, masters: &MasterKeys, context: &Context) -> Result<Exit, CliError> {
    let found = look(store, masters).await?;
    context.output.list(&json!({ "items": found }), &found, || {
        output::table(
            &["key", "active", "data keys", "problem"],
            found.iter().map(|key| {
                let is_active = if key.is_active { "yes" } else { "no" };
                let problem = key.problem.clone().unwrap_or_default();
                vec![key.name.clone(), is_active.to_owned(), key.data_keys.to_string(), problem]
            }),
        )
    })?;
    if masters.active().is_none() {
        output::note("no key is active: what is written from now on is not encrypted");
    }
    Ok(if found.iter().any(|key| key.problem.is_some()) { Exit::Holds } else { Exit::Done })
}

async fn rewrap(
    store: &dyn Store,
    masters: &MasterKeys,
    from: &str,
    is_dry: bool,
    context: &Context,
) -> Result<Exit, CliError> {
    let keys = store.data_keys().ok_or_else(|| CliError::failed("this store keeps no data keys"))?;
    let active = masters.active().ok_or_else(|| {
        CliError::usage("no key is active").help("name one as `active` under [encryption] in the settings")
    })?;
    if active == from {
        return Err(CliError::usage(format!("`{from}` is the active key"))
            .help("make another key active first, in the settings of every coordinator, and restart them"));
    }
    let count = |counts: Vec<(String, u64)>| counts.into_iter().find(|(name, _)| name == from).map_or(0, |(_, n)| n);
    let total = count(keys.data_key_counts().await?);
    let done = if is_dry { 0 } else { exchange(keys, masters, from, total).await? };
    let left = count(keys.data_key_counts().await?);
    let told = json!({ "from": from, "to": active, "rewrapped": done, "left": left });
    context.output.one(&told, || format!("{done} data keys wrapped by `{active}` now, {left} by `{from}`"))?;
    output::note(match left {
        0 => format!("`{from}` is not needed any more: remove it from the settings, once no backup needs it"),
        _ if is_dry => format!("run without --dry-run to wrap them by `{active}`"),
        _ => {
            format!("a coordinator still writes with `{from}`: restart it with `{active}` active, then run this again")
        }
    });
    Ok(Exit::Done)
}

async fn exchange(keys: &dyn DataKeyStore, masters: &MasterKeys, from: &str, total: u64) -> Result<u64, CliError> {
    let bar = if output::is_lively() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} data keys") {
        bar.set_style(style);
    }
    let (mut after, mut done) = (None, 0);
    loop {
        let page = keys.data_keys(&Page { after, limit: BATCH }).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for wrapped in page.iter().filter(|wrapped: &&WrappedKey| wrapped.master == from) {
            // Where another run was quicker, it is done.
            done += u64::from(keys.rewrap_data_key(wrapped, &masters.rewrapped(wrapped)?).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(done)
}
