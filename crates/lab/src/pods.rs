//! Finding a pod on the machine from what the API says about it.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use seaway_kernel::{NetNs, Netlink, cgroup};

use crate::{Lab, LabError};

/// Where a pod's processes live.
pub(crate) struct Located {
    pub(crate) netns: NetNs,
    pub(crate) cgroup: PathBuf,
}

/// The namespace is the one of the node's pods that has the pod's address; the cgroup is that of a process in it. So
/// this needs to know nothing of how the agent keeps its books.
pub(crate) async fn locate(lab: &Lab, namespace: &str, name: &str) -> Result<Located, LabError> {
    let pods: Api<Pod> = Api::namespaced(lab.client().await?, namespace);
    let pod = pods.get_opt(name).await?.ok_or_else(|| {
        LabError::Invalid(format!(
            "there is no pod {namespace}/{name}; `kubectl get pods -A` lists those that there are"
        ))
    })?;
    let not_running = || LabError::Invalid(format!("pod {namespace}/{name} is not running yet"));
    let node = pod
        .spec
        .and_then(|spec| spec.node_name)
        .ok_or_else(not_running)?;
    let ip = pod
        .status
        .and_then(|status| status.pod_ip)
        .ok_or_else(not_running)?;

    let prefix = lab.name().pod_netns_prefix(&node);
    for netns in NetNs::list()?.iter().filter(|n| n.starts_with(&prefix)) {
        // Pods come and go while we look.
        let Ok(netns) = NetNs::named(netns) else {
            continue;
        };
        let addresses = Netlink::in_namespace(&netns)?.addresses(None).await?;
        if addresses.iter().any(|a| a.network.ip().to_string() == ip) {
            let pods = lab.name().cgroup()?.join(&node).join("pods");
            let cgroup = cgroup_of(&netns, &pods)?.ok_or_else(not_running)?;
            return Ok(Located { netns, cgroup });
        }
    }
    Err(not_running())
}

/// The cgroup below `root` of a process in this namespace.
fn cgroup_of(netns: &NetNs, root: &Path) -> Result<Option<PathBuf>, LabError> {
    for pid in cgroup::processes(root).unwrap_or_default() {
        let own = NetNs::open(Path::new(&format!("/proc/{pid}/ns/net")));
        if own.is_ok_and(|own| own.is_same(netns).unwrap_or(false)) {
            return Ok(Some(root.to_owned()));
        }
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    for directory in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        if let Some(found) = cgroup_of(netns, &directory)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
