//! The route netlink socket (rtnetlink(7)): one request, its answers, and errors that name the object.

pub(crate) mod blocking;
pub(crate) mod message;

use std::io;

use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Error, NetNs};

/// How often a dump that the kernel marks as inconsistent is asked again.
pub(crate) const DUMP_ATTEMPTS: usize = 8;

/// A netlink socket in one network namespace. Cheap to clone; the operations are in [`link`](crate::link),
/// [`addr`](crate::addr), [`route`](crate::route) and [`neigh`](crate::neigh).
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. Must be called inside a tokio runtime.
    pub fn new() -> Result<Self, Error> {
        // Strict checking makes the kernel apply the filters of a dump instead of ignoring them.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .map_err(|e| Error::io("open", "netlink socket", e))?;
        // Ends by itself when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Opens a socket in another network namespace. Must be called inside a tokio runtime.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::new()
    }

    /// Sends a request that the kernel acknowledges.
    pub(crate) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: &'static str,
        object: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        match self.exchange(message, flags).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into_error(operation, object())),
        }
    }

    /// Deletes what the message names; it is fine if it is not there.
    pub(crate) async fn delete(
        &self,
        message: RouteNetlinkMessage,
        object: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match self.change(message, 0, "delete", object).await {
            Err(error) if error.is_absent() => Ok(()),
            other => other,
        }
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
        operation: &'static str,
        object: impl FnOnce() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        match self.exchange(message, NLM_F_REQUEST).await {
            Ok(answer) => Ok(answer.messages.into_iter().next()),
            Err(failure) => {
                let error = failure.into_error(operation, object());
                if error.is_absent() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Asks for all objects that the message selects. A dump during which the table changed is asked again.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        object: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self
                .exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await
                .map_err(|failure| failure.into_error("list", object.into()))?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(
            Failure::Protocol("the table changed during each of several dumps".into())
                .into_error("list", object.into()),
        )
    }

    async fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut responses = self
            .handle
            .clone()
            .request(request)
            .map_err(|e| Failure::Protocol(e.to_string()))?;
        let mut answer = Answer {
            messages: Vec::new(),
            interrupted: false,
        };
        while let Some(response) = responses.next().await {
            answer.interrupted |= response.header.flags & NLM_F_DUMP_INTR != 0;
            match response.payload {
                NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
                NetlinkPayload::Done(_) => {}
                // No code: the acknowledgement.
                NetlinkPayload::Error(error) if error.code.is_none() => {}
                NetlinkPayload::Error(error) => return Err(Failure::Refused(error.to_io())),
                other => return Err(Failure::Protocol(format!("unexpected answer {other:?}"))),
            }
        }
        Ok(answer)
    }
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

/// Why a request was not answered as it should be.
pub(crate) enum Failure {
    Refused(io::Error),
    Protocol(String),
}

impl Failure {
    pub(crate) fn into_error(self, operation: &'static str, object: String) -> Error {
        match self {
            Self::Refused(cause) => Error::Netlink {
                operation,
                object,
                cause,
            },
            Self::Protocol(reason) => Error::Protocol {
                operation,
                object,
                reason,
            },
        }
    }
}

/// Whether there was what a request is about: that there was not is no failure.
pub(crate) fn was_there(
    answer: Result<(), Failure>,
    operation: &'static str,
    object: impl FnOnce() -> String,
) -> Result<bool, Error> {
    match answer.map_err(|failure| failure.into_error(operation, object())) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The netlink family of an address.
pub(crate) fn family(addr: std::net::IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}
