//! `amends definitions graph` and `amends sagas graph`: pictures.

use std::path::Path;

use serde_json::{Value, json};

use super::definitions::{self, Source};
use super::error::{CliError, Exit};
use super::remote::Remote;
use super::sagas::{saga_id, text};
use super::{Context, output};
use crate::api;
use crate::client::views::SagaView;
use crate::definition;
use crate::id::SagaId;
use crate::picture::Picture;

/// The form of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For browsers and documents; light or dark as its surroundings
    #[default]
    Svg,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// For Graphviz
    Dot,
}

impl Form {
    fn draw(self, picture: &Picture) -> String {
        match self {
            Self::Svg => picture.svg(),
            Self::Mermaid => picture.mermaid(),
            Self::Dot => picture.dot(),
        }
    }
}

/// Which definition, and how it is drawn.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file in YAML or JSON (`-` is standard input), or a registered definition; the newest unless a version is given
    #[arg(value_name = "FILE|NAME[@VERSION]")]
    what: String,
    /// The form of the picture
    #[arg(short = 'o', long = "as", value_enum, default_value_t, value_name = "FORM")]
    form: Form,
}

/// Which saga, and how it is drawn.
#[derive(Debug, clap::Args)]
pub struct SagaArgs {
    /// The saga's id
    #[arg(value_parser = saga_id)]
    id: SagaId,
    /// The form of the picture
    #[arg(short = 'o', long = "as", value_enum, default_value_t, value_name = "FORM")]
    form: Form,
}

/// Draws a definition.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let source = match is_file(&args.what) {
        true => definitions::read(&args.what)?,
        false => {
            let (name, version) = split(&args.what)?;
            registered(&Remote::new(context)?, name, version).await?
        }
    };
    print(&picture(&source)?, args.form, context)
}

/// Draws a saga.
pub async fn saga(args: &SagaArgs, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let answer = remote.get(&["v1", "sagas", &args.id.to_string()], &[]).await?;
    let view: SagaView = serde_json::from_value(answer).map_err(|error| {
        CliError::failed(format!("the server's answer is not a saga as this program knows it: {error}"))
    })?;
    let source = registered(&remote, &view.saga, Some(view.version)).await?;
    print(&picture(&source)?.with_states(api::look(&view)), args.form, context)
}

/// A name has neither dots nor slashes.
fn is_file(what: &str) -> bool {
    what == "-" || what.contains(['.', '/', '\\']) || Path::new(what).is_file()
}

fn split(what: &str) -> Result<(&str, Option<u32>), CliError> {
    let Some((name, given)) = what.split_once('@') else { return Ok((what, None)) };
    match given.strip_prefix('v').unwrap_or(given).parse() {
        Ok(version) if version > 0 => Ok((name, Some(version))),
        _ => Err(CliError::usage(format!("`{}` is no version; write for example {name}@1", output::escape(given)))),
    }
}

async fn registered(remote: &Remote, name: &str, version: Option<u32>) -> Result<Source, CliError> {
    let version = match version {
        Some(version) => version.to_string(),
        None => text(&remote.get(&["v1", "definitions", name], &[]).await?["newest"]),
    };
    let answer = remote.get(&["v1", "definitions", name, &version], &[]).await?;
    match &answer["source"] {
        Value::String(text) => Ok(Source { name: format!("{name}@{version}"), text: text.clone() }),
        _ => Err(CliError::failed(format!("the server's answer holds no source of {name}@{version}"))),
    }
}

fn picture(source: &Source) -> Result<Picture, CliError> {
    let checked = definition::read(&source.text);
    match checked.definition {
        Some(definition) => Ok(Picture::of(&definition)),
        None => {
            output::note(definitions::render(source, &checked.diagnostics));
            Err(CliError::failed(format!("{} cannot be drawn: it has errors", source.name)))
        }
    }
}

fn print(picture: &Picture, form: Form, context: &Context) -> Result<Exit, CliError> {
    let drawn = form.draw(picture);
    context.output.one(&json!({ "picture": drawn }), || drawn.trim_end().to_owned())?;
    Ok(Exit::Done)
}
