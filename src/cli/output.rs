//! What commands print: data to stdout in the form asked for, everything else to stderr.

use std::io::{IsTerminal, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::error::CliError;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// One JSON document, indented.
    Json,
    /// One JSON document per line and item.
    Jsonl,
    /// YAML.
    Yaml,
}

/// Where a command's data and messages go.
#[derive(Clone, Debug)]
pub struct Output {
    /// The form of the data.
    pub format: Format,
    /// The columns that were asked for; none: those that the command has.
    pub columns: Vec<String>,
}

/// A column of a list: what stands over it, and what it shows of an item.
pub type Column = (&'static str, fn(&Value) -> String);

impl Output {
    /// Prints one thing: as a document, or for people as `table` gives it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn one(&self, value: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), CliError> {
        match self.format {
            Format::Table => line(&table()),
            Format::Json => line(&pretty(value)?),
            Format::Jsonl => line(&compact(value)?),
            Format::Yaml => line(yaml(value)?.trim_end()),
        }
    }

    /// Prints a list: as one document `whole`, one document per item, or for people as `table` gives it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn list<T: Serialize>(
        &self,
        whole: &impl Serialize,
        items: &[T],
        table: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Jsonl => items.iter().try_for_each(|item| line(&compact(item)?)),
            _ => self.one(whole, table),
        }
    }

    /// Prints a list of JSON documents: for people the columns that the command has, or those that were asked for by
    /// `--columns`, each the name of one of those or a path into an item.
    ///
    /// # Errors
    /// When stdout cannot be written, or a column is neither.
    pub fn rows(&self, whole: &impl Serialize, items: &[Value], columns: &[Column]) -> Result<(), CliError> {
        if self.columns.is_empty() || !self.is_for_people() {
            let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
            let row = |item: &Value| columns.iter().map(|(_, of)| of(item)).collect();
            return self.list(whole, items, || table(&header, items.iter().map(row)));
        }
        for name in &self.columns {
            let is_known = named(columns, name).is_some() || items.is_empty();
            if !is_known && items.iter().all(|item| at(item, name).is_none()) {
                let known: Vec<_> = columns.iter().map(|(name, _)| name.replace(' ', "-")).collect();
                return Err(CliError::usage(format!("there is no column `{name}`")).help(format!(
                    "this list has {}; any member of an item that --output json shows can be named too, for example \
                     `steps.0.status`",
                    known.join(", ")
                )));
            }
        }
        let header: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let cell = |item: &Value, name: &String| match named(columns, name) {
            Some(of) => of(item),
            None => at(item, name).map_or_else(|| "-".to_owned(), cell_text),
        };
        let row = |item: &Value| self.columns.iter().map(|name| cell(item, name)).collect();
        line(&table(&header, items.iter().map(row)))
    }

    /// Whether data goes to a person rather than a program.
    pub fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }
}

/// What the column of this name shows, whatever its case and whether its words are parted by spaces or dashes.
fn named(columns: &[Column], name: &str) -> Option<fn(&Value) -> String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], " ");
    columns.iter().find(|(known, _)| plain(known) == plain(name)).map(|(_, of)| *of)
}

/// The member of `item` at a path such as `steps.0.status`.
fn at<'a>(item: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(item, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// A value as a table shows it.
pub fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn pretty(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|error| CliError::failed(format!("no JSON: {error}")))
}

fn compact(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::failed(format!("no JSON: {error}")))
}

fn yaml(value: &impl Serialize) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|error| CliError::failed(format!("no YAML: {error}")))
}

/// Writes one line of data to stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn line(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// Writes a message to stderr. A stderr that cannot be written leaves nobody to tell.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Suggests commands to go on with, when a person is looking.
pub fn next(commands: &[String]) {
    if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
        note("");
        for command in commands {
            note(format!("  next: {command}"));
        }
    }
}

/// Whether stderr may be animated and coloured.
pub fn is_lively() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns without lines around them, as wide as the terminal allows; cells are escaped.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    // Off a terminal every row stays on one line, for grep and awk.
    let width = std::io::stdout().is_terminal().then(|| Table::new().width().map_or(80, usize::from));
    arranged(header, rows.into_iter().collect(), width)
}

/// What a column of text that is broken into lines needs at least.
const NARROW: usize = 20;

/// Words are never broken, so that ids can be copied: what does not fit beside each other then goes below each other.
fn arranged(header: &[&str], rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let header: Vec<String> = header.iter().map(|name| name.to_uppercase()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let cells = |at: usize| rows.iter().filter_map(move |row| row.get(at));
    let is_text = |at: usize| cells(at).any(|cell| cell.contains(' '));
    let natural =
        |at: usize| cells(at).chain(header.get(at)).map(|cell| cell.chars().count()).max().unwrap_or_default();
    let needed = |at: usize| 2 + if is_text(at) { natural(at).min(NARROW) } else { natural(at) };
    if width.is_some_and(|width| (0..header.len()).map(needed).sum::<usize>() > width) {
        return records(&header, &rows);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match width.and_then(|width| u16::try_from(width).ok()) {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(&header);
    for row in &rows {
        table.add_row(row);
    }
    let is_text: Vec<bool> = (0..header.len()).map(is_text).collect();
    for (column, is_text) in table.column_iter_mut().zip(is_text) {
        column.set_padding((0, 2));
        if !is_text {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Each row as lines of names and values, with an empty line between rows.
fn records(header: &[String], rows: &[Vec<String>]) -> String {
    let longest = header.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let line = |(name, cell): (&String, &String)| format!("{name:<longest$}  {cell}").trim_end().to_owned();
    let record = |row: &Vec<String>| header.iter().zip(row).map(line).collect::<Vec<_>>().join("\n");
    rows.iter().map(record).collect::<Vec<_>>().join("\n\n")
}

/// A time as a table shows it: to the second.
pub fn moment(value: &Value) -> String {
    match value.as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok()) {
        Some(at) => at.with_timezone(&chrono::Utc).format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        None => cell_text(value),
    }
}

/// `text` with control characters, and those that turn the direction of text, made visible: what a payload holds must
/// not steer the terminal.
pub fn escape(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(escape("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\nc\\u{202e}d");
        assert_eq!(escape("grün 🙂"), "grün 🙂");
    }

    #[test]
    fn columns_are_found_by_their_names_and_members_by_their_paths() {
        let columns: &[Column] = &[("saga id", |item| cell_text(&item["id"]))];
        let item = serde_json::json!({ "id": "7", "steps": [{ "status": "stuck" }] });
        for name in ["saga id", "SAGA-ID", "saga_id"] {
            assert_eq!(named(columns, name).map(|of| of(&item)), Some("7".to_owned()));
        }
        assert!(named(columns, "sagaid").is_none());
        assert_eq!(at(&item, "steps.0.status"), Some(&"stuck".into()));
        assert_eq!((at(&item, "steps.1.status"), at(&item, "steps.x"), at(&item, "")), (None, None, None));
    }

    #[test]
    fn a_table_fits_the_terminal_and_never_breaks_a_word() {
        let id = "0198c0de-0000-7000-8000-000000000001";
        let why = "a person: the compensation of `pick` failed with gone; retry, skip, pause or abandon";
        let rows = || vec![vec![id.to_owned(), "STUCK".to_owned(), why.to_owned()]];
        let at = |width| arranged(&["id", "state", "why"], rows(), width);
        assert_eq!(at(None).lines().count(), 2, "off a terminal a row is one line");
        for width in [70, 80, 120, 200] {
            let text = at(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.contains(id) && text.starts_with("ID "), "{text}");
        }
        let narrow = at(Some(60));
        assert_eq!(narrow, format!("ID     {id}\nSTATE  STUCK\nWHY    {why}"));
    }

    #[test]
    fn times_are_told_to_the_second() {
        assert_eq!(moment(&"2026-01-31T12:00:00.123456Z".into()), "2026-01-31T12:00:00Z");
        assert_eq!((moment(&Value::Null), moment(&"soon".into())), ("-".to_owned(), "soon".to_owned()));
    }

    #[test]
    fn a_table_has_one_line_per_row() {
        let text = table(&["name", "state"], [vec!["a\nb".to_owned(), "RUNNING".to_owned()]]);
        assert_eq!(text, "NAME  STATE\na\\nb  RUNNING");
    }
}
