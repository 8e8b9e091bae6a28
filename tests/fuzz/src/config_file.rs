//! The file that `seaway-proxy --config` names.

use std::path::Path;
use std::sync::LazyLock;

use clap::Parser;
use seaway_proxy::cli::{Cli, Command, RunArgs};
use seaway_proxy::config::{Config, ConfigError};

const PATH: &str = "proxy.conf";

static ARGS: LazyLock<RunArgs> = LazyLock::new(|| {
    let words = ["seaway-proxy", "run", "--config", PATH];
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Run(args)) => args,
        other => panic!("{words:?} is {other:?}"),
    }
});

/// A file is refused with words about it, or it is taken; then the same in JSON means the same.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match load(text) {
        Ok(meaning) => {
            let document: serde_json::Value =
                serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"));
            let json = load(&document.to_string());
            assert_eq!(json.unwrap_or_else(|error| panic!("{error}")), meaning);
        }
        Err(ConfigError::Setting { setting, problem }) => {
            assert!(!setting.is_empty() && !problem.is_empty());
        }
        Err(ConfigError::File(error)) => {
            let words = error.to_string();
            assert!(
                words.starts_with(PATH) && words.len() > PATH.len() + 2,
                "{words}"
            );
        }
    }
}

/// What the daemon would do, as text to compare.
fn load(text: &str) -> Result<String, ConfigError> {
    let config = Config::with_file(ARGS.node.clone(), Path::new(PATH), text)?;
    let run = config.run(&ARGS)?;
    Ok(format!("{config:?} {run:?}"))
}
