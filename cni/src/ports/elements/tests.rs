use super::*;

fn tag() -> Tag {
    let owner = OwnerKey {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    };
    Tag::new(&owner, "net")
}

fn mapping(host_ip: Option<&str>) -> PortMapping {
    PortMapping {
        host_port: 8080,
        pod_port: 80,
        protocol: Protocol::Udp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
    }
}

fn text(host_ip: Option<&str>) -> Vec<String> {
    let wanted = Wanted {
        mappings: vec![mapping(host_ip), mapping(host_ip)],
        masquerade: false,
        addresses: ["10.0.0.5", "fd00::5", "10.0.0.6"]
            .map(|ip| ip.parse().unwrap())
            .to_vec(),
    };
    let elements = wanted.elements(&tag());
    elements
        .iter()
        .map(|(kind, ipv4, e)| format!("{} {:?} {:?}", kind.name(*ipv4), e.key, e.value))
        .collect()
}

#[test]
fn a_port_leads_to_the_first_address_of_each_family() {
    let v6 = "253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5";
    assert_eq!(
        text(None),
        [
            "any4 [17, 0, 0, 0, 31, 144, 0, 0] [10, 0, 0, 5, 0, 80, 0, 0]".to_owned(),
            "hairpin4 [10, 0, 0, 5, 10, 0, 0, 5] []".to_owned(),
            format!("any6 [17, 0, 0, 0, 31, 144, 0, 0] [{v6}, 0, 80, 0, 0]"),
            format!("hairpin6 [{v6}, {v6}] []"),
        ]
    );
    // An unspecified address is any of its family.
    assert_eq!(text(Some("0.0.0.0")), text(None)[..2]);
    assert_eq!(
        text(Some("192.0.2.1"))[0],
        "at4 [192, 0, 2, 1, 17, 0, 0, 0, 31, 144, 0, 0] [10, 0, 0, 5, 0, 80, 0, 0]"
    );
}

#[test]
fn a_comment_says_whose_an_element_is() {
    let comment = tag().comment();
    assert_eq!(comment, "d72e032fedd net");
    assert_eq!(digits_of(&comment, "net"), Some("d72e032fedd"));
    assert_eq!(digits_of(&comment, "ne"), None);
    let long = "n".repeat(300);
    let owner = OwnerKey {
        container_id: "c".into(),
        ifname: "e".into(),
    };
    let comment = Tag::new(&owner, &long).comment();
    assert!(comment.len() <= 120);
    assert!(digits_of(&comment, &long).is_some());
    assert_eq!(digits_of(&comment, &"n".repeat(299)), None);
}
