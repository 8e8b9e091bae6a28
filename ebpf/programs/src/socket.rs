//! Socket hooks: a process of the node's cgroup that connects or sends to a Service gets a backend's address instead,
//! once per connection; and it never learns of it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use seaway_ebpf_abi::{SocketKey, SocketValue, SteadyValue, TCP, UDP, Verdict};
use seaway_ebpf_logic::decide::{self, Choice, Client};

use crate::maps::{SOCKETS_TCP, SOCKETS_UDP, STEADY, config, count};
use crate::services::{self, Knock, Refusal};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;

/// The address in a call, of an IPv4 socket or of an IPv6 socket that talks IPv4.
trait Peer {
    fn raw(&self) -> *mut bpf_sock_addr;
    fn addr(&self) -> Option<u32>;
    fn set_addr(&self, addr: u32);

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: the kernel's context; only the low half is in use.
        unsafe { (*self.raw()).user_port as u16 }
    }

    #[inline(always)]
    fn set(&self, addr: u32, port: u16) {
        self.set_addr(addr);
        // SAFETY: the kernel's context; the hooks that call this may write the port.
        unsafe { (*self.raw()).user_port = u32::from(port) };
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the kernel's context.
        unsafe { bpf_get_socket_cookie(self.raw().cast()) }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        // SAFETY: the kernel's context.
        unsafe { (*self.raw()).protocol as u8 }
    }

    /// Whether the socket belongs to the node itself rather than to a pod.
    #[inline(always)]
    fn in_node_namespace(&self) -> bool {
        // SAFETY: the kernel's context.
        let cookie = unsafe { bpf_get_netns_cookie(self.raw().cast()) };
        config().is_some_and(|config| config.netns_cookie == cookie)
    }
}

struct V4(*mut bpf_sock_addr);

impl Peer for V4 {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn addr(&self) -> Option<u32> {
        // SAFETY: the kernel's context.
        Some(unsafe { (*self.0).user_ip4 })
    }

    #[inline(always)]
    fn set_addr(&self, addr: u32) {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).user_ip4 = addr };
    }
}

/// `::ffff:a.b.c.d`: what runtimes with dual-stack sockets use for IPv4 (RFC 4291, 2.5.5.2).
struct Mapped(*mut bpf_sock_addr);

impl Peer for Mapped {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn addr(&self) -> Option<u32> {
        // SAFETY: the kernel's context.
        let [a, b, c, d] = unsafe {
            [
                (*self.0).user_ip6[0],
                (*self.0).user_ip6[1],
                (*self.0).user_ip6[2],
                (*self.0).user_ip6[3],
            ]
        };
        (a == 0 && b == 0 && c == 0xffff_u32.to_be()).then_some(d)
    }

    #[inline(always)]
    fn set_addr(&self, addr: u32) {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).user_ip6[3] = addr };
    }
}

/// The frontend that a socket means. 127.0.0.0/8 is the node only for the node's own sockets: a pod has its own.
#[inline(always)]
fn find(peer: &impl Peer, addr: u32, port: u16, protocol: u8) -> Option<Knock> {
    if addr.to_ne_bytes()[0] == 127 {
        if !peer.in_node_namespace() {
            return None;
        }
        return services::exact(0, port, protocol);
    }
    services::find(addr, port, protocol)
}

/// What a socket meets when there is no backend for it.
#[inline(always)]
fn refuse(peer: &impl Peer, refusal: Refusal) -> i32 {
    let (errno, verdict) = match refusal {
        Refusal::Reject => (ECONNREFUSED, Verdict::SocketRefused),
        // A pod's packets go out untouched and are dropped by `from_pod`: the silence that the policy asks for.
        // The node's own never pass there, and the address must not leak out of the uplink.
        Refusal::Drop if !peer.in_node_namespace() => return ALLOW,
        Refusal::Drop => (ETIMEDOUT, Verdict::SocketTimedOut),
    };
    count(verdict);
    // SAFETY: allowed in connect and sendmsg hooks.
    unsafe { bpf_set_retval(-errno) };
    DENY
}

/// Remembers which frontend a socket's backend stands for.
#[inline(always)]
fn remember(
    protocol: u8,
    cookie: u64,
    (backend, backend_port): (u32, u16),
    (addr, port): (u32, u16),
) {
    let key = SocketKey {
        cookie,
        addr: backend,
        port: backend_port,
        pad: 0,
    };
    let value = SocketValue { addr, port, pad: 0 };
    // A full LRU map makes room by itself; a failure costs the program behind the socket only the frontend's name.
    let _ = if protocol == TCP {
        SOCKETS_TCP.insert(key, value, 0)
    } else {
        SOCKETS_UDP.insert(key, value, 0)
    };
}

#[inline(always)]
fn connect(peer: &impl Peer) -> i32 {
    let protocol = peer.protocol();
    if protocol != TCP && protocol != UDP {
        return ALLOW;
    }
    let Some(addr) = peer.addr() else {
        return ALLOW;
    };
    let port = peer.port();
    let Some(knock) = find(peer, addr, port, protocol) else {
        return ALLOW;
    };
    match services::pick(&knock, Client::Near) {
        Ok(picked) => {
            let backend = picked.backend;
            remember(
                protocol,
                peer.cookie(),
                (backend.addr, backend.port),
                (addr, port),
            );
            peer.set(backend.addr, backend.port);
            count(Verdict::SocketConnect);
            ALLOW
        }
        Err(refusal) => refuse(peer, refusal),
    }
}

/// The backend of an unconnected socket: the one it had, while that one serves; else another.
#[inline(always)]
fn steady(knock: &Knock, key: &SocketKey) -> Result<(u32, u16), Refusal> {
    let Choice::Set { set, count: size } = decide::choose(&knock.value, Client::Near) else {
        return services::pick(knock, Client::Near).map(|p| (p.backend.addr, p.backend.port));
    };
    // SAFETY: the value is copied at once; only this socket's own calls write it.
    if let Some(known) = unsafe { STEADY.get(key) }.copied() {
        if known.set == set {
            return Ok((known.addr, known.port));
        }
        if services::serves(set, size, known.addr, known.port) {
            let _ = STEADY.insert(key, SteadyValue { set, ..known }, 0);
            return Ok((known.addr, known.port));
        }
        count(Verdict::Repicked);
    }
    let picked = services::pick(knock, Client::Near)?;
    let value = SteadyValue {
        addr: picked.backend.addr,
        port: picked.backend.port,
        pad: 0,
        set: picked.set,
    };
    let _ = STEADY.insert(key, value, 0);
    Ok((value.addr, value.port))
}

#[inline(always)]
fn sendmsg(peer: &impl Peer) -> i32 {
    let Some(addr) = peer.addr() else {
        return ALLOW;
    };
    let port = peer.port();
    let Some(knock) = find(peer, addr, port, UDP) else {
        return ALLOW;
    };
    let key = SocketKey {
        cookie: peer.cookie(),
        addr,
        port,
        pad: 0,
    };
    match steady(&knock, &key) {
        Ok(backend) => {
            remember(UDP, key.cookie, backend, (addr, port));
            peer.set(backend.0, backend.1);
            count(Verdict::SocketSend);
            ALLOW
        }
        Err(refusal) => refuse(peer, refusal),
    }
}

/// Shows the frontend where the kernel knows the backend.
#[inline(always)]
fn translate_back(peer: &impl Peer, protocol: u8) {
    let Some(addr) = peer.addr() else {
        return;
    };
    let key = SocketKey {
        cookie: peer.cookie(),
        addr,
        port: peer.port(),
        pad: 0,
    };
    // SAFETY: the value is copied at once.
    let known = unsafe {
        if protocol == TCP {
            SOCKETS_TCP.get(key)
        } else {
            SOCKETS_UDP.get(key)
        }
    };
    if let Some(value) = known.copied() {
        peer.set(value.addr, value.port);
    }
}

#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(ctx: SockAddrContext) -> i32 {
    connect(&V4(ctx.as_ptr().cast()))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&V4(ctx.as_ptr().cast()))
}

#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    translate_back(&V4(ctx.as_ptr().cast()), UDP);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(ctx: SockAddrContext) -> i32 {
    let peer = V4(ctx.as_ptr().cast());
    translate_back(&peer, peer.protocol());
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(ctx: SockAddrContext) -> i32 {
    connect(&Mapped(ctx.as_ptr().cast()))
}

#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    translate_back(&Mapped(ctx.as_ptr().cast()), UDP);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(ctx: SockAddrContext) -> i32 {
    let peer = Mapped(ctx.as_ptr().cast());
    translate_back(&peer, peer.protocol());
    ALLOW
}
