//! A netlink socket whose calls block: for listings that are handed over as they arrive, on a thread for blocking work.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};

use netlink_packet_core::{DoneBuffer, ErrorBuffer, NLM_F_DUMP_INTR, NetlinkBuffer};
use nix::libc;
use nix::sys::socket::sockopt::{ReceiveTimeout, SndBufForce};
use nix::sys::socket::{MsgFlags, SockProtocol, recv, send, setsockopt};
use nix::sys::time::TimeVal;

use super::Failure;
use crate::Error;

/// `NLMSG_ERROR` and `NLMSG_DONE` (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The kernel fills at most 32 KiB in one go, and refuses with no more than a header (`NETLINK_CAP_ACK`). All of it counts for
/// the resident memory of a process of some milliseconds.
const BUFFER: usize = 32 * 1024;

/// The kernel answers within the call; this is for the day when it does not.
const TIMEOUT_SECONDS: i64 = 5;

/// Whether an answer ends here.
#[derive(Debug)]
pub enum End {
    NotYet,
    /// With everything that there is to say.
    Done,
    /// The kernel does not do what it was asked.
    Refused(io::Error),
}

/// A socket of the network namespace in which it was opened, whatever thread uses it.
#[derive(Debug)]
pub(crate) struct Blocking {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Blocking {
    /// Opens one in the calling thread's namespace; `object` is its name in messages.
    pub(crate) fn open(protocol: SockProtocol, object: &'static str) -> Result<Self, Error> {
        Self::of_number(protocol as i32, object)
    }

    /// The same for a protocol that nix does not know (`NETLINK_*`).
    #[expect(unsafe_code, reason = "nix takes protocols that it knows only")]
    pub(crate) fn of_number(protocol: i32, object: &'static str) -> Result<Self, Error> {
        let failed = |errno| Error::io("open", object, errno);
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: a call that takes numbers only.
        let opened = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        let opened = nix::errno::Errno::result(opened).map_err(failed)?;
        // SAFETY: opened just now, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(opened) };
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(TIMEOUT_SECONDS, 0)).map_err(failed)?;
        let opened = Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER].into(),
        };
        // Linux 4.3.
        opened.switch_on(libc::NETLINK_CAP_ACK)?;
        Ok(opened)
    }

    /// Makes the kernel apply the filters of a listing instead of ignoring them (`NETLINK_GET_STRICT_CHK`, Linux 4.20).
    pub(crate) fn check_strictly(&self) -> Result<(), Error> {
        self.switch_on(libc::NETLINK_GET_STRICT_CHK)
    }

    #[expect(unsafe_code, reason = "nix does not know these options")]
    fn switch_on(&self, option: libc::c_int) -> Result<(), Error> {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int, and the length says so.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(Error::io(
                "set up",
                "netlink socket",
                io::Error::last_os_error(),
            )),
        }
    }

    /// The number of the next request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request, however long it is: the kernel takes as much at once as the socket has room for.
    pub(crate) fn send(&self, request: &[u8]) -> Result<(), Failure> {
        let mut room = false;
        loop {
            match send(self.socket.as_raw_fd(), request, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EMSGSIZE) if !room => {
                    room = true;
                    setsockopt(&self.socket, SndBufForce, &request.len())
                        .map_err(|e| Failure::Refused(e.into()))?;
                }
                other => return other.map(drop).map_err(|e| Failure::Refused(e.into())),
            }
        }
    }

    /// The next portion of an answer.
    pub(crate) fn receive(&mut self) -> Result<&[u8], Failure> {
        let fd = self.socket.as_raw_fd();
        let length = loop {
            match recv(fd, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(nix::Error::EINTR) => {}
                other => break other.map_err(|e| Failure::Refused(e.into()))?,
            }
        };
        self.buffer
            .get(..length)
            .ok_or_else(|| Failure::Protocol("an answer is too long".into()))
    }

    /// Sends the latest request, which the kernel acknowledges, and waits for that.
    pub(crate) fn change(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.ask(request, |_| {}).map(drop)
    }

    /// Sends the latest request and hands over what the answer consists of, but for its end. Returns whether what was listed
    /// has changed meanwhile (`NLM_F_DUMP_INTR`).
    pub(crate) fn ask(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&NetlinkBuffer<&[u8]>),
    ) -> Result<bool, Failure> {
        let sequence = self.sequence;
        self.send(request)?;
        let mut interrupted = false;
        loop {
            let end = read_answer(self.receive()?, sequence, |message, end| {
                // The end may be the one to say it.
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                if matches!(end, End::NotYet) {
                    each(message);
                }
            });
            match end.map_err(|reason| Failure::Protocol(reason.into()))? {
                End::NotYet => {}
                End::Done => return Ok(interrupted),
                End::Refused(cause) => return Err(Failure::Refused(cause)),
            }
        }
    }
}

/// Reads a portion of the answer to the request of this number. The error says what is wrong with the portion as a
/// whole.
pub(crate) fn read_portion(
    portion: &[u8],
    sequence: u32,
    mut each: impl FnMut(&NetlinkBuffer<&[u8]>),
) -> Result<End, &'static str> {
    read_answer(portion, sequence, |message, end| {
        if matches!(end, End::NotYet) {
            each(message);
        }
    })
}

/// The same with the end, as which each message is handed over, too.
fn read_answer(
    portion: &[u8],
    sequence: u32,
    mut each: impl FnMut(&NetlinkBuffer<&[u8]>, &End),
) -> Result<End, &'static str> {
    let mut end = End::NotYet;
    each_message(portion, |message| {
        // What is left of a listing that was given up is not ours.
        if message.sequence_number() == sequence && matches!(end, End::NotYet) {
            end = read_end(message);
            each(message, &end);
        }
    })?;
    Ok(end)
}

/// Takes a portion apart.
pub(crate) fn each_message(
    mut rest: &[u8],
    mut each: impl FnMut(&NetlinkBuffer<&[u8]>),
) -> Result<(), &'static str> {
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).map_err(|_| "a message is cut off")?;
        each(&message);
        let next = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(())
}

pub(crate) fn read_end(message: &NetlinkBuffer<&[u8]>) -> End {
    let code = match message.message_type() {
        DONE => DoneBuffer::new_checked(message.payload()).map(|done| done.code()),
        ERROR => ErrorBuffer::new_checked(message.payload())
            .map(|error| error.code().map_or(0, i32::from)),
        _ => return End::NotYet,
    };
    match code {
        Ok(0) => End::Done,
        Ok(code) => End::Refused(io::Error::from_raw_os_error(code.saturating_abs())),
        Err(error) => End::Refused(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
