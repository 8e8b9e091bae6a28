//! `--listen ADDR:PORT[@NETNS]`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use seaway_kernel::NetNs;

/// A socket to listen on, and the network namespace to open it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) address: SocketAddr,
    pub(super) netns: Option<PathBuf>,
}

impl Listen {
    /// Opens the socket. It stays in its namespace wherever it is used.
    pub(super) fn open(&self) -> anyhow::Result<TcpListener> {
        let address = self.address;
        let bound = match &self.netns {
            None => TcpListener::bind(address),
            Some(path) => NetNs::open(path)
                .and_then(|netns| netns.run(|| TcpListener::bind(address)))
                .with_context(|| format!("--listen {self}: cannot use the network namespace"))?,
        };
        bound.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "the port is in use; stop what holds it or choose another"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "no link has this address; choose another or 0.0.0.0"
                }
                io::ErrorKind::PermissionDenied => {
                    "this user may not use the port; choose one above 1023"
                }
                _ => return anyhow::anyhow!("--listen {self}: {error}"),
            };
            anyhow::anyhow!("--listen {self}: {advice}")
        })
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, netns) = match text.split_once('@') {
            Some((_, "")) => {
                return Err("the path of a network namespace is missing after `@`".to_owned());
            }
            Some((address, path)) => (address, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| {
            format!(
                "`{address}` is not an address with a port, such as 127.0.0.1:6443 or [::1]:6443"
            )
        })?;
        Ok(Self { address, netns })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match &self.netns {
            Some(path) => write!(f, "@{}", path.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_namespace() {
        for text in [
            "127.0.0.1:6443",
            "[::1]:0",
            "192.168.100.254:6443@/run/netns/sw-a-fabric",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<Listen>().unwrap_err();
        assert!(error("localhost").contains("`localhost` is not an address with a port"));
        assert!(error("127.0.0.1:1@").contains("missing after `@`"));
    }

    #[test]
    fn a_port_in_use_is_said_plainly() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen {
            address: holder.local_addr().unwrap(),
            netns: None,
        };
        let error = listen.open().unwrap_err().to_string();
        assert!(error.contains("the port is in use"), "{error}");
        assert!(error.contains(&listen.to_string()), "{error}");
    }
}
