//! States, times and commands as people read them.

use chrono::TimeDelta;
use maud::{Markup, PreEscaped, html};

use crate::clock::Timestamp;

/// A state or status by icon and word; the colour only says it once more.
pub(super) fn badge(word: &str) -> Markup {
    let path = match word {
        "COMPLETED" | "verified" | "success" => "M2.5 8.5L6.5 12.5L13.5 4",
        "COMPENSATED" | "COMPENSATING" | "compensated" | "compensating" => {
            "M6 3L2.5 6.5L6 10M2.5 6.5H10A3.5 3.5 0 0 1 10 13.5H6"
        }
        "STUCK" | "parked" => "M8 1.5L15 14H1ZM8 6V9.8M8 11.2V12.4",
        "ABANDONED" | "failed" | "failure" | "abandoned" => "M3.5 3.5L12.5 12.5M12.5 3.5L3.5 12.5",
        "unknown" => "M4.5 5.5A3.5 3.5 0 1 1 9.5 8.2C8.4 8.8 8 9.3 8 10.5M8 13V14.2",
        "skipped" => "M2 3.5L7 8L2 12.5M8 3.5L13 8L8 12.5",
        "waiting" => "M8 1.8A6.2 6.2 0 1 1 7.99 1.8Z",
        "paused" => "M5 3V13M11 3V13",
        _ => "M8 1.8A6.2 6.2 0 1 1 7.99 1.8ZM8 4.5V8L10.8 9.6",
    };
    let class = format!("badge {}", word.to_ascii_lowercase());
    html! {
        span class=(class) {
            svg.line viewBox="0 0 16 16" width="12" height="12" aria-hidden="true" focusable="false" { path d=(path) {} }
            (word)
        }
    }
}

/// A time span in one unit, for example `3 min`.
pub(super) fn span(delta: TimeDelta) -> String {
    let seconds = delta.num_seconds().max(0);
    match seconds {
        0 if delta.num_milliseconds() > 0 => format!("{} ms", delta.num_milliseconds()),
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago something was; the exact time in UTC beside it for machines and as a hint.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let words = match now.signed_duration_since(at) {
        delta if delta < TimeDelta::zero() => format!("in {}", span(-delta)),
        delta => format!("{} ago", span(delta)),
    };
    time(at, &words, "ago")
}

/// A time in UTC.
pub(super) fn clock(at: Timestamp) -> Markup {
    time(at, &at.format("%Y-%m-%d %H:%M:%S").to_string(), "clock")
}

/// The time of a day.
pub(super) fn time_of_day(at: Timestamp) -> Markup {
    time(at, &at.format("%H:%M:%S%.3f").to_string(), "day")
}

/// `form` is what the switch of times goes by: told as an age, with its date, or without.
fn time(at: Timestamp, words: &str, form: &str) -> Markup {
    let exact = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    html! { time datetime=(exact) data-form=(form) title=(at.format("%Y-%m-%d %H:%M:%S UTC")) { (words) } }
}

/// A number with a thin space between thousands.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A count that was taken up to `most`.
pub(super) fn up_to(count: u64, most: u32) -> String {
    if count > u64::from(most) { format!("{}+", number(u64::from(most))) } else { number(count) }
}

/// The last part of an id: enough to tell the sagas of one page apart.
pub(super) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(12)..).unwrap_or(id)
}

/// At most so many characters of a name.
pub(super) fn cut(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// What a saga waits for as a whole sentence: attempts tell of themselves, everything else is waited for.
pub(super) fn waits(waiting_for: &str) -> Markup {
    match waiting_for.strip_prefix('a').filter(|rest| rest.starts_with("ttempt ")) {
        Some(rest) => html! { "A" (sentence(rest)) "." },
        None => html! { span.soft { "Waiting for " } (sentence(waiting_for)) "." },
    }
}

/// Text with `code` in backticks set as code.
pub(super) fn sentence(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A word of a shell command, quoted where it must be.
pub(super) fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '=');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command line that does the same, to be copied.
pub(super) fn command_line(line: &str) -> Markup {
    html! {
        div.cli {
            code { (line) }
            button.quiet.copy type="button" data-copy=(line) hidden { "Copy" }
        }
    }
}

/// A drawing that was made by `picture`, which escapes what it draws.
pub(super) fn drawing(svg: String) -> Markup {
    PreEscaped(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_one_unit() {
        let seconds = |seconds| span(TimeDelta::seconds(seconds));
        assert_eq!([seconds(0), seconds(119), seconds(120), seconds(7_200)], ["0 s", "119 s", "2 min", "2 h"]);
        assert_eq!(seconds(172_800), "2 d");
        assert_eq!(span(TimeDelta::milliseconds(12)), "12 ms");
    }

    #[test]
    fn a_shell_gets_each_word_as_it_is() {
        assert_eq!(shell("a-b"), "a-b");
        assert_eq!(shell("it's; rm -rf /"), r"'it'\''s; rm -rf /'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn an_attempt_tells_of_itself_and_everything_else_is_waited_for() {
        let told = |text: &str| waits(text).into_string();
        assert_eq!(told("attempt 1 of `pick` timed out"), "Attempt 1 of <code>pick</code> timed out.");
        assert_eq!(told("a person"), "<span class=\"soft\">Waiting for </span>a person.");
        assert_eq!(told(""), "<span class=\"soft\">Waiting for </span>.");
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(up_to(10_001, 10_000), "10\u{202f}000+");
    }
}
