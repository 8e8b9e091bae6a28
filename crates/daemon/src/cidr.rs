//! Ranges of addresses on a command line.

use ipnetwork::IpNetwork;

/// A range of a cluster. As in Kubernetes, an address without a prefix length is none: taken for a range of this one address, it
/// would make all traffic of pods foreign.
///
/// # Errors
/// What was expected.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, String> {
    text.split_once('/')
        .and_then(|(ip, length)| IpNetwork::new(ip.parse().ok()?, length.parse().ok()?).ok())
        .ok_or_else(|| {
            format!("{text:?} is no CIDR: expected an address and a prefix length, such as 10.244.0.0/16 or fd00::/48")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_prefix_length() {
        for (text, want) in [
            ("10.244.0.0/16", Some("10.244.0.0/16")),
            ("10.244.1.5/16", Some("10.244.1.5/16")),
            ("fd00:1::/48", Some("fd00:1::/48")),
            ("10.244.0.0", None),
            ("10.244.0.0/33", None),
            ("10.244.0.0/255.255.0.0", None),
            ("fd00::", None),
            ("pods", None),
            ("", None),
        ] {
            match (parse_cidr(text), want) {
                (Ok(cidr), Some(want)) => assert_eq!(cidr.to_string(), want, "{text}"),
                (Err(problem), None) => {
                    assert!(problem.contains("such as 10.244.0.0/16"), "{problem}");
                }
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }
}
