//! The picture: what Tidegate costs as a share of what each rival costs, row by row.
//!
//! Owns the drawing, as SVG text that needs nothing else, in colours for light and for dark pages.
//! Pure; it knows nothing of how the figures were made.

use std::fmt::Write as _;

use super::stats::Spread;

/// All that is drawn.
pub struct Picture<'a> {
    /// Under the title.
    pub subtitle: String,
    /// Rivals, in the order of their colours.
    pub rivals: Vec<&'a str>,
    /// From top to bottom.
    pub groups: Vec<Group<'a>>,
    /// Small print at the bottom.
    pub footer: Vec<String>,
}

/// One row of the table.
pub struct Group<'a> {
    /// Beside its bars.
    pub title: &'a str,
    /// Where a line marks what is aimed at.
    pub target: Option<f64>,
    /// By rival, in the order of [`Picture::rivals`]; `None` where it was not measured.
    pub bars: Vec<Option<Spread>>,
}

impl Picture<'_> {
    /// The whole file.
    pub fn draw(&self) -> String {
        let group = GAP + BAR * self.rivals.len() as f64;
        let bottom = TOP + group * self.groups.len() as f64;
        let height = bottom + 34.0 + 15.0 * self.footer.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title\">\n\
             <title id=\"title\">{TITLE}</title>\n{STYLE}\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n"
        );
        text(&mut svg, "head", (20.0, 30.0), TITLE);
        text(&mut svg, "note", (20.0, 50.0), &self.subtitle);
        self.legend(&mut svg);
        axis(&mut svg, bottom);
        for (index, of_row) in self.groups.iter().enumerate() {
            self.group(&mut svg, TOP + group * index as f64, of_row);
        }
        for (index, line) in self.footer.iter().enumerate() {
            let y = bottom + 34.0 + 15.0 * index as f64;
            text(&mut svg, "note", (20.0, y), line);
        }
        svg + "</svg>\n"
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 20.0;
        for (index, rival) in self.rivals.iter().enumerate() {
            rect(svg, &format!("rival{index}"), (x, 63.0, 12.0, 12.0));
            let label = format!("{rival} = 1");
            text(svg, "label", (x + 17.0, 73.0), &label);
            x += 42.0 + 7.0 * label.len() as f64;
        }
        line(svg, "target", (x + 6.0, 62.0), (x + 6.0, 76.0));
        text(svg, "label", (x + 14.0, 73.0), "target");
    }

    fn group(&self, svg: &mut String, top: f64, group: &Group<'_>) {
        let middle = top + (GAP + BAR * self.rivals.len() as f64) / 2.0;
        text(svg, "row", (LEFT - 12.0, middle + 4.0), group.title);
        let place = |index: usize| top + GAP / 2.0 + BAR * index as f64;
        let bars = || {
            let bars = group.bars.iter().enumerate();
            bars.filter_map(|(index, bar)| Some((index, place(index), bar.as_ref()?)))
        };
        for (index, y, spread) in bars() {
            let class = format!("rival{index}");
            let end = position(spread.median);
            rect(svg, &class, (LEFT, y + 1.0, end - LEFT, BAR - 3.0));
            let centre = y + BAR / 2.0 - 0.5;
            let (low, high) = (position(spread.min), position(spread.max));
            line(svg, "spread", (low, centre), (high, centre));
        }
        if let Some(target) = group.target {
            let x = position(target);
            line(
                svg,
                "target",
                (x, place(0) - 2.0),
                (x, place(self.rivals.len())),
            );
        }
        // Last, so that nothing runs through them.
        for (_, y, spread) in bars() {
            let beyond = if spread.median > MOST { "→ " } else { "" };
            let value = format!("{beyond}{:.2}", spread.median);
            let x = position(spread.max.max(spread.median)) + 6.0;
            text(svg, "value", (x, y + BAR - 3.0), &value);
        }
    }
}

fn axis(svg: &mut String, bottom: f64) {
    for tenth in [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, MOST] {
        let x = position(tenth);
        let class = if tenth == 1.0 { "equal" } else { "grid" };
        line(svg, class, (x, TOP - 4.0), (x, bottom));
        text(svg, "tick", (x, TOP - 9.0), &format!("{tenth}"));
    }
}

/// Where a ratio is on the axis; those beyond its end are at its end.
fn position(ratio: f64) -> f64 {
    let share = (ratio / MOST).clamp(0.0, 1.0);
    // Tenths of a pixel are enough, and short.
    (10.0 * (LEFT + share * (RIGHT - LEFT))).round() / 10.0
}

fn text(svg: &mut String, class: &str, at: (f64, f64), words: &str) {
    let (x, y, words) = (at.0, at.1, escaped(words));
    // Writing to a string does not fail, here and below.
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>"
    );
}

fn rect(svg: &mut String, class: &str, at: (f64, f64, f64, f64)) {
    let (x, y, width, height) = at;
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\"/>"
    );
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
    );
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const TITLE: &str = "Cost of Tidegate, everything enforced, as a share of each rival's";

const WIDTH: f64 = 900.0;
/// Where the bars begin, and where the axis ends.
const LEFT: f64 = 330.0;
const RIGHT: f64 = 840.0;
/// Where the first group begins.
const TOP: f64 = 112.0;
/// Height of a bar, and room between groups.
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
/// The end of the axis.
const MOST: f64 = 1.5;

/// The same hues twice, so that each stands out against its page.
const STYLE: &str = "<style>\n\
    text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1f2328; }\n\
    .head { font-size: 17px; font-weight: 600; }\n\
    .note, .tick { font-size: 11px; fill: #59636e; }\n\
    .tick { text-anchor: middle; }\n\
    .row { text-anchor: end; }\n\
    .value { font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }\n\
    .page { fill: #ffffff; }\n\
    .grid { stroke: #d1d9e0; }\n\
    .equal { stroke: #59636e; stroke-dasharray: 4 3; }\n\
    .spread { stroke: #1f2328; stroke-width: 1.5; }\n\
    .target { stroke: #cf222e; stroke-width: 2; }\n\
    .rival0 { fill: #54aeff; }\n\
    .rival1 { fill: #d4a72c; }\n\
    .rival2 { fill: #4ac26b; }\n\
    .rival3 { fill: #c297ff; }\n\
    @media (prefers-color-scheme: dark) {\n\
    text { fill: #f0f6fc; }\n\
    .note, .tick { fill: #9198a1; }\n\
    .value { stroke: #0d1117; }\n\
    .page { fill: #0d1117; }\n\
    .grid { stroke: #2f353d; }\n\
    .equal { stroke: #9198a1; }\n\
    .spread { stroke: #f0f6fc; }\n\
    .target { stroke: #ff7b72; }\n\
    .rival0 { fill: #1f6feb; }\n\
    .rival1 { fill: #9e6a03; }\n\
    .rival2 { fill: #238636; }\n\
    .rival3 { fill: #8957e5; }\n\
    }\n\
    </style>\n";
