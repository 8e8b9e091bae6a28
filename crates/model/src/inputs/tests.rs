use super::*;

#[test]
fn protocols_have_the_names_of_iptables_and_the_numbers_of_iana() {
    for (protocol, name, number) in [
        (Protocol::Tcp, "tcp", 6),
        (Protocol::Udp, "udp", 17),
        (Protocol::Sctp, "sctp", 132),
    ] {
        assert_eq!(protocol.to_string(), name);
        assert_eq!(protocol.number(), number);
    }
}
