//! Texts that fit: their widths, shortened or broken, and escaped.

use std::time::Duration;

/// How wide a text is at most, in pixels. Which font draws it is not known, so widths are those of a wide one.
pub(super) fn width(text: &str, size: f64, is_bold: bool) -> f64 {
    let em: f64 = text.chars().map(of_character).sum();
    em * size * if is_bold { 1.1 } else { 1.0 }
}

fn of_character(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '|' | '\'' | '.' | ',' | ':' | ';' | '!' | ' ' => 0.34,
        'f' | 't' | 'r' | 'I' | '-' | '(' | ')' | '[' | ']' | '/' | '"' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
        'A'..='Z' | '_' | '<' | '>' | '=' | '+' | '&' => 0.78,
        c if c.is_ascii() => 0.63,
        // Narrower ones are rare, and wide ones are as wide as high.
        _ => 1.05,
    }
}

/// `text` on one line of at most `room` pixels, with an ellipsis where it was longer.
pub(super) fn shorten(text: &str, size: f64, is_bold: bool, room: f64) -> String {
    let text = plain(text);
    if width(&text, size, is_bold) <= room {
        return text;
    }
    let room = room - width("\u{2026}", size, is_bold);
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept, size, is_bold) > room {
            kept.pop();
            break;
        }
    }
    format!("{}\u{2026}", kept.trim_end())
}

/// `text` on at most two lines, broken behind a space or a sign where there is one.
pub(super) fn two_lines(text: &str, size: f64, is_bold: bool, room: f64) -> Vec<String> {
    let text = plain(text);
    if width(&text, size, is_bold) <= room {
        return vec![text];
    }
    let mut fitting = 0;
    let mut broken = 0;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if width(&text[..end], size, is_bold) > room {
            break;
        }
        fitting = end;
        if matches!(c, '-' | '_' | '.' | ' ') {
            broken = end;
        }
    }
    // A first line that is nearly empty looks worse than a broken word.
    let at = if broken * 3 >= fitting { broken } else { fitting };
    let (first, rest) = text.split_at(at);
    vec![first.trim_end().to_owned(), shorten(rest.trim_start(), size, is_bold, room)]
}

/// `text` on one line, without what commands a reader's screen.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            // Neither XML nor a line of text can hold these; the last turn the direction of reading.
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// For XML's texts and attributes.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A time, short: `30 s`, `15 min`, `1 h 30 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_millis() > 0 && seconds < 60 {
        let millis = duration.as_millis();
        return if millis < 1_000 { format!("{millis} ms") } else { format!("{} s", duration.as_secs_f64()) };
    }
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let said: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_text_fits() {
        for text in [
            "short",
            "a-rather-long-name-of-a-step-that-goes-on",
            "WWWWWWWWWWWWWWWWWWWWWWW",
            "日本語日本語日本語日本語",
        ] {
            assert!(width(&shorten(text, 12.0, false, 100.0), 12.0, false) <= 100.0, "{text}");
            for line in two_lines(text, 12.0, true, 100.0) {
                assert!(width(&line, 12.0, true) <= 100.0, "{text}: {line}");
            }
        }
        assert_eq!(two_lines("authorise-payment-of-order", 14.0, true, 150.0), ["authorise-", "payment-of-order"]);
    }

    #[test]
    fn no_text_leaves_its_place() {
        assert_eq!(xml("a<b>&\"'\n\u{0}\u{202e}"), "a&lt;b&gt;&amp;&quot;&#39; \u{fffd}\u{fffd}");
    }

    #[test]
    fn times_are_short() {
        let said = [30, 900, 5_400, 172_800, 0].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(said, ["30 s", "15 min", "1 h 30 min", "2 d", "0 s"]);
        assert_eq!(duration(Duration::from_millis(1_500)), "1.5 s");
    }
}
