//! The picture of a run: bars with quartiles, in SVG.

use std::fmt::Write;

use crate::stats::Spread;

/// Bars that are longer than this are cut.
const LONGEST: f64 = 3.0;
/// Lengths are in pixels.
const COLUMN: f64 = 430.0;
const LABELS: f64 = 165.0;
const UNIT: f64 = 70.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 46.0;
const TITLE: f64 = 24.0;
const GAP: f64 = 16.0;

const STYLE: &str = "<style>\
text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.note{font-size:11px;fill:#666}\
.back{fill:#fff}.line{stroke:#ccc}.one{stroke:#888}.whisker{stroke:#222;stroke-width:1.5}\
.kernel{fill:#9aa5b1}.ours{fill:#2f7ebc}.other{fill:#d98e48}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.note{fill:#999}.back{fill:#161b22}.line{stroke:#30363d}\
.one{stroke:#777}.whisker{stroke:#eee}}\
</style>";

/// One test.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its name.
    pub title: String,
    /// One bar for each case.
    pub rows: Vec<Row>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// Its colour.
    pub group: Group,
    /// How long the bar is.
    pub ratio: Spread,
}

/// Whose a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The kernel by itself.
    Kernel,
    /// Sampan.
    Ours,
    /// Another translator.
    Other,
}

/// Draws the panels in two columns.
pub fn draw(title: &str, note: &str, panels: &[Panel]) -> String {
    let mut body = String::new();
    let mut top = HEAD;
    for pair in panels.chunks(2) {
        let rows = pair.iter().map(|panel| panel.rows.len()).max().unwrap_or(0);
        for (panel, left) in pair.iter().zip([GAP, GAP + COLUMN]) {
            draw_panel(&mut body, panel, left, top);
        }
        top += TITLE + rows as f64 * ROW + GAP;
    }
    let width = 2.0 * (COLUMN + GAP / 2.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {top:.0}\" width=\"{width:.0}\" \
         height=\"{top:.0}\" role=\"img\">\n{STYLE}\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{GAP}\" y=\"18\">{}</text>\n<text class=\"note\" x=\"{GAP}\" y=\"35\">{}</text>\n\
         {body}</svg>\n",
        escaped(title),
        escaped(note),
    )
}

fn draw_panel(to: &mut String, panel: &Panel, left: f64, top: f64) {
    let zero = left + LABELS;
    let (first, last) = (top + TITLE - 4.0, top + TITLE + panel.rows.len() as f64 * ROW);
    // Writing into a String cannot fail.
    let _ = writeln!(
        to,
        "<text class=\"title\" x=\"{left:.0}\" y=\"{:.0}\">{}</text>",
        top + 14.0,
        escaped(&panel.title)
    );
    for at in 0..=LONGEST as u32 {
        let x = zero + f64::from(at) * UNIT;
        let class = if at == 1 { "one" } else { "line" };
        let _ = writeln!(
            to,
            "<line class=\"{class}\" x1=\"{x:.0}\" y1=\"{first:.0}\" x2=\"{x:.0}\" y2=\"{last:.0}\"/>"
        );
    }
    for (row, number) in panel.rows.iter().zip(0u32..) {
        draw_row(to, row, left, top + TITLE + f64::from(number) * ROW);
    }
}

fn draw_row(to: &mut String, row: &Row, left: f64, top: f64) {
    let zero = left + LABELS;
    let x = |ratio: f64| zero + ratio.clamp(0.0, LONGEST) * UNIT;
    let (middle, baseline) = (top + ROW / 2.0 - 1.0, top + ROW - 5.0);
    let Spread { median, q1, q3, .. } = row.ratio;
    let class = match row.group {
        Group::Kernel => "kernel",
        Group::Ours => "ours",
        Group::Other => "other",
    };
    let _ = writeln!(
        to,
        "<text x=\"{left:.0}\" y=\"{baseline:.0}\">{}</text>\n\
         <rect class=\"{class}\" x=\"{zero:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\"/>",
        escaped(&row.label),
        top + 1.0,
        x(median) - zero,
        ROW - 5.0,
    );
    if q1 < LONGEST {
        let (low, high, up, down) = (x(q1), x(q3), middle - 3.0, middle + 3.0);
        let _ = writeln!(
            to,
            "<path class=\"whisker\" d=\"M{low:.1} {up:.0}V{down:.0}M{low:.1} {middle:.0}H{high:.1}M{high:.1} \
             {up:.0}V{down:.0}\"/>",
        );
    }
    let cut = if median > LONGEST { "▸ " } else { "" };
    let _ = writeln!(
        to,
        "<text x=\"{:.1}\" y=\"{baseline:.0}\">{cut}<tspan>{median:.2}</tspan></text>",
        x(q3.max(median)) + 5.0
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
