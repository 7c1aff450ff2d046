//! Findings as a person reads them: each with the lines of the definition it is about.

use std::fmt::Write as _;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};

use crate::definition::diagnostic::is_deceptive;
use crate::definition::{Diagnostic, Severity};

/// Prints `diagnostics`, found in `source`, one after the other. `name` is the file's name, shown with line and column.
pub fn render(name: &str, source: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
    let shown: String = source.chars().map(visible).collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let start = diagnostic.span.0.min(source.len());
        let length = diagnostic.span.1.min(source.len() - start);
        let severity = match diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let mut found = MietteDiagnostic::new(diagnostic.message.clone())
            .with_code(diagnostic.code)
            .with_severity(severity)
            .with_label(LabeledSpan::underline((start, length)));
        found.help.clone_from(&diagnostic.suggestion);
        let report = Report::new(found).with_source_code(NamedSource::new(name, shown.clone()));
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            // The graphical form only fails on spans that it cannot show; the plain form always fits.
            let Diagnostic { line, column, code, message, .. } = diagnostic;
            let _ = writeln!(out, "{name}:{line}:{column}: {code}: {message}");
        }
    }
    out
}

/// A stand-in of the same length for what would command the terminal, so that places stay right.
fn visible(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => character,
        _ if character.is_control() => {
            if character.len_utf8() == 1 {
                '?'
            } else {
                '¿'
            }
        }
        _ if is_deceptive(character) => '\u{fffd}',
        _ => character,
    }
}
