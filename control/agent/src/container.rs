//! What a container of a Pod becomes on this node: a program with arguments and an environment. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

#[cfg(test)]
mod tests;

/// Search path of programs, for us and for the container, unless it sets its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Images that stand for subcommands of our own program.
const BUILT_IN: [(&str, &str); 2] = [("seaway.dev/echo", "echo"), ("seaway.dev/pause", "pause")];

/// A container ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: PathBuf,
}

/// Why a container cannot be started, in the words that kubelet puts into `state.waiting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

/// What the node adds to a Pod.
#[derive(Debug, Clone)]
pub struct NodeFacts<'a> {
    /// Our own executable, which the built-in images run.
    pub program: &'a Path,
    pub node_name: &'a str,
    pub node_ips: &'a [IpAddr],
    pub pod_ips: &'a [IpAddr],
}

/// Resolves a container; `exists` tells whether a path is an executable file.
pub fn launch(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts<'_>,
    exists: impl Fn(&Path) -> bool,
) -> Result<Launch, Refusal> {
    let env = environment(pod, container, node)?;
    let variables: BTreeMap<&str, &str> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expand_all = |texts: Option<&Vec<String>>| -> Vec<String> {
        texts
            .into_iter()
            .flatten()
            .map(|text| expand(text, &variables))
            .collect()
    };
    let mut command = expand_all(container.command.as_ref());
    let args = expand_all(container.args.as_ref());
    let (program, mut words) = if command.is_empty() {
        (
            node.program.to_owned(),
            vec![built_in(container)?.to_owned()],
        )
    } else {
        let program = command.remove(0);
        let path = variables.get("PATH").copied().unwrap_or(PATH);
        (find(&program, path, exists)?, command)
    };
    words.extend(args);
    let directory = container
        .working_dir
        .as_deref()
        .filter(|directory| !directory.is_empty())
        .unwrap_or("/");
    Ok(Launch {
        program,
        args: words,
        env,
        directory: PathBuf::from(directory),
    })
}

/// The subcommand behind a built-in image, tag and digest aside.
fn built_in(container: &Container) -> Result<&'static str, Refusal> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    BUILT_IN
        .iter()
        .find(|(built_in, _)| *built_in == name)
        .map(|(_, command)| *command)
        .ok_or_else(|| Refusal {
            reason: "ErrImageNeverPull",
            message: format!(
                "Container image {image:?} is not present with pull policy of Never: this node pulls no images; \
                 use seaway.dev/echo or seaway.dev/pause, or give a command (a program of the node)"
            ),
        })
}

fn find(program: &str, path: &str, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, Refusal> {
    let refusal = |place: &str| Refusal {
        reason: "CreateContainerError",
        message: format!("exec: {program:?}: executable file not found{place}"),
    };
    if program.contains('/') {
        let absolute = Path::new("/").join(program);
        return exists(&absolute)
            .then_some(absolute)
            .ok_or_else(|| refusal(" on the node"));
    }
    path.split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| exists(candidate))
        .ok_or_else(|| refusal(" in $PATH of the node"))
}

fn environment(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts<'_>,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut variables: BTreeMap<String, String> = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        (
            "HOSTNAME".to_owned(),
            pod.metadata.name.clone().unwrap_or_default(),
        ),
    ]);
    if container
        .env_from
        .as_ref()
        .is_some_and(|from| !from.is_empty())
    {
        return Err(unsupported(
            "envFrom is not supported by this agent".to_owned(),
        ));
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => from_source(pod, node, source)
                .map_err(|reason| unsupported(format!("env {:?}: {reason}", variable.name)))?,
            (Some(value), None) => {
                let known = variables
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                expand(value, &known)
            }
            (None, None) => String::new(),
        };
        variables.insert(variable.name.clone(), value);
    }
    Ok(variables.into_iter().collect())
}

fn unsupported(message: String) -> Refusal {
    Refusal {
        reason: "CreateContainerConfigError",
        message,
    }
}

fn from_source(pod: &Pod, node: &NodeFacts<'_>, source: &EnvVarSource) -> Result<String, String> {
    let Some(field) = &source.field_ref else {
        return Err("only valueFrom.fieldRef is supported by this agent".to_owned());
    };
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let keyed = |map: &str, entries: &Option<BTreeMap<String, String>>| {
        let key = field
            .field_path
            .strip_prefix(map)?
            .strip_prefix("['")?
            .strip_suffix("']")?;
        let value = entries.as_ref().and_then(|entries| entries.get(key));
        Some(value.cloned().unwrap_or_default())
    };
    let addresses = |ips: &[IpAddr]| {
        let texts: Vec<String> = ips.iter().map(ToString::to_string).collect();
        texts.join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string);
    let text = match field.field_path.as_str() {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => Some(node.node_name.to_owned()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" => first(node.pod_ips),
        "status.podIPs" => Some(addresses(node.pod_ips)),
        "status.hostIP" => first(node.node_ips),
        "status.hostIPs" => Some(addresses(node.node_ips)),
        path => match keyed("metadata.labels", &metadata.labels)
            .or_else(|| keyed("metadata.annotations", &metadata.annotations))
        {
            Some(value) => Some(value),
            None => return Err(format!("fieldPath {path:?} is not supported")),
        },
    };
    Ok(text.unwrap_or_default())
}

/// Replaces `$(NAME)`; unknown names stay as they are and `$$` is a dollar sign (Kubernetes'
/// `third_party/forked/golang/expansion`).
fn expand(text: &str, variables: &BTreeMap<&str, &str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}
