//! Waiting for workers of the kernel: a link or an address may be there before packets pass.

use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;

use crate::route::TABLE_LOCAL;
use crate::{Error, NetNs, Netlink, RouteFilter, Scope};

/// How long a worker may take. The one for links works once a second when many change at a time.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);

impl Netlink {
    /// Waits until a link can carry packets. The kernel drops what is sent over a veth until a worker has seen that both
    /// ends are up (net/core/link_watch.c). Needs tokio's timers, as its neighbour does.
    ///
    /// # Errors
    ///
    /// If that has not happened after five seconds.
    pub async fn await_carrier(&self, link: u32) -> Result<(), Error> {
        let is_running = async || {
            let found = self.link_by_index(link).await?;
            Ok(found.is_some_and(|link| link.running))
        };
        poll(is_running, || format!("carrier of link {link}")).await
    }

    /// Waits until packets to an address of a link are received. Those to an IPv6 address are not until a worker has made
    /// its route (`addrconf_dad_work` in net/ipv6/addrconf.c, also where no duplicate is looked for).
    ///
    /// # Errors
    ///
    /// If that has not happened after five seconds.
    pub async fn await_address(&self, link: u32, address: IpAddr) -> Result<(), Error> {
        let local = RouteFilter {
            table: Some(TABLE_LOCAL),
            link: Some(link),
            protocol: None,
        };
        let is_received = async || {
            let routes = self.routes(local).await?;
            Ok(routes.iter().any(|r| r.destination == address.into()))
        };
        poll(is_received, || format!("route of address {address}")).await
    }
}

impl NetNs {
    /// Waits, and blocks the thread, for every link of the namespace that is up, and for every address but those that the
    /// kernel gave a link itself: for duplicates of these it looks for seconds.
    ///
    /// # Errors
    ///
    /// As [`Netlink::await_carrier`], and if no runtime can be made.
    pub fn await_ready(&self) -> Result<(), Error> {
        let wait = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Error::io("make", "a runtime", e))?;
            runtime.block_on(everything(self))
        };
        // In a thread of its own, as the caller's may have a runtime already.
        std::thread::scope(|scope| scope.spawn(wait).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

async fn everything(netns: &NetNs) -> Result<(), Error> {
    let netlink = Netlink::in_namespace(netns)?;
    for link in netlink.links().await?.iter().filter(|link| link.up) {
        netlink.await_carrier(link.index).await?;
    }
    for address in netlink.addresses(None).await? {
        if address.scope != Scope::Link {
            let ip = address.network.ip();
            netlink.await_address(address.link, ip).await?;
        }
    }
    Ok(())
}

async fn poll(
    is_there: impl AsyncFn() -> Result<bool, Error>,
    object: impl FnOnce() -> String,
) -> Result<(), Error> {
    let asking = async {
        while !is_there().await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    let answer = tokio::time::timeout(LIMIT, asking).await;
    answer.unwrap_or_else(|_| Err(Error::io("await", object(), Errno::ETIMEDOUT)))
}
