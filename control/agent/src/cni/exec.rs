//! Running the plugins of a list.

use std::path::{Path, PathBuf};
use std::time::Duration;

use seaway_kernel::{Command, CommandError};
use serde_json::Value;

use super::config::{Attachment, NetworkList};

/// As long as kubelet gives a whole sandbox call.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Where plugin programs are, `CNI_PATH`.
#[derive(Debug, Clone)]
pub struct Plugins {
    directory: PathBuf,
}

/// A plugin said no, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("CNI plugin {plugin:?} is not in {}", directory.display())]
    Missing { plugin: String, directory: PathBuf },
    /// It answered with an error object (spec section 5, "Error").
    #[error("CNI {command} by {plugin:?} failed: {message} (code {code})")]
    Plugin {
        command: &'static str,
        plugin: String,
        code: i64,
        message: String,
    },
    #[error("CNI {command} by {plugin:?} failed: {reason}")]
    Run {
        command: &'static str,
        plugin: String,
        reason: String,
    },
}

impl Plugins {
    /// Plugins of one directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// ADD by every plugin in order, each with the result of the one before; the last result is the attachment's
    /// (spec section 3, "Lifecycle & Ordering"). After an error the caller owes a [`Plugins::del`].
    pub async fn add(
        &self,
        list: &NetworkList,
        attachment: &Attachment<'_>,
    ) -> Result<Value, ExecError> {
        let mut result: Option<Value> = None;
        for index in 0..list.plugins.len() {
            let request = list.request(index, result.as_ref(), attachment);
            let output = self.run("ADD", list, index, &request, attachment).await?;
            let answer = serde_json::from_slice(&output).map_err(|e| ExecError::Run {
                command: "ADD",
                plugin: list.plugin_type(index).to_owned(),
                reason: format!("its result is not JSON: {e}"),
            })?;
            result = Some(answer);
        }
        Ok(result.unwrap_or_default())
    }

    /// DEL by every plugin in reverse order. `result` is ADD's, and goes to every plugin from 0.4.0 on; none when ADD
    /// failed.
    pub async fn del(
        &self,
        list: &NetworkList,
        result: Option<&Value>,
        attachment: &Attachment<'_>,
    ) -> Result<(), ExecError> {
        let result = result.filter(|_| list.at_least("0.4.0"));
        for index in (0..list.plugins.len()).rev() {
            let request = list.request(index, result, attachment);
            self.run("DEL", list, index, &request, attachment).await?;
        }
        Ok(())
    }

    /// CHECK by every plugin in order; nothing to ask before 0.4.0 or when the list forbids it.
    pub async fn check(
        &self,
        list: &NetworkList,
        result: &Value,
        attachment: &Attachment<'_>,
    ) -> Result<(), ExecError> {
        if list.disable_check || !list.at_least("0.4.0") {
            return Ok(());
        }
        for index in 0..list.plugins.len() {
            let request = list.request(index, Some(result), attachment);
            self.run("CHECK", list, index, &request, attachment).await?;
        }
        Ok(())
    }

    async fn run(
        &self,
        command: &'static str,
        list: &NetworkList,
        index: usize,
        request: &Value,
        attachment: &Attachment<'_>,
    ) -> Result<Vec<u8>, ExecError> {
        let plugin = list.plugin_type(index).to_owned();
        let program = self.find(&plugin)?;
        let args: Vec<String> = attachment
            .args
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let output = Command::new(program)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", attachment.container_id)
            .env("CNI_NETNS", attachment.netns)
            .env("CNI_IFNAME", attachment.ifname)
            .env("CNI_ARGS", args.join(";"))
            .env("CNI_PATH", &self.directory)
            .stdin(request.to_string())
            .timeout(PLUGIN_TIMEOUT)
            .output()
            .await;
        match output {
            Ok(output) => Ok(output.stdout),
            Err(error) => Err(explain(command, plugin, &error)),
        }
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, ExecError> {
        let program: PathBuf = Path::new(&self.directory).join(plugin);
        if program.is_file() {
            return Ok(program);
        }
        Err(ExecError::Missing {
            plugin: plugin.to_owned(),
            directory: self.directory.clone(),
        })
    }
}

/// A plugin reports its error as an object on stdout; what it wrote on stderr is only a log.
fn explain(command: &'static str, plugin: String, error: &CommandError) -> ExecError {
    if let CommandError::Failed { stdout, .. } = error
        && let Ok(answer) = serde_json::from_slice::<Value>(stdout)
        && let Some(code) = answer.get("code").and_then(Value::as_i64)
    {
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
        let message = match (text("msg"), text("details")) {
            (message, "") => message.to_owned(),
            (message, details) => format!("{message}: {details}"),
        };
        return ExecError::Plugin {
            command,
            plugin,
            code,
            message,
        };
    }
    ExecError::Run {
        command,
        plugin,
        reason: error.to_string(),
    }
}

/// Addresses of an ADD result (`ips[].address` from 0.3.0 on), without their prefix lengths.
pub fn addresses(result: &Value) -> Vec<std::net::IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array);
    ips.into_iter()
        .flatten()
        .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}
