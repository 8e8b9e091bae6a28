//! Where everything stands. Written by hand: rectangles and lines of text are all that it takes.
//!
//! No script and no font of its own, and a background, because pages show it as an image, in the light and in the dark.

use super::super::figure::shown;
use super::panels::{Bar, Panel, Picture};

const WIDTH: usize = 920;
const COLUMNS: usize = 2;
const MARGIN: usize = 24;
/// Between two panels.
const GAP: usize = 36;
const PANEL: usize = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS;
/// Of a letter, on average. Nobody knows the font, so this is one of the wide ones.
const LETTER: f64 = 6.8;
/// Behind the longest bar.
const VALUE: f64 = 70.0;
const BAR: usize = 16;
const ROW: usize = 23;
/// Above the panels, and above the bars of each.
const HEADER: usize = 72;
const HEADING: usize = 42;

const PAPER: &str = "#f6f8fa";
const BORDER: &str = "#d0d7de";
const INK: &str = "#1f2328";
const FAINT: &str = "#59636e";
const OURS: &str = "#0969da";
const PEER: &str = "#818b98";
const LEGEND: &str = "Seaway in blue, others in grey";

/// The picture as a file.
pub(super) fn draw(picture: &Picture) -> String {
    let mut body = String::new();
    let mut top = HEADER;
    for row in picture.panels.chunks(COLUMNS) {
        for (column, panel) in row.iter().enumerate() {
            let left = MARGIN + column * (PANEL + GAP);
            body += &format!("<g transform=\"translate({left} {top})\">\n");
            body += &bars(panel);
            body += "</g>\n";
        }
        let most = row.iter().map(|panel| panel.bars.len()).max();
        top += HEADING + most.unwrap_or_default() * ROW + GAP / 2;
    }
    let title = escaped(picture.title);
    let size = picture.size.as_deref();
    let subtitle: Vec<&str> = size.into_iter().chain([LEGEND]).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" \
         role=\"img\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <title>{title}</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"{PAPER}\" stroke=\"{BORDER}\"/>\n\
         <text x=\"{MARGIN}\" y=\"34\" font-size=\"17\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"54\" fill=\"{FAINT}\">{}</text>\n\
         {body}</svg>\n",
        WIDTH - 1,
        top - 1,
        escaped(&subtitle.join("; ")),
    )
}

fn bars(panel: &Panel) -> String {
    let longest = panel.bars.iter().map(|bar| bar.name.chars().count()).max();
    let left = longest.unwrap_or_default() as f64 * LETTER + 8.0;
    let room = (PANEL as f64 - left - VALUE).max(0.0);
    let most = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let mut text = format!(
        "<text y=\"12\" font-size=\"13\" font-weight=\"bold\">{}</text>\n\
         <text y=\"29\" font-size=\"11\" fill=\"{FAINT}\">{}</text>\n",
        escaped(panel.title),
        escaped(&panel.note),
    );
    for (index, bar) in panel.bars.iter().enumerate() {
        let top = HEADING + index * ROW;
        let length = match most > 0.0 {
            true => bar.value.max(0.0) / most * room,
            false => 0.0,
        };
        text += &row(bar, panel.unit.symbol(), top, left, length);
    }
    text
}

fn row(bar: &Bar, unit: &str, top: usize, left: f64, length: f64) -> String {
    let (fill, weight) = match bar.ours {
        true => (OURS, "bold"),
        false => (PEER, "normal"),
    };
    let value = format!("{} {unit}", shown(bar.value));
    format!(
        "<text x=\"{:.1}\" y=\"{base}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{left:.1}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>\n\
         <text x=\"{:.1}\" y=\"{base}\" font-weight=\"{weight}\">{}</text>\n",
        left - 8.0,
        escaped(&bar.name),
        left + length + 6.0,
        escaped(value.trim_end()),
        base = top + 12,
    )
}

/// As text of XML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}
