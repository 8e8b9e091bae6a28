//! Putting the plugin, and a config list for it, where runtimes look.

use std::io;
use std::path::{Path, PathBuf};

use seaway_model::ownership;

use crate::PLUGIN_NAME;
use crate::node::write_if_changed;
use crate::protocol::conflist;

/// Puts this program into a plugin directory, in one step: a runtime that starts it meanwhile gets the old or the new
/// one. Answers its path, and whether it changed.
pub fn binary(bin_dir: &Path) -> io::Result<(PathBuf, bool)> {
    let target = bin_dir.join(PLUGIN_NAME);
    let changed = write_if_changed(&target, &std::fs::read("/proc/self/exe")?, 0o755)?;
    Ok((target, changed))
}

/// Puts the config list into a configuration directory, in one step. Answers its path, and whether it changed.
pub fn config(conf_dir: &Path, run_dir: &Path, state_dir: &Path) -> io::Result<(PathBuf, bool)> {
    let target = conf_dir.join(ownership::CONFLIST_FILE);
    let content = conflist(run_dir, state_dir);
    let changed = write_if_changed(&target, content.as_bytes(), 0o644)?;
    Ok((target, changed))
}
