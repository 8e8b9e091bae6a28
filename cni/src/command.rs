//! The verbs: each reads its request, calls the pure parts and the kernel, and answers what goes to standard output.

mod add;
mod chained;
mod check;
mod del;
mod gc;
mod status;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use seaway_kernel::NetNs;
use serde_json::Value;

use crate::delegate::Delegate;
use crate::personality::Personality;
use crate::ports::Tag;
use crate::protocol::{
    Code, Error, Invocation, NetworkConfig, OwnerKey, Verb, Version, version_answer,
};

pub use gc::release_all;

/// One call, read and checked.
#[derive(Debug)]
struct Call {
    personality: Personality,
    invocation: Invocation,
    config: NetworkConfig,
    /// Standard input as it came, for another plugin.
    input: Vec<u8>,
}

/// Serves one call. `Ok` is what to print (nothing for most verbs); an error comes with the version to report it in.
pub fn serve(
    personality: Personality,
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
    let call = Call {
        personality,
        invocation,
        config,
        input,
    };
    let answer = match call.invocation.verb {
        Verb::Add => call.add().map(Some),
        Verb::Del => call.del().map(|()| None),
        Verb::Check => call.check().map(|()| None),
        Verb::Status => call.status().map(|()| None),
        Verb::Gc => call.gc().map(|()| None),
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

impl Call {
    fn owner(&self) -> OwnerKey {
        OwnerKey {
            container_id: self.invocation.container_id.clone(),
            ifname: self.invocation.ifname.clone(),
        }
    }

    fn tag(&self) -> Tag {
        Tag::new(&self.owner(), &self.config.name)
    }

    /// The other IPAM plugin, if the config names one.
    fn delegate(&self) -> Result<Option<Delegate<'_>>, Error> {
        self.config
            .delegate()
            .map(|name| Delegate::find(&name, &self.invocation.path, &self.input))
            .transpose()
    }

    /// Opens the pod's namespace, and refuses the node's own.
    fn pod_namespace(&self) -> Result<NetNs, Error> {
        let pod = NetNs::open(Path::new(&self.invocation.netns))
            .map_err(|e| Error::new(Code::Namespace, e.to_string()))?;
        self.refuse_own(&pod)?;
        Ok(pod)
    }

    fn refuse_own(&self, pod: &NetNs) -> Result<(), Error> {
        if self.invocation.allow_own_netns || !pod.is_same(&NetNs::current()?)? {
            return Ok(());
        }
        let message = format!(
            "CNI_NETNS {} is the node's own network namespace (CNI_NETNS_OVERRIDE=1 allows it)",
            self.invocation.netns
        );
        Err(Error::new(Code::Namespace, message))
    }
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
