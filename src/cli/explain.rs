//! `amends explain`: what a code means.

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::{Context, output};
use crate::definition::{self, CodePage};

/// All codes in tables; those of definitions have pages too.
const ERRORS: &str = include_str!("../../docs/errors.md");

/// Which code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code, for example DEF_CYCLE; all are listed when left out
    code: Option<String>,
}

/// Explains it.
pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    match &args.code {
        Some(code) => one(code, context),
        None => all(context),
    }
}

/// A row of the tables in docs/errors.md: a code, what it means, what to do.
struct Row {
    code: &'static str,
    cells: Vec<(&'static str, &'static str)>,
}

fn rows() -> Vec<Row> {
    let mut header: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for line in ERRORS.lines() {
        let Some(inner) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&'static str> = inner.split(" | ").map(str::trim).collect();
        match cells.first().and_then(|first| first.strip_prefix('`')?.strip_suffix('`')) {
            Some(code) => {
                let cells = header.iter().copied().zip(cells).skip(1).collect();
                rows.push(Row { code, cells });
            }
            None if !inner.starts_with("---") => header = cells,
            None => {}
        }
    }
    rows
}

fn one(given: &str, context: &Context) -> Result<Exit, CliError> {
    if let Some(page) = definition::explain(&given.to_uppercase()) {
        let CodePage { code, title, text, faulty, mended } = &page;
        let document = json!({ "code": code, "title": title, "text": text, "faulty": faulty, "mended": mended });
        context.output.one(&document, || format!("{code}: {title}\n\n{text}"))?;
        return Ok(Exit::Done);
    }
    let rows = rows();
    if let Some(row) = rows.iter().find(|row| row.code.eq_ignore_ascii_case(given)) {
        let cells: serde_json::Map<String, Value> =
            row.cells.iter().map(|(name, cell)| ((*name).to_owned(), Value::from(*cell))).collect();
        let document = json!({ "code": row.code, "cells": cells });
        context.output.one(&document, || {
            let lines = row.cells.iter().map(|(name, cell)| format!("{name}: {cell}"));
            format!("{}\n\n{}", row.code, lines.collect::<Vec<_>>().join("\n"))
        })?;
        return Ok(Exit::Done);
    }
    let known = definition::codes().into_iter().map(|page| page.code).chain(rows.iter().map(|row| row.code));
    let near = known
        .map(|code| (strsim::osa_distance(&given.to_uppercase(), &code.to_uppercase()), code))
        .min()
        .filter(|(distance, _)| *distance <= 6);
    let error = CliError::usage(format!("there is no code `{}`", output::escape(given)));
    Err(match near {
        Some((_, code)) => error.help(format!("did you mean {code}? `amends explain` lists all")),
        None => error.help("`amends explain` lists all"),
    })
}

fn all(context: &Context) -> Result<Exit, CliError> {
    let mut items: Vec<Value> =
        definition::codes().iter().map(|page| json!({ "code": page.code, "title": page.title })).collect();
    items.extend(rows().iter().filter(|row| definition::explain(row.code).is_none()).map(|row| {
        let means = row.cells.iter().find(|(name, _)| *name == "means").map_or("", |(_, cell)| cell);
        json!({ "code": row.code, "title": means })
    }));
    context.output.list(&json!({ "items": items }), &items, || {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        output::table(&["code", "means"], items.iter().map(|item| vec![text(&item["code"]), text(&item["title"])]))
    })?;
    output::next(&["amends explain CODE".to_owned()]);
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_read_row_by_row() {
        let rows = rows();
        let row = rows.iter().find(|row| row.code == "VERSION_IMMUTABLE").expect("is there");
        let names: Vec<&str> = row.cells.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["HTTP", "means", "what to do"]);
        assert!(rows.len() > 20);
    }
}
