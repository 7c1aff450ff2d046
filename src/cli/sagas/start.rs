//! `amends sagas start`: one saga, or many from a file.

use std::io::Read;

use serde_json::{Value, json};

use super::{text, watch};
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};
use crate::payload::Payload;

/// So many starts go into one request, which is one transaction.
const BATCH: usize = 500;

/// What to start.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    amends sagas start place-order --input order.json --watch\n  \
    amends sagas start place-order --input '{\"orderId\": \"o-1\"}'\n  \
    amends sagas start place-order --batch orders.jsonl")]
pub struct Args {
    /// The definition's name
    #[arg(required_unless_present = "batch", value_name = "NAME")]
    saga: Option<String>,
    /// The saga's input: a file, `-` for standard input, or JSON itself
    #[arg(long, value_name = "FILE|-|JSON", conflicts_with = "batch")]
    input: Option<String>,
    /// The saga's key: starting twice with one key gives one saga
    #[arg(long, conflicts_with = "batch")]
    key: Option<String>,
    /// The definition's version; the newest if left out
    #[arg(long, value_name = "NUMBER")]
    version: Option<u32>,
    /// Follow it until it ends; exit code 3 unless it completed
    #[arg(long, conflicts_with = "batch")]
    watch: bool,
    /// Only say what would be started: the version, the key, and whether the input fits
    #[arg(long, conflicts_with_all = ["batch", "watch"])]
    dry_run: bool,
    /// Start one saga per line of this file (`-` for standard input): {"input": ..., "key"?, "saga"?, "version"?}
    #[arg(long, value_name = "FILE")]
    batch: Option<String>,
}

/// Starts it or them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match &args.batch {
        Some(file) => batch(file, &args, context).await,
        None => one(&args, context).await,
    }
}

async fn one(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut body = json!({ "saga": args.saga, "input": input(args.input.as_deref())? });
    if let Some(key) = &args.key {
        body["key"] = key.as_str().into();
    }
    if let Some(version) = args.version {
        body["version"] = version.into();
    }
    let remote = Remote::new(context)?;
    if args.dry_run {
        return would_start(&remote, args, body, context).await;
    }
    let (is_new, saga) = remote.post(&["v1", "sagas"], &body, None).await?;
    let id = text(&saga["id"]);
    output::note(if is_new {
        format!("saga {id} is started")
    } else {
        format!("saga {id} has this key already; nothing was started")
    });
    if args.watch {
        return watch::follow(&remote, context, &id).await;
    }
    context.output.one(&saga, || id.clone())?;
    output::next(&[format!("amends sagas watch {id}")]);
    Ok(Exit::Done)
}

/// Looks at the definition and the input here, as the server would.
async fn would_start(remote: &Remote, args: &Args, body: Value, context: &Context) -> Result<Exit, CliError> {
    let name = args.saga.as_deref().unwrap_or_default();
    let version = match args.version {
        Some(version) => version,
        None => {
            let known = remote.get(&["v1", "definitions", name], &[]).await?;
            let open = known["items"].as_array().into_iter().flatten().filter(|item| !item["deprecated"].is_object());
            let newest = open.filter_map(|item| item["version"].as_u64()).max();
            let newest = newest.ok_or_else(|| CliError::failed(format!("no version of `{name}` takes new starts")))?;
            u32::try_from(newest).unwrap_or(u32::MAX)
        }
    };
    let known = remote.get(&["v1", "definitions", name, &version.to_string()], &[]).await?;
    let checked = crate::definition::read(known["source"].as_str().unwrap_or_default());
    let definition = checked.definition.ok_or_else(|| {
        CliError::failed(format!("this program cannot read `{name}` v{version}"))
            .help("it may be older than the server")
    })?;
    let input = Payload::from(body["input"].clone());
    let wrong = definition.check_input(&input);
    let wrong: Vec<String> =
        wrong.iter().map(|(place, what)| format!("\n  {}", output::escape(&format!("{place}: {what}")))).collect();
    if !wrong.is_empty() {
        return Err(CliError::failed(format!("the input does not fit `{name}` v{version}{}", wrong.concat())));
    }
    let key = match &args.key {
        Some(key) => Some(key.clone()),
        None => definition.key_of(&input).map_err(|error| CliError::failed(format!("the key: {error}")))?,
    };
    let found = json!({ "saga": name, "version": version, "key": key, "input": body["input"] });
    let told = key.as_ref().map_or_else(|| "without a key".to_owned(), |key| format!("with the key {key}"));
    context.output.one(&found, || output::escape(&format!("{name} v{version} would be started {told}")))?;
    output::note("nothing was started");
    Ok(Exit::Done)
}

/// The input that `--input` names: a file, standard input, or the JSON itself, which begins as no file name would.
fn input(argument: Option<&str>) -> Result<Value, CliError> {
    let (name, text) = match argument {
        None => return Ok(json!({})),
        Some(json) if json.trim_start().starts_with(['{', '[', '"']) => ("--input", json.to_owned()),
        Some(file) => (file, read(file)?),
    };
    serde_json::from_str(&text).map_err(|error| {
        CliError::usage(format!("input `{name}` is no JSON: {error}")).help("give a file, `-`, or JSON in quotes")
    })
}

/// The text of a file, or of standard input for `-`.
pub(super) fn read(file: &str) -> Result<String, CliError> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| CliError::unreadable(file, &error))?;
    Ok(text)
}

async fn batch(file: &str, args: &Args, context: &Context) -> Result<Exit, CliError> {
    let starts = lines(file, &read(file)?, args)?;
    let remote = Remote::new(context)?;
    let mut items = Vec::new();
    for chunk in starts.chunks(BATCH) {
        let (_, mut answer) = remote.post(&["v1", "sagas", "batch"], &json!({ "sagas": chunk }), None).await?;
        let key = if answer["items"].is_array() { "items" } else { "results" };
        if let Value::Array(results) = answer[key].take() {
            items.extend(results);
        }
        if starts.len() > BATCH {
            output::note(format!("{} of {} sent", items.len(), starts.len()));
        }
    }
    let header = ["line", "id", "result"];
    context.output.list(&json!({ "items": items }), &items, || {
        output::table(
            &header,
            items.iter().enumerate().map(|(at, item)| vec![(at + 1).to_string(), text(&item["id"]), result(item)]),
        )
    })?;
    let failed = items.iter().filter(|item| item["id"].is_null()).count();
    output::next(&["amends top".to_owned()]);
    output::note(format!("{} started or there already, {failed} refused", items.len() - failed));
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn lines(file: &str, text: &str, args: &Args) -> Result<Vec<Value>, CliError> {
    let mut starts = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: String| {
            CliError::usage(format!("`{file}`, line {}: {problem}", at + 1))
                .help("each line is {\"input\": ..., \"key\"?, \"saga\"?, \"version\"?}; nothing was started")
        };
        let mut start: Value = serde_json::from_str(line).map_err(|error| wrong(format!("no JSON: {error}")))?;
        let Some(fields) = start.as_object_mut() else { return Err(wrong("it is no object".to_owned())) };
        if let Some(unknown) = fields.keys().find(|key| !["saga", "version", "input", "key"].contains(&key.as_str())) {
            return Err(wrong(format!("unknown field `{}`", output::escape(unknown))));
        }
        if !fields.contains_key("saga") {
            let Some(saga) = &args.saga else { return Err(wrong("it names no `saga`".to_owned())) };
            fields.insert("saga".to_owned(), saga.as_str().into());
        }
        if let (Some(version), false) = (args.version, fields.contains_key("version")) {
            fields.insert("version".to_owned(), version.into());
        }
        starts.push(start);
    }
    Ok(starts)
}

/// What became of one start of a batch.
fn result(item: &Value) -> String {
    let problem = if item["problem"].is_object() { &item["problem"] } else { &item["error"] };
    match (item["status"].as_u64(), problem["code"].as_str()) {
        (_, Some(code)) => {
            let detail = if problem["detail"].is_string() { &problem["detail"] } else { &problem["title"] };
            format!("{code}: {}", text(detail))
        }
        (Some(200), _) => "there already".to_owned(),
        _ => "started".to_owned(),
    }
}
