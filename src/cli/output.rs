//! What commands print: data to stdout in the form asked for, everything else to stderr.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

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
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The form of the data.
    pub format: Format,
}

impl Output {
    /// Prints one thing: as a document, or for people as `table` gives it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn one(self, value: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), CliError> {
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
        self,
        whole: &impl Serialize,
        items: &[T],
        table: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Jsonl => items.iter().try_for_each(|item| line(&compact(item)?)),
            _ => self.one(whole, table),
        }
    }

    /// Whether data goes to a person rather than a program.
    pub fn is_for_people(self) -> bool {
        self.format == Format::Table
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

/// Columns without lines around them; cells are escaped.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Off a terminal every row stays on one line, for grep and awk.
    let arrangement =
        if std::io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| escape(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
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
    fn a_table_has_one_line_per_row() {
        let text = table(&["name", "state"], [vec!["a\nb".to_owned(), "RUNNING".to_owned()]]);
        assert_eq!(text, "NAME  STATE\na\\nb  RUNNING");
    }
}
