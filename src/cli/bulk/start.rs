//! A job is made: first looked at, then confirmed, then followed.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use super::{follow, print, steer};
use crate::cli::error::{CliError, Exit};
use crate::cli::filters::FilterArgs;
use crate::cli::output::cell_text as text;
use crate::cli::remote::Remote;
use crate::cli::sagas::{definition, saga_id, state};
use crate::cli::{Context, output};
use crate::id::{BulkId, SagaId};

/// Beyond so many sagas their number must be confirmed; the server insists on it.
const UNCONFIRMED: u64 = 100;

/// Which sagas, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Sagas per second, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Only show how many sagas it would be, some of them, and what would happen to one
    #[arg(long)]
    dry_run: bool,
    /// How many sagas you expect it to be; needed for more than 100
    #[arg(long, value_name = "COUNT")]
    confirm: Option<u64>,
    /// Do not wait for the job's end
    #[arg(long)]
    detach: bool,
    /// Only these sagas, by id; may be given more than once, and not together with a filter
    #[arg(long = "id", value_name = "ID", value_parser = saga_id, help_heading = "Which sagas")]
    ids: Vec<SagaId>,
    // Last, since its heading would stand over what follows.
    #[command(flatten)]
    filter: FilterArgs,
}

/// The same with a step.
#[derive(Debug, clap::Args)]
pub struct Stepwise {
    /// The step; where each saga is stuck if left out
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    #[command(flatten)]
    args: Args,
}

/// A job's id, or which sagas.
#[derive(Debug, clap::Args)]
pub struct OrJob {
    /// A job's id: the job is meant, not sagas
    #[arg(value_parser = super::job_id)]
    job: Option<BulkId>,
    #[command(flatten)]
    args: Args,
}

/// An action on one step of each.
pub async fn stepwise(action: &str, stepwise: Stepwise, context: &Context) -> Result<Exit, CliError> {
    run(action, stepwise.step, stepwise.args, context).await
}

/// A job is paused or resumed, or sagas are.
pub async fn or_job(action: &str, args: OrJob, context: &Context) -> Result<Exit, CliError> {
    match args.job {
        Some(id) => steer(action, id, args.args.reason, context).await,
        None => run(action, None, args.args, context).await,
    }
}

/// Looks, asks, makes the job and follows it.
pub async fn run(action: &str, step: Option<String>, args: Args, context: &Context) -> Result<Exit, CliError> {
    let filter = args.filter.object();
    let is_filtered = filter.as_object().is_some_and(|filter| !filter.is_empty());
    if is_filtered == !args.ids.is_empty() {
        return Err(CliError::usage("say which sagas: by filters, or each by `--id`, not both")
            .help(format!("for example `amends bulk {action} --state STUCK --saga place-order --reason '...'`")));
    }
    if args.reason.is_none() && !args.dry_run {
        return Err(CliError::usage("`--reason` is missing: it is kept in the audit log"));
    }
    let mut body = json!({ "action": action, "ratePerSecond": args.rate, "reason": args.reason });
    if let Some(step) = step {
        body["step"] = step.into();
    }
    match is_filtered {
        true => body["filter"] = filter,
        false => body["sagas"] = args.ids.iter().map(SagaId::to_string).collect(),
    }
    let remote = Remote::new(context)?;
    body["dryRun"] = true.into();
    let (_, found) = remote.post(&["v1", "bulk"], &body, None).await?;
    let count = found["count"].as_u64().unwrap_or_default();
    if args.dry_run {
        return preview(action, &found, context);
    }
    if count == 0 {
        output::note("no saga matches: nothing was done");
        return Ok(Exit::Done);
    }
    let expected = match args.confirm {
        Some(expected) => expected,
        None if count > UNCONFIRMED => ask(action, count, &found)?,
        None => count,
    };
    body["dryRun"] = false.into();
    body["expectedCount"] = expected.into();
    let (_, job) = remote.post(&["v1", "bulk"], &body, None).await?;
    let id = text(&job["id"]);
    if job["bounded"] == true {
        output::note("more sagas match than one job takes: run this again for the rest");
    }
    if args.detach {
        output::note(format!("the job runs; follow it with: amends bulk watch {id}"));
        print(&job, context)?;
        return Ok(Exit::Done);
    }
    follow::run(&remote, &id, context).await
}

/// Has the number typed, where there is somebody to type it.
fn ask(action: &str, count: u64, found: &Value) -> Result<u64, CliError> {
    let unconfirmed = || {
        CliError::usage(format!("{count} sagas match, and more than {UNCONFIRMED} must be confirmed"))
            .help(format!("look at them with --dry-run, then add --confirm {count}"))
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unconfirmed());
    }
    output::note(samples(found));
    let _ = write!(std::io::stderr().lock(), "{action} {count} sagas? Type their number to go on: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    match line.trim().parse::<u64>() {
        Ok(given) if given == count => Ok(given),
        _ => Err(CliError::usage("that is not their number: nothing was done")),
    }
}

fn samples(found: &Value) -> String {
    let rows = found["samples"].as_array().into_iter().flatten().map(|sample| {
        let saga = &sample["saga"];
        vec![text(&saga["id"]), definition(saga), text(&saga["key"]), state(saga), text(&sample["refused"])]
    });
    output::table(&["id", "saga", "key", "state", "why not"], rows)
}

fn preview(action: &str, found: &Value, context: &Context) -> Result<Exit, CliError> {
    context.output.one(found, || samples(found))?;
    let count = text(&found["count"]);
    let more = if found["bounded"] == true { ", and more than one job takes" } else { "" };
    output::note(format!("nothing was done; {action} would be done to {count} sagas{more}"));
    if found["searched"] == true {
        output::note(
            "they were looked for among the newest 20000 that match saga, state, key, version, time and pause",
        );
    }
    let planned = found["preview"]["sends"].as_array().into_iter().flatten();
    let sends: Vec<String> =
        planned.map(|command| format!("{}.{}", text(&command["participant"]), text(&command["action"]))).collect();
    if let Some(id) = found["preview"]["id"].as_str() {
        let sends = if sends.is_empty() { "nothing".to_owned() } else { sends.join(", ") };
        let state = text(&found["preview"]["state"]);
        output::note(output::escape(&format!(
            "for example saga {id}: {sends} is sent at once, and it is {state} then"
        )));
    }
    output::next(&[format!("amends bulk {action} ... --confirm {count} --reason '...'")]);
    Ok(Exit::Done)
}
