//! Every path that `ARCHITECTURE.md` names exists.

use std::path::Path;

use anyhow::{Context, Result};

const MAP: &str = "ARCHITECTURE.md";

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let file = root.join(MAP);
    if !file.exists() {
        return Ok(vec![format!("{MAP} is missing")]);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {MAP}"))?;
    Ok(paths(&text)
        .into_iter()
        .filter(|path| !root.join(path).exists())
        .map(|path| format!("{MAP}: `{path}` does not exist"))
        .collect())
}

/// Top-level directories: what starts with one of them, in backquotes, is a path of the checkout.
const TOP: &[&str] = &[
    "crates/", "proxy/", "cni/", "ebpf/", "control/", "xtask/", "tests/", "deploy/", "docs/",
    ".ci/",
];

fn paths(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::trim)
        .filter(|word| TOP.iter().any(|top| word.starts_with(top)))
        // Patterns and placeholders are not paths.
        .filter(|word| !word.contains(['*', '{', '<', ' ', '…']))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quoted_paths_of_the_checkout_count() {
        let text = "see `crates/model/src/lib.rs`, `cargo xtask`, crates/none and `proxy/src/*.rs`";
        assert_eq!(paths(text), ["crates/model/src/lib.rs"]);
    }
}
