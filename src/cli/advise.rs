//! `amends definitions advise`: what the recorded outcomes say about a definition.

use serde_json::Value;

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::sagas::text;
use super::{Context, output};

/// Which definition, and which of its sagas.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The definition's name
    name: String,
    /// Its version; what a start without a version gets when left out
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Only sagas started since: a time, or how long ago, for example 30d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// Asks the server, and prints what it says.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut query = Vec::new();
    query.extend(args.version.map(|version| ("version", version.to_string())));
    query.extend(args.since.map(|since| ("since", since)));
    let answer = Remote::new(context)?.get(&["v1", "definitions", &args.name, "advice"], &query).await?;
    context.output.one(&answer, || lines(&answer))?;
    if context.output.is_for_people() {
        let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
        for silent in list("silent") {
            output::note(format!("nothing can be said about {}", output::escape(&text(&silent))));
        }
        output::note(output::escape(&text(&answer["criterion"])));
    }
    Ok(Exit::Done)
}

fn lines(answer: &Value) -> String {
    let list = |key: &str| answer[key].as_array().into_iter().flatten();
    let said = list("moves").chain(list("timeouts")).chain(list("retries"));
    let mut lines: Vec<String> = said.map(|item| output::escape(&text(&item["text"]))).collect();
    let order: Vec<String> = list("order").map(|step| output::escape(&text(step))).collect();
    if !order.is_empty() {
        lines.push(format!("the order would be: {}", order.join(", ")));
    }
    let (saga, version) = (output::escape(&text(&answer["saga"])), text(&answer["version"]));
    if lines.is_empty() {
        lines.push(format!("no advice for {saga} v{version} from {} sagas that ended", text(&answer["sagas"])));
    }
    lines.join("\n")
}
