//! What a link's driver can do with XDP, over the generic netlink family `netdev` (Linux 6.3). The calls block.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use nix::libc::{ENODEV, ENOENT, GENL_ID_CTRL};
use nix::sys::socket::SockProtocol;

use crate::Error;
use crate::netlink::Failure;
use crate::netlink::blocking::Blocking;
use crate::netlink::message::{Message, attribute};

/// `CTRL_CMD_GETFAMILY` and its attributes (linux/genetlink.h).
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET` and its attributes (linux/netdev.h).
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TAKES_FRAMES: u64 = 4;
/// `struct genlmsghdr`.
const HEADER: usize = 4;

/// Whether a link of the calling thread's namespace sends frames that XDP redirects to it. `false` also where the kernel does not
/// tell, or has no such link.
///
/// # Errors
///
/// If the kernel does not answer, or not in a form that is understood.
pub fn takes_frames(index: u32) -> Result<bool, Error> {
    let failed =
        |failure: Failure| failure.into_error("ask what XDP can do at", format!("link {index}"));
    let mut socket = Blocking::open(SockProtocol::NetlinkGeneric, "generic netlink socket")?;
    let features = |socket: &mut Blocking| -> Result<Option<Vec<u8>>, Failure> {
        // Ids up to `GENL_ID_CTRL` are not given away.
        let name = |message: &mut Message| message.text(FAMILY_NAME, "netdev");
        let id = ask(socket, GENL_ID_CTRL as u16, GET_FAMILY, FAMILY_ID, name)?;
        let Some(id) = id.and_then(|id| id.try_into().ok()) else {
            return Ok(None);
        };
        let link = |message: &mut Message| message.put(IFINDEX, &index.to_ne_bytes());
        ask(
            socket,
            u16::from_ne_bytes(id),
            GET_DEVICE,
            XDP_FEATURES,
            link,
        )
    };
    match features(&mut socket) {
        Ok(features) => Ok(read(features.as_deref()) & TAKES_FRAMES != 0),
        // No such family, or no such link.
        Err(Failure::Refused(error)) if matches!(error.raw_os_error(), Some(ENOENT | ENODEV)) => {
            Ok(false)
        }
        Err(failure) => Err(failed(failure)),
    }
}

/// One attribute of the answer to a command.
fn ask(
    socket: &mut Blocking,
    family: u16,
    command: u8,
    wanted: u16,
    write: impl FnOnce(&mut Message),
) -> Result<Option<Vec<u8>>, Failure> {
    let sequence = socket.next_sequence();
    let mut message = Message::new(family, NLM_F_REQUEST | NLM_F_ACK, sequence);
    // With the version, and padding.
    message.raw(&[command, 1, 0, 0]);
    write(&mut message);
    let mut found = None;
    socket.ask(&message.finish(), |answer| {
        found = answer
            .payload()
            .get(HEADER..)
            .and_then(|attributes| attribute(attributes, wanted));
    })?;
    Ok(found)
}

/// Features as they stand in an answer; none if there are none.
fn read(value: Option<&[u8]>) -> u64 {
    let value = value.and_then(|value| value.try_into().ok());
    value.map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_features_is_none() {
        assert_eq!(read(Some(&5_u64.to_ne_bytes())), 5);
        assert_eq!(read(Some(&[5, 0, 0, 0])), 0);
        assert_eq!(read(None), 0);
    }

    #[test]
    fn loopback_and_what_is_no_link_take_no_frames() {
        assert!(!takes_frames(1).unwrap());
        assert!(!takes_frames(i32::MAX as u32).unwrap());
    }
}
