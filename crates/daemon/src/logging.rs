//! Logs go to stderr; stdout belongs to what was asked for.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Behind the flags of each command.
const LAST: usize = 900;

/// The flags about the log; to be flattened into a command line.
#[derive(Debug, Clone, Copy, Args)]
pub struct LogArgs {
    /// Form of the log on stderr; what is logged is set by RUST_LOG
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "SEAWAY_LOG_FORMAT", display_order = LAST)]
    log_format: LogFormat,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

impl LogArgs {
    /// Starts logging, once in a process; `RUST_LOG` goes before `default_filter`.
    pub fn start(self, default_filter: &str) {
        let (filter, complaint) = filter(std::env::var("RUST_LOG").ok().as_deref(), default_filter);
        if let Some(complaint) = complaint {
            eprintln!("warning: {complaint}");
        }
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

/// The filter that was `given`, or ours with the reason why the former does not count.
fn filter(given: Option<&str>, ours: &str) -> (EnvFilter, Option<String>) {
    // kube logs each failed request as an error of its own; who asked says it better, and once.
    let ours = || EnvFilter::new(format!("{ours},kube_client=off"));
    match given.filter(|text| !text.is_empty()) {
        None => (ours(), None),
        Some(text) => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (
                ours(),
                Some(format!(
                    "RUST_LOG={text:?} does not count: {error}; expected a level, or TARGET=LEVEL,.. such as seaway_proxy=debug"
                )),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_counts_unless_it_cannot_be_read() {
        for (given, filter_is, complains) in [
            (None, "kube_client=off,info", false),
            (Some(""), "kube_client=off,info", false),
            (Some("debug"), "debug", false),
            (Some("seaway_proxy=trace"), "seaway_proxy=trace", false),
            (Some("seaway_proxy=loud"), "kube_client=off,info", true),
        ] {
            let (filter, complaint) = filter(given, "info");
            assert_eq!(filter.to_string(), filter_is, "{given:?}");
            assert_eq!(complaint.is_some(), complains, "{given:?}");
        }
    }
}
