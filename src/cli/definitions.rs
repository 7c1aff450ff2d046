//! `amends definitions`: check them here, register them with a server, read what is registered.

use std::io::Read;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::sagas::text;
use super::{Context, advise, check, graph, output, versions};
use crate::definition::{self, Diagnostic, Severity};

/// `amends definitions ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Find everything that is wrong with definition files; needs no server
    Check(check::Args),
    /// Register definition files with the server
    Register(Files),
    /// List what is registered
    List,
    /// Show a registered definition
    Show(Show),
    /// Draw a definition, from a file or as it is registered
    Graph(graph::Args),
    /// Show what changed from one definition to another, step by step
    Diff(versions::DiffArgs),
    /// Stop new starts of a version; running sagas go on
    Deprecate(versions::DeprecateArgs),
    /// Allow new starts of a version again
    Undeprecate(versions::DeprecateArgs),
    /// Say what the recorded outcomes advise: order of steps, time-outs, retries
    Advise(advise::Args),
    /// Print the JSON Schema of definitions, for editors
    Schema,
    /// Run a definition on virtual time with planned faults; needs no server
    Simulate(super::simulate::Args),
}

/// Definition files.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// Files in YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Let warnings refuse the registration too
    #[arg(long)]
    deny_warnings: bool,
    /// Only say what would be registered; exit code 6 when a version is there with other content
    #[arg(long)]
    dry_run: bool,
}

/// Which definition.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its name
    name: String,
    /// Its version; all of them when left out
    version: Option<u32>,
}

/// Runs one of them.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Check(args) => check::run(&args, context),
        Command::Register(args) => register(&args, context).await,
        Command::List => list(context).await,
        Command::Show(args) => show(&args, context).await,
        Command::Graph(args) => graph::run(&args, context).await,
        Command::Diff(args) => versions::diff(args, context).await,
        Command::Deprecate(args) => versions::deprecate(args, true, context).await,
        Command::Undeprecate(args) => versions::deprecate(args, false, context).await,
        Command::Advise(args) => advise::run(args, context).await,
        Command::Simulate(args) => super::simulate::run(args, context).await,
        Command::Schema => {
            let schema = definition::json_schema();
            context.output.one(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default())?;
            Ok(Exit::Done)
        }
    }
}

/// A definition file's text.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

pub(super) fn read(file: &str) -> Result<Source, CliError> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| CliError::unreadable(file, &error))?;
    Ok(Source { name: if file == "-" { "(standard input)".to_owned() } else { file.to_owned() }, text })
}

/// A file's name as it is shown, and its text; `-` is standard input.
///
/// # Errors
/// When it cannot be read.
pub fn text_of(file: &str) -> Result<(String, String), CliError> {
    read(file).map(|source| (source.name, source.text))
}

pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

pub(super) fn files_word(count: usize) -> String {
    format!("{count} {}", plural(count, "file"))
}

pub(super) fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|found| found.severity == severity).count()
}

pub(super) fn render(source: &Source, diagnostics: &[Diagnostic]) -> String {
    definition::render(&source.name, &source.text, diagnostics, output::is_lively())
}

/// All files are checked here first: with one that is wrong nothing is sent.
async fn register(args: &Files, context: &Context) -> Result<Exit, CliError> {
    let sources = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let (mut errors, mut warnings, mut told) = (0, 0, Vec::new());
    for (source, checked) in sources.iter().zip(check::together(&sources)) {
        if !checked.diagnostics.is_empty() {
            output::note(render(source, &checked.diagnostics));
        }
        errors += count(&checked.diagnostics, Severity::Error);
        warnings += count(&checked.diagnostics, Severity::Warning);
        told.extend(checked.diagnostics.iter().map(|found| (found.code, found.line)));
    }
    if errors > 0 {
        return Err(CliError::failed(format!("{errors} {}; nothing was registered", plural(errors, "error"))));
    }
    if warnings > 0 && args.deny_warnings {
        let message = format!("{warnings} {}; nothing was registered", plural(warnings, "warning"));
        return Err(CliError::failed(message).help("mend them, or leave --deny-warnings out"));
    }
    let remote = Remote::new(context)?;
    if args.dry_run {
        return would_register(&sources, &remote, context).await;
    }
    let mut items = Vec::new();
    for source in sources {
        let query: &[(&str, &str)] = if args.deny_warnings { &[("denyWarnings", "true")] } else { &[] };
        let (is_new, answer) =
            remote
                .post_text(&["v1", "definitions"], query, "application/yaml", source.text)
                .await
                .map_err(|error| CliError { message: format!("{}: {}", source.name, error.message), ..error })?;
        tell_new(&source.name, &answer["warnings"], &told);
        items.push(json!({
            "file": source.name, "saga": name(&answer), "version": answer["version"], "new": is_new,
            "warnings": answer["warnings"].as_array().cloned().unwrap_or_default(),
        }));
    }
    context.output.list(&json!({ "items": items }), &items, || {
        output::table(
            &["file", "saga", "version", "result"],
            items.iter().map(|item| {
                let result =
                    if item["new"] == true { "registered" } else { "was registered before with the same content" };
                vec![text(&item["file"]), text(&item["saga"]), text(&item["version"]), result.to_owned()]
            }),
        )
    })?;
    if let Some(first) = items.first() {
        output::next(&[format!("amends sagas start {} --input '{{...}}' --watch", text(&first["saga"]))]);
    }
    Ok(Exit::Done)
}

/// What would become of each file, as far as can be told without registering it.
async fn would_register(sources: &[Source], remote: &Remote, context: &Context) -> Result<Exit, CliError> {
    let (mut items, mut exit) = (Vec::new(), Exit::Done);
    for (source, checked) in sources.iter().zip(check::together(sources)) {
        let Some(definition) = checked.definition else { continue };
        let (name, version) = (&definition.reference.name, definition.reference.version);
        let known = match remote.get(&["v1", "definitions", name, &version.to_string()], &[]).await {
            Ok(known) => Some(text(&known["hash"])),
            Err(error) if error.exit == Exit::Failed && error.message.contains("_UNKNOWN") => None,
            Err(error) => return Err(error),
        };
        let result = match known {
            None => "would be registered",
            Some(hash) if hash == hex::encode(definition.hash) => "is registered with the same content",
            Some(_) => {
                exit = Exit::Conflict;
                "would be refused: this version is registered with other content"
            }
        };
        items.push(json!({ "file": source.name, "saga": name, "version": version, "result": result }));
    }
    const COLUMNS: &[Column] = &[
        ("file", |item| text(&item["file"])),
        ("saga", |item| text(&item["saga"])),
        ("version", |item| text(&item["version"])),
        ("result", |item| text(&item["result"])),
    ];
    context.output.rows(&json!({ "items": items }), &items, COLUMNS)?;
    output::note("nothing was registered");
    Ok(exit)
}

/// What only the server could see: it knows the other definitions.
fn tell_new(file: &str, warnings: &Value, told: &[(&'static str, u32)]) {
    for warning in warnings.as_array().into_iter().flatten() {
        let (code, line) = (text(&warning["code"]), warning["line"].as_u64().unwrap_or_default());
        if !told.iter().any(|(known, at)| *known == code && u64::from(*at) == line) {
            output::note(output::escape(&format!("{file}:{line}: {code}: {}", text(&warning["detail"]))));
        }
    }
}

fn name(definition: &Value) -> Value {
    if definition["saga"].is_string() { definition["saga"].clone() } else { definition["name"].clone() }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let answer = Remote::new(context)?.get(&["v1", "definitions"], &[]).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    context.output.rows(&answer, &items, COLUMNS)?;
    match items.last() {
        Some(last) => {
            output::next(&[format!("amends definitions show {} {}", text(&name(last)), text(&last["version"]))])
        }
        None => output::note("nothing is registered; register a file with `amends definitions register FILE`"),
    }
    Ok(Exit::Done)
}

const COLUMNS: &[Column] = &[
    ("saga", |item| text(&name(item))),
    ("version", |item| text(&item["version"])),
    ("owner", |item| text(&item["owner"])),
    ("hash", |item| {
        let hash = text(&item["hash"]);
        hash.get(..12).unwrap_or(&hash).to_owned()
    }),
    ("registered", |item| output::moment(&item["registeredAt"])),
    ("by", |item| text(&item["registeredBy"])),
    ("deprecated", |item| text(&item["deprecated"]["reason"])),
];

async fn show(args: &Show, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    match args.version {
        Some(version) => {
            let answer = remote.get(&["v1", "definitions", &args.name, &version.to_string()], &[]).await?;
            context.output.one(&answer, || match answer["source"].as_str() {
                // Keeps its lines; every other control character is made visible.
                Some(source) => source.lines().map(output::escape).collect::<Vec<_>>().join("\n"),
                None => serde_json::to_string_pretty(&answer).unwrap_or_default(),
            })?;
        }
        None => {
            let answer = remote.get(&["v1", "definitions", &args.name], &[]).await?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            context.output.rows(&answer, &items, COLUMNS)?;
            output::next(&[format!("amends definitions show {} VERSION", args.name)]);
        }
    }
    Ok(Exit::Done)
}
