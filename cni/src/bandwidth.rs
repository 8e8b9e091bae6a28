//! Limits of a pod's traffic: what goes to the pod is queued where it leaves the node's end of the pair, what comes from
//! the pod is sent through an `ifb` device and queued there, out of the pod's reach.

use seaway_kernel::shaping::Limit;
use seaway_kernel::{Batch, Ipv4Settings, Link, RouteSocket};
use seaway_model::ownership::SHAPING_LINK_GROUPS;

use crate::attachment::shaping_link;
use crate::protocol::{Bandwidth, Code, Error, OwnerKey};

/// What to limit, and the name of the device for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaping {
    pub to_pod: Option<Limit>,
    pub from_pod: Option<Limit>,
    pub link: String,
}

impl Shaping {
    /// The limits of the config win over those that the runtime asks for; `None` if there is none.
    pub fn new(
        owner: &OwnerKey,
        configured: Bandwidth,
        asked: Option<Bandwidth>,
    ) -> Result<Option<Self>, Error> {
        let wanted = if configured == Bandwidth::default() {
            asked.unwrap_or_default()
        } else {
            configured
        };
        let wanted = wanted.checked()?;
        let limit = |rate: u64, burst: u64| {
            (rate != 0).then(|| Limit {
                rate: rate / 8,
                // Checked: it fits.
                burst: u32::try_from(burst / 8).unwrap_or(u32::MAX),
            })
        };
        let shaping = Self {
            to_pod: limit(wanted.ingress_rate, wanted.ingress_burst),
            from_pod: limit(wanted.egress_rate, wanted.egress_burst),
            link: shaping_link(owner),
        };
        Ok((shaping.to_pod.is_some() || shaping.from_pod.is_some()).then_some(shaping))
    }

    /// The group of a pair's node end and of its device, by which both are deleted at once.
    pub fn group(host_end: u32) -> u32 {
        SHAPING_LINK_GROUPS.wrapping_add(host_end)
    }

    /// Sets the limits on the node's end of a pair. If the pair is `ours`, it goes together with the device.
    pub fn apply(
        &self,
        host: &mut RouteSocket,
        end: u32,
        mtu: Option<u32>,
        ours: bool,
    ) -> Result<(), Error> {
        let group = Self::group(end);
        let mut batch = Batch::default();
        if let Some(limit) = self.to_pod {
            batch.limit(end, limit);
        }
        if self.from_pod.is_some() {
            batch.add_ifb(&self.link, mtu, group);
            batch.no_own_ipv6_address(&self.link);
            if ours {
                batch.set_group(end, group);
            }
        }
        host.apply(&batch)?;
        let Some(limit) = self.from_pod else {
            return Ok(());
        };
        let device = self.device(host)?.index;
        let mut batch = Batch::default();
        batch.limit(device, limit);
        batch.set_up(&self.link, Ipv4Settings::default());
        batch.redirect(end, device);
        Ok(host.apply(&batch)?)
    }

    /// Fails if a limit is not there, or is another.
    pub fn check(&self, host: &mut RouteSocket, end: u32) -> Result<(), Error> {
        let mut wanted = Vec::new();
        wanted.extend(self.to_pod.map(|limit| (end, limit, "to the pod")));
        if let Some(limit) = self.from_pod {
            let device = self.device(host)?;
            wanted.push((device.index, limit, "from the pod"));
            if host.redirection_of(end)? != Some(device.index) {
                let message = format!("what comes from the pod does not go through {}", self.link);
                return Err(Error::new(Code::CheckFailed, message));
            }
            if !device.up {
                let message = format!("link {}, through which the pod sends, is down", self.link);
                return Err(Error::new(Code::CheckFailed, message));
            }
        }
        for (link, limit, what) in wanted {
            let found = host.limit_of(link)?;
            if found != Some(limit.rate) {
                let message = format!(
                    "what goes {what} is limited to {found:?} bytes a second, and should be to {}",
                    limit.rate
                );
                return Err(Error::new(Code::CheckFailed, message));
            }
        }
        Ok(())
    }

    fn device(&self, host: &mut RouteSocket) -> Result<Link, Error> {
        match host.link(&self.link)? {
            Some(link) => Ok(link),
            None => {
                let message = format!("link {}, which limits the pod, is missing", self.link);
                Err(Error::new(Code::CheckFailed, message))
            }
        }
    }
}
