//! `amends definitions`: check them here, register them with a server, read what is registered.

use std::io::Read;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::sagas::text;
use super::{Context, graph, output};
use crate::definition::{self, Diagnostic, Severity};

/// `amends definitions ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Find everything that is wrong with definition files; needs no server
    Check(Files),
    /// Register definition files with the server
    Register(Files),
    /// List what is registered
    List,
    /// Show a registered definition
    Show(Show),
    /// Draw a definition, from a file or as it is registered
    Graph(graph::Args),
    /// Print the JSON Schema of definitions, for editors
    Schema,
}

/// Definition files.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// Files in YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
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
        Command::Check(args) => check(&args.files, context),
        Command::Register(args) => register(&args.files, context).await,
        Command::List => list(context).await,
        Command::Show(args) => show(&args, context).await,
        Command::Graph(args) => graph::run(&args, context).await,
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

fn check(files: &[String], context: &Context) -> Result<Exit, CliError> {
    let sources = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut documents: Vec<Value> = Vec::new();
    let mut errors = 0;
    for source in &sources {
        let checked = definition::read(&source.text);
        errors += count(&checked.diagnostics, Severity::Error);
        if context.output.is_for_people() {
            if !checked.diagnostics.is_empty() {
                output::note(render(source, &checked.diagnostics));
            }
            if let Some(definition) = &checked.definition {
                let warnings = match count(&checked.diagnostics, Severity::Warning) {
                    0 => String::new(),
                    1 => ", 1 warning".to_owned(),
                    many => format!(", {many} warnings"),
                };
                let steps = definition.steps.len();
                output::line(&format!("{}: {}, {steps} steps{warnings}", source.name, definition.reference))?;
            }
        }
        documents.push(json!({
            "file": source.name,
            "valid": checked.definition.is_some(),
            "saga": checked.definition.as_ref().map(|definition| &definition.reference.name),
            "version": checked.definition.as_ref().map(|definition| definition.reference.version),
            "diagnostics": checked.diagnostics,
        }));
    }
    if !context.output.is_for_people() {
        context.output.list(&json!({ "items": documents }), &documents, String::new)?;
    }
    if errors == 0 {
        output::next(&[format!("amends definitions register {}", files.join(" "))]);
        return Ok(Exit::Done);
    }
    output::note(format!("{errors} {} in {} checked", plural(errors, "error"), files_word(files.len())));
    Ok(Exit::Failed)
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn files_word(count: usize) -> String {
    format!("{count} {}", plural(count, "file"))
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|found| found.severity == severity).count()
}

pub(super) fn render(source: &Source, diagnostics: &[Diagnostic]) -> String {
    definition::render(&source.name, &source.text, diagnostics, output::is_lively())
}

/// All files are checked here first: with one that is wrong nothing is sent.
async fn register(files: &[String], context: &Context) -> Result<Exit, CliError> {
    let sources = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut errors = 0;
    for source in &sources {
        let checked = definition::read(&source.text);
        let found = count(&checked.diagnostics, Severity::Error);
        if found > 0 {
            output::note(render(source, &checked.diagnostics));
        }
        errors += found;
    }
    if errors > 0 {
        return Err(CliError::failed(format!("{errors} {}; nothing was registered", plural(errors, "error"))));
    }
    let remote = Remote::new(context)?;
    let mut items = Vec::new();
    for source in sources {
        let (is_new, answer) = remote
            .post_text(&["v1", "definitions"], "application/yaml", source.text)
            .await
            .map_err(|error| CliError { message: format!("{}: {}", source.name, error.message), ..error })?;
        items.push(json!({
            "file": source.name, "saga": name(&answer), "version": answer["version"], "new": is_new,
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

fn name(definition: &Value) -> Value {
    if definition["saga"].is_string() { definition["saga"].clone() } else { definition["name"].clone() }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let answer = Remote::new(context)?.get(&["v1", "definitions"], &[]).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    print(context, &answer, &items)?;
    if items.is_empty() {
        output::note("nothing is registered; register a file with `amends definitions register FILE`");
    }
    Ok(Exit::Done)
}

fn print(context: &Context, whole: &Value, items: &[Value]) -> Result<(), CliError> {
    context.output.list(whole, items, || {
        output::table(
            &["saga", "version", "owner", "hash", "registered", "by"],
            items.iter().map(|item| {
                let hash = text(&item["hash"]);
                vec![
                    text(&name(item)),
                    text(&item["version"]),
                    text(&item["owner"]),
                    hash.get(..12).unwrap_or(&hash).to_owned(),
                    text(&item["registeredAt"]),
                    text(&item["registeredBy"]),
                ]
            }),
        )
    })
}

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
            print(context, &answer, &items)?;
            output::next(&[format!("amends definitions show {} VERSION", args.name)]);
        }
    }
    Ok(Exit::Done)
}
