//! Logs go to stderr; stdout belongs to what was asked for.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The flags about the log; to be flattened into a command line.
#[derive(Debug, Clone, Copy, Args)]
pub struct LogArgs {
    /// Form of the log on stderr; what is logged is set by RUST_LOG
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "SEAWAY_LOG_FORMAT")]
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
        let filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}
