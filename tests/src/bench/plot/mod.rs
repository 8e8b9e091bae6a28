//! Figures as a picture: bars for each metric, one for each of those that were measured.
//!
//! Reading order: `line` (what `--json` printed) → `panels` (which figures are drawn, as which bars) →
//! `svg` (where everything stands). All three are pure.

mod line;
mod panels;
mod svg;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

/// Flags of the command.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// What `programming`, `datapath`, `overlay` or `cni` printed with `--json`
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Where the picture goes
    #[arg(long, value_name = "FILE.svg")]
    output: PathBuf,
}

/// Reads the figures, writes the picture.
pub fn run(args: &PlotArgs) -> Result<()> {
    let mut lines = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
        lines.extend(line::read(&name, &text)?);
    }
    let output = &args.output;
    fs::write(output, draw(&lines)?).with_context(|| format!("write {}", output.display()))
}

fn draw(lines: &[line::Line]) -> Result<String> {
    Ok(svg::draw(&panels::picture(lines)?))
}

#[cfg(test)]
mod tests;
