//! `cargo xtask tidy`: the rules of the code base that no compiler checks.

mod dependencies;
mod map;
mod purity;
mod size;
mod words;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;

/// One Rust file of the project.
struct Source {
    /// Relative to the root of the checkout.
    path: String,
    text: String,
}

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let violations = violations(workspace)?;
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} violations", violations.len());
    Ok(ExitCode::FAILURE)
}

/// Everything that is not as it should be, one line each.
pub(crate) fn violations(workspace: &Workspace) -> Result<Vec<String>> {
    let sources = sources(workspace)?;
    let mut found = size::check(&sources);
    found.extend(purity::check(&sources));
    found.extend(words::check(&sources));
    found.extend(dependencies::check(&workspace.metadata));
    found.extend(map::check(&workspace.root)?);
    Ok(found)
}

/// Files that git tracks or would track.
fn sources(workspace: &Workspace) -> Result<Vec<Source>> {
    let shell = workspace.shell()?;
    let list = cmd!(
        shell,
        "git ls-files --cached --others --exclude-standard *.rs"
    )
    .quiet()
    .read()
    .context("git ls-files")?;
    let mut sources = Vec::new();
    for path in list.lines() {
        let full = workspace.root.join(path);
        // Deleted, but not yet committed.
        if Path::new(&full).exists() {
            let text =
                std::fs::read_to_string(&full).with_context(|| format!("cannot read {path}"))?;
            sources.push(Source {
                path: path.to_owned(),
                text,
            });
        }
    }
    Ok(sources)
}

impl Source {
    /// Lines of code outside tests, numbered from 1, without comment lines.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    /// Test suites and test modules in files of their own.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
    }
}
