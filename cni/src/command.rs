//! The verbs: each reads its request, calls the pure parts and the kernel, and answers what goes to standard output.

mod gc;
mod status;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use seaway_kernel::{NetNs, Netlink};
use serde_json::Value;

use crate::attachment::Attachment;
use crate::ipam::Ledger;
use crate::node::NodeFile;
use crate::protocol::{
    Args, Code, Error, Invocation, NetworkConfig, OwnerKey, Verb, Version, version_answer,
};
use crate::{apply, check, plan};

pub use gc::release_all;

/// Serves one call. `Ok` is what to print (nothing for most verbs); an error comes with the version to report it in.
pub async fn serve(
    get_env: impl Fn(&str) -> Option<String>,
    stdin: impl Read,
) -> Result<Option<Value>, (Option<Version>, Error)> {
    let invocation = Invocation::from_env(get_env).map_err(|e| (None, e))?;
    let input = read_all(stdin).map_err(|e| (None, e))?;
    if invocation.verb == Verb::Version {
        return Ok(Some(version_answer(&input)));
    }
    let config = NetworkConfig::parse(&input)?;
    let version = config.version;
    let answer = match invocation.verb {
        Verb::Add => add(&invocation, &config).await.map(Some),
        Verb::Del => del(&invocation, &config).await.map(|()| None),
        Verb::Check => checked(&invocation, &config).await.map(|()| None),
        Verb::Status => status::status(&config).await.map(|()| None),
        Verb::Gc => gc::gc(&config).await.map(|()| None),
        Verb::Version => Ok(None),
    };
    answer.map_err(|e| (Some(version), e))
}

fn read_all(mut stdin: impl Read) -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    stdin.read_to_end(&mut input).map_err(|e| {
        let message = format!("cannot read the network configuration from standard input: {e}");
        Error::new(Code::Io, message)
    })?;
    Ok(input)
}

async fn add(invocation: &Invocation, config: &NetworkConfig) -> Result<Value, Error> {
    if config.previous.is_some() {
        return Err(Error::new(
            Code::InvalidConfig,
            "prevResult in ADD: this plugin makes the interface and must be the first of its list",
        ));
    }
    let args = Args::parse(&invocation.args)?;
    let pod = pod_namespace(invocation)?;
    let node = NodeFile::read(&config.run_dir)?;
    let owner = owner(invocation);
    let addresses = {
        let ledger = Ledger::open(&config.state_dir, &config.name)?;
        ledger.allocate(&owner, &node.pod_cidrs, args.address, since_boot()?)?
    };
    let attachment = Attachment::new(&owner, addresses, node.mtu, args.mac);
    match apply::add(&plan::add(&attachment), &pod).await {
        Ok(()) => Ok(attachment.result(&invocation.netns).to_json(config.version)),
        Err(error) => Err(match release(config, &owner) {
            Ok(()) => error,
            Err(second) => error.details(format!("its address is still reserved: {second}")),
        }),
    }
}

/// Needs neither the namespace nor a previous result: runtimes call it after a failed ADD, twice, and with the
/// namespace gone. The link goes first, so that an address is never free while something still answers to it.
async fn del(invocation: &Invocation, config: &NetworkConfig) -> Result<(), Error> {
    let owner = owner(invocation);
    // What cannot be opened is gone: the path may still be there as the empty file that was mounted over.
    if let Ok(pod) = NetNs::open(Path::new(&invocation.netns)) {
        refuse_own(invocation, &pod)?;
    }
    let attachment = Attachment::new(&owner, Vec::new(), 0, None);
    let unlinked = apply::undo(&Netlink::new()?, &plan::del(&attachment)).await;
    match unlinked {
        Ok(()) => release(config, &owner),
        // The interface may still be there: the address stays reserved, and the runtime tries again.
        Err(error) => Err(error),
    }
}

async fn checked(invocation: &Invocation, config: &NetworkConfig) -> Result<(), Error> {
    config.version.at_least(Version::V0_4_0, "CHECK")?;
    let Some(previous) = &config.previous else {
        return Err(Error::new(Code::InvalidConfig, "CHECK needs prevResult"));
    };
    let args = Args::parse(&invocation.args)?;
    let pod = pod_namespace(invocation)?;
    let node = NodeFile::read(&config.run_dir)?;
    let owner = owner(invocation);
    let addresses: Vec<_> = Ledger::open(&config.state_dir, &config.name)?
        .entries()?
        .into_iter()
        .filter(|entry| entry.owner() == Some(&owner))
        .map(|entry| entry.address)
        .collect();
    if addresses.is_empty() {
        return Err(Error::new(
            Code::CheckFailed,
            format!(
                "no address is reserved for container {}",
                owner.container_id
            ),
        ));
    }
    let attachment = Attachment::new(&owner, addresses, node.mtu, args.mac);
    check::check(&attachment, previous, &pod, &node).await
}

fn owner(invocation: &Invocation) -> OwnerKey {
    OwnerKey {
        container_id: invocation.container_id.clone(),
        ifname: invocation.ifname.clone(),
    }
}

fn release(config: &NetworkConfig, owner: &OwnerKey) -> Result<(), Error> {
    let ledger = Ledger::open(&config.state_dir, &config.name)?;
    ledger.release(owner, since_boot()?)?;
    Ok(())
}

/// Opens the pod's namespace, and refuses the node's own.
fn pod_namespace(invocation: &Invocation) -> Result<NetNs, Error> {
    let pod = NetNs::open(Path::new(&invocation.netns))
        .map_err(|e| Error::new(Code::Namespace, e.to_string()))?;
    refuse_own(invocation, &pod)?;
    Ok(pod)
}

fn refuse_own(invocation: &Invocation, pod: &NetNs) -> Result<(), Error> {
    if invocation.allow_own_netns || !pod.is_same(&NetNs::current()?)? {
        return Ok(());
    }
    let message = format!(
        "CNI_NETNS {} is the node's own network namespace (CNI_NETNS_OVERRIDE=1 allows it)",
        invocation.netns
    );
    Err(Error::new(Code::Namespace, message))
}

/// A clock that no one sets, and that every process sees alike (`/proc/uptime`).
pub(crate) fn since_boot() -> Result<Duration, Error> {
    let read = || -> io::Result<Duration> {
        let text = std::fs::read_to_string("/proc/uptime")?;
        let seconds = text.split(' ').next().and_then(|s| s.parse::<f64>().ok());
        Ok(Duration::from_secs_f64(seconds.unwrap_or_default()))
    };
    read().map_err(|e| Error::new(Code::Io, format!("cannot read /proc/uptime: {e}")))
}
