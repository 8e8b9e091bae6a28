use super::*;
use crate::iptables::parse;

/// Everything that we can write, as `iptables-save` of both variants prints it (taken from 1.8.9).
const V4: &[&str] = &[
    "-d 10.96.0.1/32 -p tcp -m comment --comment \"a/b:c -> x\" -m tcp --dport 80 -j SEAWAY-SVC-X",
    "-d 0.0.0.5/0.0.0.15 -j SEAWAY-SVCS-5",
    "-d 0.0.0.16/0.0.0.240 -j SEAWAY-SVCS-51",
    "-p udp -m udp --dport 30080:30207 -j SEAWAY-NPS-UDP-30080",
    "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS",
    "-m addrtype --src-type LOCAL -j MARK --set-xmark 0x10000/0x10000",
    "! -s 10.244.0.0/16 -d 10.96.0.1/32 -j MARK --set-xmark 0x10000/0x10000",
    "-j MARK --set-xmark 0x0/0x10000",
    "-p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.0.0.1:80",
    "-p tcp -m statistic --mode random --probability 0.50000000000 -m recent --set --name SEAWAY-X --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.0.1:80",
    "-p sctp -m recent --update --seconds 10 --reap --name SEAWAY-X --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.0.1:80",
    "-m comment --comment hairpin -m conntrack --ctstate DNAT -m bpf --bytecode \"6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0\" -j MASQUERADE --random-fully",
    "-m mark ! --mark 0x10000/0x10000 -j RETURN",
    "-m mark --mark 0x1 -j RETURN",
    "-p tcp -m mark --mark 0x20000/0x20000 -j REJECT --reject-with tcp-reset",
    "-m mark --mark 0x20000/0x20000 -j REJECT --reject-with icmp-port-unreachable",
    "-m conntrack --ctstate INVALID -j DROP",
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m comment --comment \"a \\\" \\\\ b\" -m conntrack --ctstate NEW -j SEAWAY-FILTER",
    "-j MASQUERADE",
    "-d 10.96.0.1/32 ! -i sw+ -j MARK --set-xmark 0x10000/0x10000",
    "-i cni0 -j SEAWAY-SVC-X",
];

const V6: &[&str] = &[
    "-d ::5/::f -j SEAWAY-SVCS-5",
    "! -d ::1/128 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS",
    "-p tcp -j DNAT --to-destination [fd00::1]:80",
    "-m mark --mark 0x20000/0x20000 -j REJECT --reject-with icmp6-port-unreachable",
    "-p udp -m recent --set --name X --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource -j DNAT --to-destination [fd00::1]:53",
];

#[test]
fn what_iptables_prints_is_read_and_written_word_by_word() {
    for (family, texts) in [(Family::V4, V4), (Family::V6, V6)] {
        for text in texts {
            let read = parse::rule(text, family);
            assert!(
                !matches!(read.matches.first(), Some(Match::Opaque(_))),
                "{text}"
            );
            assert_eq!(&rule(&read, family), text);
        }
    }
}

#[test]
fn probabilities_have_the_resolution_of_the_kernel() {
    for n in 1..2_000 {
        let number = one_in(n);
        let exact = PROBABILITY_ONE / n as f64;
        assert!((f64::from(number) - exact).abs() <= 0.5, "{n}");
        let printed = format!("{:.11}", f64::from(number) / PROBABILITY_ONE);
        assert_eq!(read_probability(&printed), Some(number));
    }
}

#[test]
fn nonsense_is_no_probability() {
    for text in ["", "x", "-1", "1.5", "NaN", "inf"] {
        assert_eq!(read_probability(text), None, "{text}");
    }
}
