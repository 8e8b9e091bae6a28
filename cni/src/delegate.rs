//! Another IPAM plugin, where the config names one: it is called as we were, with the whole of our input.

use std::path::{Path, PathBuf};

use seaway_kernel::{CommandError, run};
use serde_json::Value;

use crate::protocol::{AddResult, Code, Error, Verb};

/// A plugin found in `CNI_PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate<'a> {
    program: PathBuf,
    input: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// Looks for it in the directories of `CNI_PATH`, in order.
    pub fn find(name: &str, cni_path: &str, input: &'a [u8]) -> Result<Self, Error> {
        let found = cni_path
            .split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.is_file());
        match found {
            Some(program) => Ok(Self { program, input }),
            None => {
                let message = format!(
                    "IPAM plugin {name} is in none of the directories of CNI_PATH {cni_path:?}"
                );
                Err(Error::new(Code::InvalidConfig, message))
            }
        }
    }

    /// Has it give out addresses.
    pub fn add(&self) -> Result<AddResult, Error> {
        let answer = self.call(Verb::Add)?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|e| self.wrong(&format!("its answer is not JSON: {e}")))?;
        let result = AddResult::parse(&value).map_err(|e| self.wrong(&e))?;
        if result.ips.is_empty() {
            return Err(self.wrong("it gave no address"));
        }
        Ok(result)
    }

    /// Has it do what we were asked to; its failure is ours.
    pub fn call(&self, verb: Verb) -> Result<Vec<u8>, Error> {
        let verb = [("CNI_COMMAND", verb.as_str())];
        run(&self.program, &verb, self.input).map_err(|error| match error {
            CommandError::Failed { stdout, .. } => serde_json::from_slice::<Value>(&stdout)
                .ok()
                .and_then(|value| Error::parse(&value))
                .unwrap_or_else(|| self.wrong("it failed without an error object")),
            other => self.wrong(&other.to_string()),
        })
    }

    fn wrong(&self, what: &str) -> Error {
        let message = format!("IPAM plugin {}: {what}", self.program.display());
        Error::new(Code::Delegate, message)
    }
}
