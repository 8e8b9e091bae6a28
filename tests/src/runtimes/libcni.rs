//! The operations on a list as libcni 1.1 and 1.3 carry them out: order, environment, results that are kept, and what
//! follows a failure. Independent of our own agent, so that the plugin is judged by more than one reading of the text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use seaway_kernel::{Command, CommandError, NetNs};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::list::List;

/// For one plugin.
const LIMIT: Duration = Duration::from_secs(60);

/// A runtime on one node.
#[derive(Debug, Clone)]
pub struct Libcni {
    /// The node, where plugins run.
    pub node: NetNs,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// Where results are kept between ADD and DEL.
    pub cache: PathBuf,
}

/// One interface of one container.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    pub container_id: String,
    pub ifname: String,
    /// Empty when it is gone.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Given to plugins that declare them.
    pub capabilities: Map<String, Value>,
}

/// A plugin said no, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub verb: &'static str,
    pub plugin: String,
    /// None where it gave no error object.
    pub code: Option<u64>,
    pub message: String,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            plugin,
            code,
            message,
        } = self;
        write!(f, "{verb} of {plugin}: {message} (code {code:?})")
    }
}

impl Libcni {
    /// ADD by each plugin in turn, each with the result of the one before. After a failure DEL is run for all of them, without
    /// any result.
    pub async fn add(&self, list: &List, to: &Attachment) -> Result<Value, Failure> {
        let mut result: Option<Value> = None;
        for index in 0..list.plugins.len() {
            let request = list.request(index, result.as_ref(), &to.capabilities);
            let answer = self.call("ADD", list, index, request, to).await;
            let answer = answer.and_then(|text| {
                serde_json::from_str(&text).map_err(|e| Failure {
                    verb: "ADD",
                    plugin: list.program(index).to_owned(),
                    code: None,
                    message: format!("its result is {text:?}: {e}"),
                })
            });
            match answer {
                Ok(answer) => result = Some(answer),
                Err(failure) => {
                    // As runtimes do; what it says is in nobody's way.
                    let _ = self.del_all(list, to, None).await;
                    return Err(failure);
                }
            }
        }
        let result = result.unwrap_or_default();
        self.keep(list, to, &result);
        Ok(result)
    }

    /// DEL in reverse order; from 0.4.0 on each plugin is given the final result of ADD, if there is one.
    pub async fn del(&self, list: &List, of: &Attachment) -> Result<(), Failure> {
        let kept = self.kept(list, of).filter(|_| list.at_least("0.4.0"));
        self.del_all(list, of, kept.as_ref()).await?;
        let _ = std::fs::remove_file(self.file(list, of));
        Ok(())
    }

    /// DEL as a runtime repeats it that has forgotten everything: no namespace, no result.
    pub async fn del_again(&self, list: &List, of: &Attachment) -> Result<(), Failure> {
        let of = Attachment {
            netns: String::new(),
            ..of.clone()
        };
        self.del_all(list, &of, None).await
    }

    async fn del_all(
        &self,
        list: &List,
        of: &Attachment,
        result: Option<&Value>,
    ) -> Result<(), Failure> {
        for index in (0..list.plugins.len()).rev() {
            let request = list.request(index, result, &of.capabilities);
            self.call("DEL", list, index, request, of).await?;
        }
        Ok(())
    }

    /// CHECK with the final result of ADD.
    pub async fn check(&self, list: &List, of: &Attachment) -> Result<(), Failure> {
        if list.disable_check {
            return Ok(());
        }
        let result = self.kept(list, of);
        for index in 0..list.plugins.len() {
            let request = list.request(index, result.as_ref(), &of.capabilities);
            self.call("CHECK", list, index, request, of).await?;
        }
        Ok(())
    }

    /// STATUS of each plugin; the first that cannot serve says so.
    pub async fn status(&self, list: &List) -> Result<(), Failure> {
        for index in 0..list.plugins.len() {
            let request = list.request(index, None, &Map::new());
            self.call("STATUS", list, index, request, &Attachment::default())
                .await?;
        }
        Ok(())
    }

    /// DEL of what is kept of this network and not in `valid`, then GC by every plugin. Goes on after failures, and answers
    /// all of them.
    pub async fn gc(&self, list: &List, valid: &[Attachment]) -> Vec<Failure> {
        if list.disable_gc {
            return Vec::new();
        }
        let mut failures = Vec::new();
        for gone in self.all_kept(list) {
            let is_same =
                |v: &Attachment| (&v.container_id, &v.ifname) == (&gone.container_id, &gone.ifname);
            if !valid.iter().any(is_same) {
                failures.extend(self.del(list, &gone).await.err());
            }
        }
        let key = |v: &Attachment| json!({"containerID": v.container_id, "ifname": v.ifname});
        let keys: Vec<Value> = valid.iter().map(key).collect();
        // An empty slice of Go is `null` in its JSON.
        let keys = if keys.is_empty() {
            Value::Null
        } else {
            Value::Array(keys)
        };
        failures.extend(self.gc_with(list, Some(&keys)).await);
        failures
    }

    /// Only GC itself, with this list under both of its names, or without one as cnitool calls it.
    pub async fn gc_with(&self, list: &List, valid: Option<&Value>) -> Vec<Failure> {
        let mut failures = Vec::new();
        for index in 0..list.plugins.len() {
            let mut request = list.request(index, None, &Map::new());
            if let Some(valid) = valid {
                for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    request.insert(key.into(), valid.clone());
                }
            }
            let none = Attachment::default();
            failures.extend(self.call("GC", list, index, request, &none).await.err());
        }
        failures
    }

    /// VERSION of one plugin, asked as libcni validates a list: the rest of the environment is filled with dummies.
    pub async fn version(&self, list: &List, index: usize) -> Result<Value, Failure> {
        let request = Map::from_iter([("cniVersion".to_owned(), json!(list.version))]);
        let dummies = Attachment {
            container_id: String::new(),
            ifname: "dummy".into(),
            netns: "dummy".into(),
            ..Attachment::default()
        };
        let answer = self.call("VERSION", list, index, request, &dummies).await?;
        serde_json::from_str(&answer).map_err(|e| Failure {
            verb: "VERSION",
            plugin: list.program(index).to_owned(),
            code: None,
            message: format!("{answer:?}: {e}"),
        })
    }

    /// One plugin, in the namespace of the node.
    pub async fn call(
        &self,
        verb: &'static str,
        list: &List,
        index: usize,
        request: Map<String, Value>,
        of: &Attachment,
    ) -> Result<String, Failure> {
        let plugin = list.program(index);
        let failed = |code, message: String| Failure {
            verb,
            plugin: plugin.to_owned(),
            code,
            message,
        };
        let program = find(&self.path, plugin)
            .ok_or_else(|| failed(None, format!("not in {:?}", self.path)))?;
        let path = std::env::join_paths(&self.path).map_err(|e| failed(None, e.to_string()))?;
        let output = Command::new(program)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &of.container_id)
            .env("CNI_NETNS", &of.netns)
            .env("CNI_IFNAME", &of.ifname)
            .env("CNI_ARGS", &of.args)
            .env("CNI_PATH", path)
            .stdin(Value::Object(request).to_string())
            .netns(&self.node)
            .timeout(LIMIT)
            .output()
            .await;
        match output {
            Ok(output) => Ok(output.text()),
            Err(CommandError::Failed { stdout, stderr, .. }) => {
                let answer: Value = serde_json::from_slice(&stdout).unwrap_or_default();
                let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
                let code = answer.get("code").and_then(Value::as_u64);
                let message = [text("msg"), text("details"), stderr.trim()].join(" ");
                Err(failed(code, message.trim().to_owned()))
            }
            Err(error) => Err(failed(None, error.to_string())),
        }
    }

    fn file(&self, list: &List, of: &Attachment) -> PathBuf {
        let name = format!("{}-{}-{}", list.name, of.container_id, of.ifname);
        self.cache.join("results").join(name)
    }

    fn keep(&self, list: &List, of: &Attachment, result: &Value) {
        let kept = json!({
            "networkName": list.name, "containerId": of.container_id, "ifName": of.ifname, "netns": of.netns,
            "cniArgs": of.args, "capabilityArgs": of.capabilities, "result": result,
        });
        let file = self.file(list, of);
        let written = std::fs::create_dir_all(self.cache.join("results"))
            .and_then(|()| std::fs::write(&file, kept.to_string()));
        if let Err(error) = written {
            panic!("cannot keep {}: {error}", file.display());
        }
    }

    fn kept(&self, list: &List, of: &Attachment) -> Option<Value> {
        let mut kept: Value = read(&self.file(list, of))?;
        Some(kept.get_mut("result")?.take())
    }

    fn all_kept(&self, list: &List) -> Vec<Attachment> {
        let entries = std::fs::read_dir(self.cache.join("results"));
        let kept = entries.into_iter().flatten().flatten();
        kept.filter_map(|entry| {
            let kept = read(&entry.path())?;
            let text = |key: &str| Some(kept.get(key)?.as_str()?.to_owned());
            (text("networkName")? == list.name).then_some(())?;
            Some(Attachment {
                container_id: text("containerId")?,
                ifname: text("ifName")?,
                netns: text("netns")?,
                args: text("cniArgs")?,
                capabilities: kept.get("capabilityArgs")?.as_object()?.clone(),
            })
        })
        .collect()
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The program of a plugin, in the first directory that has it.
pub fn find(path: &[PathBuf], plugin: &str) -> Option<PathBuf> {
    let candidates = path.iter().map(|directory| directory.join(plugin));
    candidates.into_iter().find(|file| file.is_file())
}

/// The addresses of a result, as they stand there.
pub fn addresses(result: &Value) -> Vec<IpNetwork> {
    let ips = result.get("ips").and_then(Value::as_array);
    let read = |ip: &Value| IpNetwork::deserialize(ip.get("address")?).ok();
    ips.into_iter().flatten().filter_map(read).collect()
}

#[cfg(test)]
mod tests;
