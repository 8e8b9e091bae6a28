//! IPsec policies of a network namespace (xfrm, linux/xfrm.h): how many there are. Blocking.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use nix::libc::{EPROTONOSUPPORT, NETLINK_XFRM};

use crate::Error;
use crate::netlink::blocking::Blocking;
use crate::netlink::message::{Message, attribute};

/// `XFRM_MSG_GETSPDINFO` and its answer, `XFRM_MSG_NEWSPDINFO`.
const GET_INFO: u16 = 0x25;
const INFO: u16 = 0x24;
/// `XFRMA_SPD_INFO`: counts of policies for what comes in, goes out and is forwarded, and of the same for sockets.
const COUNTS: u16 = 1;
/// Flags in front of the attributes.
const HEADER: usize = 4;

/// Policies by which packets that leave, arrive or are forwarded are encrypted, checked or refused, in the network namespace of
/// the calling thread; those of single sockets do not count. A kernel without IPsec has none.
pub fn policies() -> Result<u32, Error> {
    let mut socket = match Blocking::of_number(NETLINK_XFRM, "xfrm socket") {
        Err(error) if error.errno() == Some(EPROTONOSUPPORT) => return Ok(0),
        other => other?,
    };
    let sequence = socket.next_sequence();
    let mut request = Message::new(GET_INFO, NLM_F_REQUEST | NLM_F_ACK, sequence);
    request.raw(&[0xff; HEADER]);
    let mut count = None;
    socket
        .ask(&request.finish(), |message| {
            if message.message_type() == INFO {
                count = message.payload().get(HEADER..).and_then(read);
            }
        })
        .map_err(|failure| failure.into_error("count", "IPsec policies".to_owned()))?;
    count.ok_or_else(|| Error::Invalid {
        object: "IPsec policies".to_owned(),
        reason: "the kernel does not count them".to_owned(),
    })
}

/// The sum of the first three counts.
fn read(attributes: &[u8]) -> Option<u32> {
    let counts = attribute(attributes, COUNTS)?;
    let mut words = counts.chunks_exact(4).map(|four| four.try_into());
    let mut sum = 0_u32;
    for _ in 0..3 {
        sum = sum.saturating_add(u32::from_ne_bytes(words.next()?.ok()?));
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, NetNs};

    #[tokio::test]
    async fn policies_of_a_namespace_are_counted() {
        let netns = NetNs::anonymous().unwrap();
        let count = || netns.run(policies).unwrap().unwrap();
        assert_eq!(count(), 0);
        for (number, direction) in (1..).zip(["in", "out", "fwd"]) {
            let policy = format!(
                "xfrm policy add src 10.0.0.0/8 dst 10.1.0.0/16 dir {direction} action block"
            );
            Command::new("ip")
                .args(policy.split(' '))
                .netns(&netns)
                .output()
                .await
                .unwrap();
            assert_eq!(count(), number);
        }
    }

    #[test]
    fn what_is_cut_off_counts_nothing() {
        let mut message = Message::body();
        let counts = [1_u32, 2, 4, 8].map(u32::to_ne_bytes);
        message.put(COUNTS, counts.as_flattened());
        let bytes = message.into_body();
        assert_eq!(read(&bytes), Some(7));
        assert_eq!(read(&bytes[..8]), None);
        assert_eq!(read(&[]), None);
    }
}
