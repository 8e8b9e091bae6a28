use super::*;

const TABLE: &str = "ours";

fn elements(keys: &[&[u8]]) -> Vec<Element> {
    let element = |key: &&[u8]| Element {
        key: key.to_vec(),
        value: Vec::new(),
        comment: String::new(),
    };
    keys.iter().map(element).collect()
}

/// VXLAN of known addresses only.
fn table() -> Transaction<'static> {
    let mut table = Transaction::new(TABLE);
    table.replace_table();
    for (name, part) in [("four", Part::Ipv4), ("six", Part::Ipv6)] {
        table.create_set(Set {
            name,
            key: &[part],
            value: &[],
        });
    }
    table.create_counter("dropped");
    table.create_filter_chain("input", Hook::Input, -1);
    let is = |field, value: &'static [u8]| Match::Is {
        field,
        mask: &[0xff; 2][..value.len()],
        value,
        not: false,
    };
    let vxlan = [
        is(Field::Protocol, &[17]),
        is(Field::DestinationPort, &[0x21, 0x18]),
    ];
    for (ipv4, field, set) in [
        (true, Field::Ipv4Source, "four"),
        (false, Field::Ipv6Source, "six"),
    ] {
        let mut known = vxlan.to_vec();
        known.push(Match::Ipv4(ipv4));
        let fields = match field {
            Field::Ipv4Source => &[Field::Ipv4Source],
            _ => &[Field::Ipv6Source],
        };
        known.push(Match::In { fields, set });
        table.append_rule("input", &known, Statement::Accept);
    }
    table.append_rule("input", &vxlan, Statement::CountAndDrop("dropped"));
    table
}

#[test]
fn packets_of_others_are_dropped_and_counted() {
    let netns = NetNs::anonymous().unwrap();
    let inside = netns.enter().unwrap();
    let up = ["link", "set", "lo", "up"];
    let status = std::process::Command::new("ip").args(up).status();
    assert!(status.unwrap().success());
    let mut tables = Nftables::open().unwrap();
    assert_eq!(tables.count(TABLE, "dropped").unwrap(), None);
    // Twice: the second takes the place of the first.
    for _ in 0..2 {
        tables.commit(&table()).unwrap();
        assert_eq!(tables.count(TABLE, "dropped").unwrap(), Some(0));
    }
    let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
    let cases: [(&str, &str, &[u8]); 2] = [
        ("four", "127.0.0.1:8472", &[127, 0, 0, 1]),
        ("six", "[::1]:8472", &v6),
    ];
    for (set, any, own) in cases {
        let before = tables.count(TABLE, "dropped").unwrap().unwrap();
        let socket = std::net::UdpSocket::bind(any).unwrap();
        socket.send_to(b"stranger", any).unwrap();
        assert_eq!(tables.count(TABLE, "dropped").unwrap(), Some(before + 1));
        let mut known = Transaction::new(TABLE);
        known.add_elements(set, &elements(&[own]));
        tables.commit(&known).unwrap();
        socket.send_to(b"peer", any).unwrap();
        assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 4);
        assert_eq!(tables.count(TABLE, "dropped").unwrap(), Some(before + 1));
    }
    let mut gone = Transaction::new(TABLE);
    gone.delete_table();
    tables.commit(&gone).unwrap();
    assert_eq!(tables.count(TABLE, "dropped").unwrap(), None);
    assert!(tables.commit(&gone).unwrap_err().is_absent());
    drop(inside);
}

#[test]
fn foreign_bytes_are_no_count() {
    assert_eq!(packets_of(&[0; 3]), None);
    assert_eq!(packets_of(&[8, 0, 4, 128, 9, 0, 2, 0]), None);
}

#[test]
fn a_long_comment_is_cut_where_a_character_begins() {
    let netns = NetNs::anonymous().unwrap();
    let _inside = netns.enter().unwrap();
    let mut nft = Nftables::open().unwrap();
    let mut transaction = table();
    let texts = [
        "x".repeat(120),
        "x".repeat(121),
        "x".repeat(119) + "\u{e9}\u{e9}",
    ];
    let written: Vec<_> = (1..)
        .zip(&texts)
        .map(|(number, text)| Element {
            key: vec![192, 0, 2, number],
            value: Vec::new(),
            comment: text.clone(),
        })
        .collect();
    transaction.add_elements("four", &written);
    nft.commit(&transaction).unwrap();
    let mut read = nft.elements(TABLE, "four").unwrap().unwrap();
    read.sort();
    let lengths: Vec<_> = read.iter().map(|one| one.comment.len()).collect();
    assert_eq!(lengths, [120, 120, 119]);
    for (read, text) in read.iter().zip(&texts) {
        assert!(text.starts_with(&read.comment), "{}", read.comment);
    }
}
