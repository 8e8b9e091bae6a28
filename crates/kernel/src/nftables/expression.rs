//! What rules are made of.

use crate::netlink::message::Message;

/// `NFT_REG32_00`; the others follow, four bytes each.
const REGISTER: u32 = 8;

/// "More fragments" and the offset, of [`Field::Ipv4Fragment`] (RFC 791).
pub const FRAGMENT: [u8; 2] = [0x3f, 0xff];

/// Something of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ipv4Source,
    Ipv4Destination,
    Ipv6Source,
    Ipv6Destination,
    /// Flags and offset: with [`FRAGMENT`], not zero in every part of a packet that was cut.
    Ipv4Fragment,
    /// `IPPROTO_*` of what follows the fixed header: of a fragment, and where there are options, not the transport's.
    Ipv6NextHeader,
    /// Of TCP, UDP, SCTP; of others whatever lies there.
    DestinationPort,
    /// `IPPROTO_*`.
    Protocol,
}

impl Field {
    /// How many registers it fills.
    fn registers(self) -> u32 {
        match self {
            Self::Ipv6Source | Self::Ipv6Destination => 4,
            _ => 1,
        }
    }

    fn load(self, register: u32, message: &mut Message) {
        // `enum nft_payload_bases`: 1 is the network header, 2 the transport header.
        let (base, offset, length) = match self {
            Self::Protocol => return meta(L4_PROTOCOL, register, message),
            Self::Ipv4Source => (1, 12, 4),
            Self::Ipv4Destination => (1, 16, 4),
            Self::Ipv6Source => (1, 8, 16),
            Self::Ipv6Destination => (1, 24, 16),
            Self::Ipv4Fragment => (1, 6, 2),
            Self::Ipv6NextHeader => (1, 6, 1),
            Self::DestinationPort => (2, 2, 2),
        };
        expression(message, "payload", |data| {
            for (kind, value) in [(1, register), (2, base), (3, offset), (4, length)] {
                word(data, kind, value);
            }
        });
    }
}

/// A condition of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match<'a> {
    /// The packet is of IPv4 (or, if not, of IPv6).
    Ipv4(bool),
    /// The destination is an address of this node.
    ToThisNode,
    /// The connection's destination was translated.
    WasRedirected,
    /// The name of the link that it leaves by does not begin so.
    NotLeavingBy(&'a str),
    /// The field, with the bits of the mask, is that.
    Is {
        field: Field,
        mask: &'a [u8],
        value: &'a [u8],
        not: bool,
    },
    /// The fields together are in that set.
    In { fields: &'a [Field], set: &'a str },
    /// The fields together are a key of that map; its value is what [`Statement::Redirect`] takes.
    Find { fields: &'a [Field], map: &'a str },
}

/// What happens to a packet that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement<'a> {
    Accept,
    /// Connection tracking, and so translation, leaves it alone. Only of use in chains before it.
    DoNotTrack,
    /// Dropped, and counted by the counter of that name.
    CountAndDrop(&'a str),
    /// The destination becomes the address and port that [`Match::Find`] found.
    Redirect {
        ipv4: bool,
    },
    /// The source becomes an address of the link that the packet leaves by.
    Masquerade,
}

/// `enum nft_meta_keys`.
const OUTPUT_NAME: u32 = 7;
const NF_PROTOCOL: u32 = 15;
const L4_PROTOCOL: u32 = 16;

impl Match<'_> {
    pub(super) fn write(&self, message: &mut Message) {
        match *self {
            Self::Ipv4(yes) => {
                // `NFPROTO_IPV4` and `NFPROTO_IPV6`.
                meta(NF_PROTOCOL, REGISTER, message);
                compare(&[if yes { 2 } else { 10 }], false, message);
            }
            Self::ToThisNode => {
                expression(message, "fib", |data| {
                    // `NFT_FIB_RESULT_ADDRTYPE` of `NFTA_FIB_F_DADDR`.
                    for (kind, value) in [(1, REGISTER), (2, 3), (3, 2)] {
                        word(data, kind, value);
                    }
                });
                // `RTN_LOCAL`.
                compare(&2_u32.to_ne_bytes(), false, message);
            }
            Self::WasRedirected => {
                expression(message, "ct", |data| {
                    // `NFT_CT_STATUS`.
                    word(data, 1, REGISTER);
                    word(data, 2, 2);
                });
                // `IPS_DST_NAT`.
                mask(&(1_u32 << 5).to_ne_bytes(), message);
                compare(&[0; 4], true, message);
            }
            Self::NotLeavingBy(prefix) => {
                meta(OUTPUT_NAME, REGISTER, message);
                compare(prefix.as_bytes(), true, message);
            }
            Self::Is {
                field,
                mask: bits,
                value,
                not,
            } => {
                field.load(REGISTER, message);
                if bits.iter().any(|byte| *byte != u8::MAX) {
                    mask(bits, message);
                }
                compare(value, not, message);
            }
            Self::In { fields, set } => lookup(fields, set, false, message),
            Self::Find { fields, map } => lookup(fields, map, true, message),
        }
    }
}

impl Statement<'_> {
    pub(super) fn write(self, message: &mut Message) {
        match self {
            Self::Accept => verdict(ACCEPT, message),
            Self::DoNotTrack => expression(message, "notrack", |_| {}),
            Self::CountAndDrop(counter) => {
                expression(message, "objref", |data| {
                    word(data, 1, super::COUNTER);
                    data.text(2, counter);
                });
                verdict(DROP, message);
            }
            Self::Redirect { ipv4 } => expression(message, "nat", |data| {
                // `NFT_NAT_DNAT`; `NFPROTO_*`; where the address is, and behind it the port.
                let (family, port) = if ipv4 { (2, 1) } else { (10, 4) };
                word(data, 1, 1);
                word(data, 2, family);
                word(data, 3, REGISTER);
                word(data, 5, REGISTER + port);
            }),
            Self::Masquerade => expression(message, "masq", |_| {}),
        }
    }
}

fn lookup(fields: &[Field], set: &str, value: bool, message: &mut Message) {
    let mut register = REGISTER;
    for field in fields {
        field.load(register, message);
        register += field.registers();
    }
    expression(message, "lookup", |data| {
        data.text(1, set);
        word(data, 2, REGISTER);
        if value {
            word(data, 3, REGISTER);
        }
    });
}

/// `NF_DROP` and `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

fn verdict(code: u32, message: &mut Message) {
    expression(message, "immediate", |data| {
        // `NFT_REG_VERDICT`.
        word(data, 1, 0);
        data.nested(2, |value| {
            value.nested(2, |verdict| word(verdict, 1, code));
        });
    });
}

fn meta(key: u32, register: u32, message: &mut Message) {
    expression(message, "meta", |data| {
        word(data, 1, register);
        word(data, 2, key);
    });
}

fn mask(bits: &[u8], message: &mut Message) {
    expression(message, "bitwise", |data| {
        word(data, 1, REGISTER);
        word(data, 2, REGISTER);
        word(data, 3, u32::try_from(bits.len()).unwrap_or(4));
        data.nested(4, |mask| mask.put(1, bits));
        data.nested(5, |xor| xor.put(1, &vec![0; bits.len()]));
    });
}

fn compare(value: &[u8], not: bool, message: &mut Message) {
    expression(message, "cmp", |data| {
        word(data, 1, REGISTER);
        // `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
        word(data, 2, not.into());
        data.nested(3, |right| right.put(1, value));
    });
}

fn expression(message: &mut Message, name: &str, write: impl FnOnce(&mut Message)) {
    message.nested(1, |element| {
        element.text(1, name);
        element.nested(2, write);
    });
}

fn word(message: &mut Message, kind: u16, value: u32) {
    message.put(kind, &value.to_be_bytes());
}
