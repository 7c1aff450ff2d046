//! Throughput and latency against the number of sagas in flight, as a picture for the docs. Both axes are logarithmic.

use std::fmt::Write;

use super::report::Report;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
/// Of one panel, without its margins.
const PANEL: (f64, f64) = (330.0, 270.0);
const TOP: f64 = 50.0;
const LEFT: [f64; 2] = [70.0, 500.0];

/// A line of a panel: its name, its class, and its values over the numbers in flight.
struct Line {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
}

/// The picture; colours follow the reader's scheme.
pub(super) fn svg(reports: &[Report]) -> String {
    let line = |name, class, of: fn(&Report) -> Option<f64>| Line {
        name,
        class,
        points: reports.iter().filter_map(|report| Some((f64::from(report.in_flight), of(report)?))).collect(),
    };
    let throughput = [
        line("amends", "own", |report| Some(report.figures.sagas_per_second)),
        line("floor", "floor", |report| report.figures.floor_sagas_per_second),
        line("floor with lapin", "lapin", |report| report.figures.lapin_floor_sagas_per_second),
    ];
    let latency = [
        line("amends, p50", "own", |report| Some(report.figures.p50_ms)),
        line("amends, p99", "tail", |report| Some(report.figures.p99_ms)),
        line("floor, p50", "floor", |report| report.figures.floor_p50_ms),
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" role=\"img\" aria-label=\"sagas per second and latency against sagas in flight\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    for (left, title, lines) in [(LEFT[0], "sagas per second", &throughput), (LEFT[1], "latency, ms", &latency)] {
        panel(&mut svg, left, title, lines);
    }
    svg.push_str("</svg>\n");
    svg
}

const STYLE: &str = "<style>\
.paper{fill:#fff}text{fill:#333}.grid{stroke:#ddd}.own{stroke:#0b6bcb}.tail{stroke:#0b6bcb;stroke-dasharray:4 3}\
.floor{stroke:#777}.lapin{stroke:#b35c00}path{fill:none;stroke-width:2}circle{stroke-width:2}circle{fill:#fff}\
@media(prefers-color-scheme:dark){.paper,circle{fill:#161616}text{fill:#ddd}.grid{stroke:#3a3a3a}.own,.tail{stroke:#6cb2f7}\
.floor{stroke:#aaa}.lapin{stroke:#f0a35e}}</style>";

fn panel(svg: &mut String, left: f64, title: &str, lines: &[Line]) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (across, up) = (Axis::over(all().map(|point| point.0), 2), Axis::over(all().map(|point| point.1), 10));
    let (Some(across), Some(up)) = (across, up) else { return };
    let x = |value: f64| left + across.place(value) * PANEL.0;
    let y = |value: f64| TOP + (1.0 - up.place(value)) * PANEL.1;
    let bottom = TOP + PANEL.1;
    let mut put = |text: String| svg.push_str(&text);
    put(format!("<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text>\n", TOP - 26.0));
    for tick in up.ticks() {
        let at = y(tick);
        put(format!("<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", left + PANEL.0));
        put(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>\n", left - 8.0, at + 4.0));
    }
    let mut seen: Vec<f64> = all().map(|point| point.0).collect();
    seen.sort_unstable_by(f64::total_cmp);
    seen.dedup();
    for tick in seen {
        put(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>\n", x(tick), bottom + 18.0));
    }
    let middle = left + PANEL.0 / 2.0;
    put(format!("<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">in flight</text>\n", bottom + 38.0));
    let mut legend = left;
    for Line { name, class, points } in lines.iter().filter(|line| !line.points.is_empty()) {
        let mut path = String::new();
        for (at, (value, height)) in points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, x(*value), y(*height));
        }
        put(format!("<path class=\"{class}\" d=\"{path}\"/>"));
        for (value, height) in points {
            put(format!("<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(*value), y(*height)));
        }
        let line = TOP - 10.0;
        put(format!("<path class=\"{class}\" d=\"M{legend:.1} {line}h18\"/>"));
        put(format!("<text x=\"{:.1}\" y=\"{}\">{name}</text>\n", legend + 23.0, line + 4.0));
        legend += 40.0 + 6.6 * name.len() as f64;
    }
}

/// A logarithmic axis from one power of `base` to another.
struct Axis {
    from: f64,
    to: f64,
    base: f64,
}

impl Axis {
    /// `None` when there is nothing to show.
    fn over(values: impl Iterator<Item = f64>, base: u32) -> Option<Self> {
        let base = f64::from(base);
        let exponents: Vec<f64> = values.filter(|value| *value > 0.0).map(|value| value.log(base)).collect();
        let least = exponents.iter().copied().min_by(f64::total_cmp)?.floor();
        let most = exponents.iter().copied().max_by(f64::total_cmp)?.ceil();
        Some(Self { from: least, to: most.max(least + 1.0), base })
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.max(f64::MIN_POSITIVE).log(self.base) - self.from) / (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (base, from, to) = (self.base, self.from as i32, self.to as i32);
        (from..=to).map(move |exponent| base.powi(exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn an_axis_spans_whole_powers() {
        let axis = Axis::over([3.0, 700.0].into_iter(), 10).expect("values");
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert!(Axis::over([0.0].into_iter(), 10).is_none());
        assert_eq!(Axis::over([1.0].into_iter(), 2).expect("a value").ticks().collect::<Vec<_>>(), [1.0, 2.0]);
    }
}
