//! The server's way to the nodes' agents, for logs.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use seaway_apiserver::{Dialer, Dialing};
use seaway_kernel::NetNs;
use tokio::net::TcpSocket;

use super::listen::Listen;

/// Dials from a network namespace: a server that nodes reach in one has its nodes there too.
pub(super) struct FromNamespace(NetNs);

impl FromNamespace {
    /// From where the server is reached at `advertise`; none if that is the process's own namespace.
    pub(super) fn of(listeners: &[Listen], advertise: SocketAddr) -> anyhow::Result<Option<Self>> {
        let Some((listen, path)) = reached(listeners, advertise)
            .and_then(|listen| Some((listen, listen.netns.as_deref()?)))
        else {
            return Ok(None);
        };
        let netns = NetNs::open(path)
            .with_context(|| format!("--listen {listen}: cannot use the network namespace"))?;
        Ok(Some(Self(netns)))
    }
}

impl Dialer for FromNamespace {
    fn dial(&self, address: SocketAddr) -> Dialing {
        // A socket belongs for good to the namespace in which it was made, wherever it connects from.
        let socket = self.0.run(|| {
            if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
        });
        Box::pin(async move { socket.map_err(io::Error::other)??.connect(address).await })
    }
}

/// The listener with that address, or with every address and that port; else the first: the advertised address may be
/// a load balancer's.
fn reached(listeners: &[Listen], advertise: SocketAddr) -> Option<&Listen> {
    let any = |listen: &&Listen| {
        listen.address.ip().is_unspecified() && listen.address.port() == advertise.port()
    };
    listeners
        .iter()
        .find(|listen| listen.address == advertise)
        .or_else(|| listeners.iter().find(any))
        .or_else(|| listeners.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deletes the namespace also when the test fails.
    struct Named(String);

    impl Drop for Named {
        fn drop(&mut self) {
            let _ = NetNs::delete(&self.0);
        }
    }

    #[tokio::test]
    async fn connects_where_the_listener_is() {
        let name = Named(format!("sw-dial-{}", std::process::id()));
        let netns = NetNs::create(&name.0).unwrap();
        let listener = netns
            .run(|| std::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let path = netns.path().unwrap().display().to_string();
        let listeners = [
            "127.0.0.1:1".parse().unwrap(),
            format!("127.0.0.1:2@{path}").parse().unwrap(),
        ];
        let of = |advertise: &str| FromNamespace::of(&listeners, advertise.parse().unwrap());
        let dialer = of("127.0.0.1:2").unwrap().unwrap();
        dialer.dial(address).await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        // Reached in the process's own namespace; another listener elsewhere, for kubectl, changes nothing.
        assert!(of("127.0.0.1:1").unwrap().is_none());
    }

    #[test]
    fn the_advertised_listener_decides() {
        let listeners = ["10.0.0.1:1", "127.0.0.1:2@/ns/a", "0.0.0.0:3@/ns/b"]
            .map(|text| text.parse::<Listen>().unwrap());
        for (advertise, index) in [
            ("10.0.0.1:1", 0),
            ("127.0.0.1:2", 1),
            ("192.0.2.1:3", 2),
            ("192.0.2.1:443", 0),
        ] {
            let found = reached(&listeners, advertise.parse().unwrap());
            assert_eq!(found, Some(&listeners[index]), "{advertise}");
        }
    }
}
