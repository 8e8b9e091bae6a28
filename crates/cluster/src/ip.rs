//! Addresses as old objects may hold them.
//!
//! Kubernetes accepted leading zeros in IPv4 octets and reads them as decimal (`ParseIPSloppy`, see
//! KEP-4858); stored objects may still carry them, so every reader must take them.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Parses an address, IPv4 octets with leading zeros included; an IPv4-mapped IPv6 address is an IPv4 one.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = without_leading_zeros(text).parse().ok()?;
    Some(ip.to_canonical())
}

/// Parses a prefix; bits behind the prefix length are cleared, a bare address is not a prefix.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (ip, length) = text.split_once('/')?;
    let ip: IpAddr = without_leading_zeros(ip).parse().ok()?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let network = IpNetwork::new(ip, length.parse().ok()?).ok()?;
    IpNetwork::new(network.network(), network.prefix()).ok()
}

fn without_leading_zeros(text: &str) -> Cow<'_, str> {
    let sloppy = |octet: &str| octet.len() > 1 && octet.starts_with('0');
    if text.contains(':') || !text.split('.').any(sloppy) {
        return Cow::Borrowed(text);
    }
    let octets: Vec<&str> = text
        .split('.')
        .map(|octet| match octet.trim_start_matches('0') {
            "" if !octet.is_empty() => "0",
            rest => rest,
        })
        .collect();
    Cow::Owned(octets.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.001", Some("10.0.0.1")),
            ("fd00::1", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("10.0.0", None),
            ("10.0.0.0256", None),
            ("10.0.0.", None),
            ("", None),
            ("None", None),
        ] {
            let want: Option<IpAddr> = want.map(|ip| ip.parse().expect("test address"));
            assert_eq!(parse_ip(text), want, "{text}");
        }
    }

    #[test]
    fn prefixes() {
        for (text, want) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.001.0.0/16", Some("10.1.0.0/16")),
            ("fd00::/64", Some("fd00::/64")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
        ] {
            let want: Option<IpNetwork> = want.map(|net| net.parse().expect("test prefix"));
            assert_eq!(parse_cidr(text), want, "{text}");
        }
    }
}
