//! Processes by pidfd: a pid alone may mean another process tomorrow.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Error;

/// What identifies a process for as long as the machine is up; fit for a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks after boot at which it started (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

/// The signals that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Hangup,
    Interrupt,
    Terminate,
    Kill,
    Stop,
    Continue,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
        }
    }
}

/// A handle on one process, and never on a later one with the same pid.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    fd: OwnedFd,
}

impl Process {
    /// Opens a running process; `None` if there is none with that pid.
    pub fn open(pid: u32) -> Result<Option<Self>, Error> {
        let fd = match pidfd_open(pid) {
            Ok(fd) => fd,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::io("open", format!("process {pid}"), e)),
        };
        let Some(start_time) = start_time(pid)? else {
            return Ok(None);
        };
        let process = Self {
            id: ProcessId { pid, start_time },
            fd,
        };
        // Alive now means that the start time was read from the process behind the descriptor.
        Ok(process.alive()?.then_some(process))
    }

    /// Opens a process that was identified earlier; `None` if it is gone, whoever has its pid now.
    pub fn find(id: ProcessId) -> Result<Option<Self>, Error> {
        Ok(Self::open(id.pid)?.filter(|process| process.id == id))
    }

    /// Its identity.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Whether it still runs; a zombie does not.
    pub fn alive(&self) -> Result<bool, Error> {
        Ok(!self.wait_exit(Duration::ZERO)?)
    }

    /// Sends a signal; it is fine if the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.fd, signal.number()) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map_err(|e| Error::io("signal", format!("process {}", self.id.pid), e)),
        }
    }

    /// Waits (blocking) until it has exited; `false` if it has not within the limit.
    pub fn wait_exit(&self, limit: Duration) -> Result<bool, Error> {
        let millis = limit.as_millis().min(i32::MAX as u128) as i32;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(
            std::os::fd::AsFd::as_fd(&self.fd),
            PollFlags::POLLIN,
        )];
        loop {
            match poll(&mut fds, timeout) {
                Ok(ready) => return Ok(ready > 0),
                Err(nix::Error::EINTR) => {}
                Err(e) => {
                    return Err(Error::io("watch", format!("process {}", self.id.pid), e));
                }
            }
        }
    }

    /// Waits until it has exited, without blocking a thread.
    pub async fn exited(&self) -> Result<(), Error> {
        let failed = |e| Error::io("watch", format!("process {}", self.id.pid), e);
        let fd = self.fd.try_clone().map_err(failed)?;
        let watched = register(fd).map_err(failed)?;
        watched.readable().await.map(drop).map_err(failed)
    }
}

/// Field 22 of `/proc/PID/stat`; field 2 is the program's name in brackets and may hold anything.
fn start_time(pid: u32) -> Result<Option<u64>, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    Ok(text
        .rsplit_once(") ")
        .and_then(|(_, fields)| fields.split(' ').nth(19)?.parse().ok()))
}

#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and the same until the AsyncFd drops it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "no safe wrapper in nix")]
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers in; a non-negative answer is a new descriptor that nobody else owns.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

#[expect(unsafe_code, reason = "no safe wrapper in nix")]
fn pidfd_send_signal(fd: &OwnedFd, signal: libc::c_int) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null siginfo is allowed (pidfd_send_signal(2)).
    match unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
