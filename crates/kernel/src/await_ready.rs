//! Waiting for workers of the kernel: a link or an address may be there before packets pass. The calls block.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::route::TABLE_LOCAL;
use crate::{Error, NetNs, RouteFilter, RouteSocket, Scope};

/// How long a worker may take. The one for links works once a second when many change at a time.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_micros(200);

impl RouteSocket {
    /// Waits until a link can carry packets: the kernel drops what is sent over a veth until a worker has seen that both
    /// ends are up (net/core/link_watch.c). Asking makes it look, from 6.8 on.
    ///
    /// # Errors
    ///
    /// If that has not happened after five seconds.
    pub fn await_carrier(&mut self, link: u32) -> Result<(), Error> {
        poll(
            || Ok(self.link_by_index(link)?.is_some_and(|link| link.running)),
            || format!("carrier of link {link}"),
        )
    }

    /// Waits until packets to an address of a link are received: those to an IPv6 address are not until a worker has
    /// made its route (`addrconf_dad_work` in net/ipv6/addrconf.c, also where no duplicate is looked for).
    ///
    /// # Errors
    ///
    /// If that has not happened after five seconds.
    pub fn await_address(&mut self, link: u32, address: IpAddr) -> Result<(), Error> {
        let local = RouteFilter {
            table: Some(TABLE_LOCAL),
            link: Some(link),
            protocol: None,
        };
        poll(
            || {
                let routes = self.routes(local)?;
                Ok(routes.iter().any(|r| r.destination == address.into()))
            },
            || format!("route of address {address}"),
        )
    }
}

impl NetNs {
    /// Waits for every link of the namespace that is up, and for every address but those that the kernel gave a link
    /// itself: for duplicates of these it looks for seconds.
    ///
    /// # Errors
    ///
    /// As [`RouteSocket::await_carrier`].
    pub fn await_ready(&self) -> Result<(), Error> {
        let mut socket = RouteSocket::in_namespace(self)?;
        let links = socket.links()?;
        for link in links.iter().filter(|link| link.up) {
            socket.await_carrier(link.index)?;
        }
        for link in &links {
            for address in socket.addresses(link.index)? {
                if address.scope != Scope::Link {
                    socket.await_address(link.index, address.network.ip())?;
                }
            }
        }
        Ok(())
    }
}

fn poll(
    mut is_there: impl FnMut() -> Result<bool, Error>,
    object: impl FnOnce() -> String,
) -> Result<(), Error> {
    let deadline = Instant::now() + LIMIT;
    while !is_there()? {
        if Instant::now() > deadline {
            return Err(Error::io("await", object(), Errno::ETIMEDOUT));
        }
        thread::sleep(POLL);
    }
    Ok(())
}
