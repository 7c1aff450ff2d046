//! Colours, for light and dark surroundings. Each text has at least 4.5 : 1 on what it stands on.

use std::fmt::Write;

use super::State;

/// Ground and ink of a state in light surroundings.
pub(super) fn light(state: State) -> (&'static str, &'static str) {
    match state {
        State::Verified => ("#dcfce7", "#166534"),
        State::Skipped => ("#e2e8f0", "#475569"),
        State::Compensated => ("#ffedd5", "#9a3412"),
        State::Waiting => ("#f1f5f9", "#475569"),
        State::Pending => ("#dbeafe", "#1e40af"),
        State::Compensating => ("#fed7aa", "#7c2d12"),
        State::Unknown => ("#f3e8ff", "#6b21a8"),
        State::Failed => ("#fee2e2", "#991b1b"),
    }
}

fn dark(state: State) -> (&'static str, &'static str) {
    match state {
        State::Verified => ("#14361f", "#86efac"),
        State::Skipped => ("#334155", "#cbd5e1"),
        State::Compensated => ("#43200f", "#fdba74"),
        State::Waiting => ("#273449", "#cbd5e1"),
        State::Pending => ("#1c2f5c", "#bfdbfe"),
        State::Compensating => ("#5c2a0e", "#fed7aa"),
        State::Unknown => ("#3b1d5c", "#e9d5ff"),
        State::Failed => ("#4c1717", "#fecaca"),
    }
}

const FONT: &str = "text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,\
    'DejaVu Sans',sans-serif;font-size:12px}.h{font-size:20px;font-weight:700}.n{font-size:14px;font-weight:600}\
    .s{font-size:11px}.i{stroke-width:1.6;fill:none;stroke-linecap:round;stroke-linejoin:round}\
    .f,.b{fill:none;stroke-width:1.8}.b{stroke-dasharray:5 4}.if{stroke-dasharray:6 4}.c{stroke-width:1.2}\
    .p{stroke-width:2.6}.l{stroke-width:1.2;stroke-dasharray:2 4}";

/// What is coloured, light and dark: ground, card, line of a card, foot of a card, ink, fainter ink, the way on, the
/// way back, the pivot's card, the pivot's ink.
const LIGHT: [&str; 10] =
    ["#ffffff", "#f8fafc", "#94a3b8", "#eef2f7", "#0f172a", "#475569", "#475569", "#c2410c", "#fffbeb", "#92400e"];
const DARK: [&str; 10] =
    ["#0f172a", "#1e293b", "#64748b", "#182235", "#f1f5f9", "#b6c2d4", "#a3b1c6", "#fb923c", "#33260b", "#fbbf24"];

fn colours(out: &mut String, theme: &[&str; 10], of_state: fn(State) -> (&'static str, &'static str)) {
    let [ground, card, edge, foot, ink, faint, on, back, pivot, pivot_ink] = theme;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        ".g{{fill:{ground}}}.c{{fill:{card};stroke:{edge}}}.k{{fill:{foot}}}.t{{fill:{ink}}}.m{{fill:{faint}}}\
         .mi{{stroke:{faint}}}.ti{{stroke:{ink}}}.f{{stroke:{on}}}.fa{{fill:{on}}}.b{{stroke:{back}}}.ba{{fill:{back}}}\
         .bt{{fill:{back}}}.bi{{stroke:{back}}}.p{{fill:{pivot};stroke:{pivot_ink}}}.pt{{fill:{pivot_ink}}}\
         .pi,.l{{stroke:{pivot_ink}}}.d{{stroke:{edge}}}"
    );
    for state in State::ALL {
        let (ground, ink) = of_state(state);
        let word = state.as_str();
        let _ = write!(out, ".{word}{{fill:{ground}}}.{word}-t{{fill:{ink}}}.{word}-i{{stroke:{ink}}}");
    }
}

/// The style sheet.
pub(super) fn sheet() -> String {
    let mut out = String::from(FONT);
    colours(&mut out, &LIGHT, light);
    out.push_str("@media(prefers-color-scheme:dark){");
    colours(&mut out, &DARK, dark);
    out.push('}');
    out
}

/// The same for pages whose own style sheet it becomes a part of: what all themes share, the light one, the dark one.
pub(super) fn parts() -> [String; 3] {
    let theme = |theme: &[&str; 10], of_state: fn(State) -> (&'static str, &'static str)| {
        let mut out = String::new();
        colours(&mut out, theme, of_state);
        out
    };
    [FONT.to_owned(), theme(&LIGHT, light), theme(&DARK, dark)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour")) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_text_can_be_read_on_its_ground() {
        for theme in [LIGHT, DARK] {
            let [ground, card, _, foot, ink, faint, on, back, pivot, pivot_ink] = theme;
            for (text, below) in [
                (ink, ground),
                (faint, ground),
                (on, ground),
                (back, ground),
                (pivot_ink, ground),
                (ink, card),
                (faint, card),
                (faint, foot),
                (back, foot),
                (pivot_ink, foot),
                (ink, pivot),
                (faint, pivot),
            ] {
                assert!(contrast(text, below) >= 4.5, "{text} on {below}: {:.2}", contrast(text, below));
            }
        }
        for of_state in [light, dark] {
            for state in State::ALL {
                let (below, text) = of_state(state);
                assert!(contrast(text, below) >= 4.5, "{state:?}: {:.2}", contrast(text, below));
            }
        }
    }
}
