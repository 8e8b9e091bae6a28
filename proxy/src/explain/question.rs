//! Who connects, and to what, as an operator writes it. Understood before the cluster is asked.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use seaway_model::{Family, Inputs, ObjectKey, Protocol};

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A process of this node.
    Node,
    Address(IpAddr),
}

impl FromStr for Asker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "node" => Ok(Self::Node),
            _ => {
                let address = text.parse().map(Self::Address);
                address.map_err(|_| "it is neither an IP address nor `node`".to_owned())
            }
        }
    }
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    target: Target,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Address(SocketAddr),
    /// At a cluster IP.
    Service(ObjectKey, u16),
}

/// `IP:PORT` or `NAMESPACE/SERVICE:PORT`, with `/udp` or the like behind it.
impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, protocol) = match text.rsplit_once('/') {
            Some((address, "tcp")) => (address, Protocol::Tcp),
            Some((address, "udp")) => (address, Protocol::Udp),
            Some((address, "sctp")) => (address, Protocol::Sctp),
            _ => (text, Protocol::Tcp),
        };
        let target = match address.parse() {
            Ok(address) => Some(Target::Address(address)),
            Err(_) => service(address),
        };
        let target = target.ok_or(
            "it is neither IP:PORT ([IP]:PORT with IPv6) nor NAMESPACE/SERVICE:PORT, with /udp or /sctp behind it; ports are \
             numbers",
        )?;
        Ok(Self { target, protocol })
    }
}

fn service(text: &str) -> Option<Target> {
    let (service, port) = text.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    let named = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    let key = named.then(|| ObjectKey::new(namespace, name))?;
    Some(Target::Service(key, port.parse().ok()?))
}

impl Destination {
    /// The address that is meant: of a Service the cluster IP of the asker's family, if it has one.
    ///
    /// # Errors
    ///
    /// If there is no such Service, in one sentence.
    pub fn address(&self, asker: Asker, inputs: &Inputs) -> Result<SocketAddr, String> {
        let (key, port) = match &self.target {
            Target::Address(address) => return Ok(*address),
            Target::Service(key, port) => (key, *port),
        };
        let service = inputs.services.get(key);
        let service =
            service.ok_or_else(|| format!("there is no Service {key} with a cluster IP"))?;
        let ips = &service.cluster_ips;
        let own = ips.iter().find(|ip| match asker {
            Asker::Node => true,
            Asker::Address(from) => Family::of(**ip) == Family::of(from),
        });
        match own.or(ips.first()) {
            Some(ip) => Ok(SocketAddr::new(*ip, port)),
            None => Err(format!("Service {key} has no cluster IP")),
        }
    }
}

#[cfg(test)]
mod tests {
    use seaway_model::InputEvent;
    use seaway_model::testing::plain;

    use super::*;

    #[test]
    fn who_asks() {
        assert_eq!("node".parse(), Ok(Asker::Node));
        let address = "fd00::1".parse().unwrap();
        assert_eq!("fd00::1".parse(), Ok(Asker::Address(address)));
        assert!("nodes".parse::<Asker>().is_err());
    }

    #[test]
    fn where_to() {
        let key = ObjectKey::new("default", "web");
        let ips = ["10.96.0.10", "fd00:96::10"].map(|ip| ip.parse().unwrap());
        let service = plain::service("web", ips.to_vec(), Vec::new());
        let mut inputs = Inputs::default();
        inputs.apply(InputEvent::Service(key, Some(service)));
        let find = |from: &str, text: &str| {
            let to: Destination = text.parse()?;
            let address = to.address(from.parse()?, &inputs)?;
            Ok::<_, String>(format!("{address} {}", to.protocol))
        };
        for (from, to, expected) in [
            ("node", "10.96.0.10:53/udp", Ok("10.96.0.10:53 udp")),
            ("node", "[fd00::1]:80", Ok("[fd00::1]:80 tcp")),
            ("node", "default/web:80", Ok("10.96.0.10:80 tcp")),
            ("10.244.1.9", "default/web:9/sctp", Ok("10.96.0.10:9 sctp")),
            ("fd00:244::9", "default/web:80", Ok("[fd00:96::10]:80 tcp")),
            ("node", "10.96.0.10", Err("neither IP:PORT")),
            ("node", "fd00::1:80", Err("[IP]:PORT with IPv6")),
            ("node", "10.96.0.10:80/icmp", Err("neither IP:PORT")),
            ("node", "default/web", Err("neither IP:PORT")),
            ("node", "default/web:http", Err("ports are numbers")),
            ("node", "/web:80", Err("neither IP:PORT")),
            ("node", "default/nope:80", Err("no Service default/nope")),
        ] {
            match (find(from, to), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{to}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{to}: {error}"),
                (found, _) => panic!("{to}: {found:?}"),
            }
        }
    }
}
