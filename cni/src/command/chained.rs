//! Behind another plugin of a list, which made the interface: host ports and limits for it.

use seaway_kernel::{Link, RouteSocket};
use serde_json::Value;

use super::Call;
use crate::bandwidth::Shaping;
use crate::ports::{self, Removed, Wanted};
use crate::protocol::{AddResult, Code, Error, RuntimeConfig};

impl Call {
    /// Passes the previous result on as it came.
    pub(super) fn add_chained(
        &self,
        runtime: &RuntimeConfig,
        raw: &Value,
        previous: &AddResult,
    ) -> Result<Value, Error> {
        let shaping = Shaping::new(&self.owner(), self.config.bandwidth()?, runtime.bandwidth)?;
        ports::add(&self.chained_ports(runtime, previous)?, &self.tag())?;
        if let Some(shaping) = shaping
            && let Err(error) = self.limit(&shaping)
        {
            return Err(match ports::remove(&self.tag()).and_then(Removed::finish) {
                Ok(()) => error,
                Err(second) => error.details(format!("and taking it back failed: {second}")),
            });
        }
        let mut answer = raw.clone();
        answer["cniVersion"] = self.config.version.as_str().into();
        Ok(answer)
    }

    fn limit(&self, shaping: &Shaping) -> Result<(), Error> {
        let mut host = RouteSocket::open()?;
        let end = self.host_end(&mut host)?;
        shaping.apply(&mut host, end.index, Some(end.mtu), false)
    }

    /// The same compared with what is there.
    pub(super) fn check_chained(
        &self,
        runtime: &RuntimeConfig,
        previous: &AddResult,
    ) -> Result<(), Error> {
        let shaping = Shaping::new(&self.owner(), self.config.bandwidth()?, runtime.bandwidth)?;
        if let Some(shaping) = shaping {
            let mut host = RouteSocket::open()?;
            let end = self.host_end(&mut host)?;
            shaping.check(&mut host, end.index)?;
        }
        ports::check(&self.chained_ports(runtime, previous)?, &self.tag())
    }

    fn chained_ports(
        &self,
        runtime: &RuntimeConfig,
        previous: &AddResult,
    ) -> Result<Wanted, Error> {
        Wanted {
            mappings: runtime.port_mappings.clone(),
            masquerade: false,
            addresses: previous.ips.iter().map(|ip| ip.address.ip()).collect(),
        }
        .checked()
    }

    /// The node's end of the pod's pair. The kernel knows it; a result may list several links of the node.
    fn host_end(&self, host: &mut RouteSocket) -> Result<Link, Error> {
        let pod = self.pod_namespace()?;
        let ifname = &self.invocation.ifname;
        let inside = RouteSocket::in_namespace(&pod)?.link(ifname)?;
        let end = match inside.and_then(|link| link.peer) {
            Some(index) => host.link_by_index(index)?,
            None => None,
        };
        end.ok_or_else(|| {
            let message = format!(
                "bandwidth: {ifname} in the pod is missing, or is not one end of a pair whose other end is on the node"
            );
            Error::new(Code::InvalidConfig, message)
        })
    }
}
