//! Socket hooks: a process of the node's cgroup that connects or sends to a Service gets a backend's address instead,
//! once per connection; and it never learns of it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use seaway_ebpf_abi::config::{CONFIG_HANDOVER, CONFIG_LOCALHOST_NODE_PORTS};
use seaway_ebpf_abi::{
    Addr, AffinityKey, BackendValue, FlowKey, FrontendKey, SocketKey, SocketValue, SteadyValue,
    TCP, UDP, Verdict,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};

use crate::events::{self, NOBODY};
use crate::maps::{SOCKETS_TCP, SOCKETS_UDP, STEADY, config, count, is_untranslated, put};
use crate::services::{self, Knock, NO_PORT, Picked, Refusal};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;

/// The address in a call, of an IPv4 or of an IPv6 socket.
trait Peer {
    fn raw(&self) -> *mut bpf_sock_addr;
    fn addr(&self) -> Addr;
    fn set_addr(&self, addr: &Addr);
    /// The socket's own address; unspecified until it has one.
    fn source(&self) -> Addr;

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: the kernel's context; only the low half is in use.
        unsafe { (*self.raw()).user_port as u16 }
    }

    #[inline(always)]
    fn set(&self, addr: &Addr, port: u16) {
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

    /// The cookie of the socket's network namespace.
    #[inline(always)]
    fn namespace(&self) -> u64 {
        // SAFETY: the kernel's context.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    /// Whether the socket belongs to the node itself rather than to a pod.
    #[inline(always)]
    fn in_node_namespace(&self) -> bool {
        let cookie = self.namespace();
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
    fn addr(&self) -> Addr {
        // SAFETY: the kernel's context.
        Addr::v4(unsafe { (*self.0).user_ip4 })
    }

    #[inline(always)]
    fn set_addr(&self, addr: &Addr) {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).user_ip4 = addr.words[3] };
    }

    #[inline(always)]
    fn source(&self) -> Addr {
        // SAFETY: the kernel's context, whose socket is there in every hook.
        Addr::v4(unsafe { (*(*self.0).__bindgen_anon_1.sk).src_ip4 })
    }
}

/// An IPv6 socket; with an IPv4-mapped address it talks IPv4, as runtimes with dual-stack sockets do.
struct V6(*mut bpf_sock_addr);

impl Peer for V6 {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn addr(&self) -> Addr {
        // SAFETY: the kernel's context.
        let words = unsafe {
            [
                (*self.0).user_ip6[0],
                (*self.0).user_ip6[1],
                (*self.0).user_ip6[2],
                (*self.0).user_ip6[3],
            ]
        };
        Addr { words }
    }

    #[inline(always)]
    fn set_addr(&self, addr: &Addr) {
        // SAFETY: the kernel's context; word by word, as the verifier wants it.
        unsafe {
            (&raw mut (*self.0).user_ip6[0]).write_volatile(addr.words[0]);
            (&raw mut (*self.0).user_ip6[1]).write_volatile(addr.words[1]);
            (&raw mut (*self.0).user_ip6[2]).write_volatile(addr.words[2]);
            (&raw mut (*self.0).user_ip6[3]).write_volatile(addr.words[3]);
        }
    }

    #[inline(always)]
    fn source(&self) -> Addr {
        // SAFETY: the kernel's context, whose socket is there in every hook.
        let sk = unsafe { (*self.0).__bindgen_anon_1.sk };
        // SAFETY: as above; word by word, as the verifier wants it.
        let words = unsafe {
            [
                (&raw const (*sk).src_ip6[0]).read_volatile(),
                (&raw const (*sk).src_ip6[1]).read_volatile(),
                (&raw const (*sk).src_ip6[2]).read_volatile(),
                (&raw const (*sk).src_ip6[3]).read_volatile(),
            ]
        };
        Addr { words }
    }
}

/// The frontend that a socket means. A loopback address is the node only for the node's own sockets: a pod has its own.
#[inline(always)]
fn find(peer: &impl Peer, addr: &Addr, port: u16, protocol: u8) -> Option<Knock> {
    if addr.is_loopback() || addr.is_unspecified() {
        let served = config()?.flags & CONFIG_LOCALHOST_NODE_PORTS != 0;
        return if served && peer.in_node_namespace() {
            services::exact(addr.any(), port, protocol)
        } else {
            None
        };
    }
    services::find(addr, port, protocol).or_else(|| services::refused(addr))
}

/// From where a socket knocks: without a way to tell pods from others only the node is near.
#[inline(always)]
fn client(peer: &impl Peer, addr: &Addr) -> Client {
    let Some(config) = config() else {
        return Client::Near;
    };
    if config.detects(addr) || peer.in_node_namespace() {
        Client::Near
    } else {
        Client::Far
    }
}

/// A backend for a socket.
#[inline(always)]
fn pick(peer: &impl Peer, knock: &mut Knock, addr: &Addr) -> Result<Picked, Refusal> {
    let who = AffinityKey::of_namespace(peer.namespace());
    let mut picked = Picked::default();
    services::pick(knock, client(peer, addr), &who, NO_PORT, &mut picked)?;
    Ok(picked)
}

/// What source ranges do to a socket: `None` if they let it in, else what the hook returns.
#[inline(always)]
fn shut_out(
    peer: &impl Peer,
    knock: &Knock,
    (addr, port, protocol): (&Addr, u16, u8),
) -> Option<i32> {
    if knock.value.ranges == 0 {
        return None;
    }
    // A pod's socket has no address yet, so that its packets go out untouched and are looked at by `from_pod`. The
    // node's own never pass there.
    if !peer.in_node_namespace() {
        return Some(ALLOW);
    }
    let bound = peer.source();
    let source = if bound.is_unspecified() {
        config()?.family(addr).node_addr
    } else {
        bound
    };
    if services::admits(&knock.value, &source) {
        return None;
    }
    let what = What::new(port, protocol, Verdict::SocketSource);
    tell(peer, &knock.key, addr, None, what);
    Some(deny(ETIMEDOUT))
}

/// Counts what a socket got, and tells of it. A function of its own, since the stack is too small for two.
#[inline(never)]
fn tell<P: Peer>(
    peer: &P,
    frontend: &FrontendKey,
    addr: &Addr,
    backend: Option<&BackendValue>,
    what: What,
) {
    let asked = FlowKey {
        src: peer.source(),
        dst: *addr,
        sport: 0,
        dport: what.port(),
        protocol: what.protocol(),
        pad: [0; 3],
    };
    let mut got = NOBODY;
    if let Some(backend) = backend {
        got.src = asked.src;
        got.dst = backend.addr;
        got.dport = backend.port;
    }
    let client = client(peer, addr);
    events::of_socket(
        what.verdict(),
        frontend,
        client,
        (&asked, &got),
        peer.namespace(),
    );
}

/// Port, protocol and verdict, in one word: they go through a register, since the stack is too small.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct What(u32);

impl What {
    #[inline(always)]
    const fn new(port: u16, protocol: u8, verdict: Verdict) -> Self {
        Self((verdict as u32) << 24 | (protocol as u32) << 16 | port as u32)
    }

    #[inline(always)]
    const fn port(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    const fn verdict(self) -> Verdict {
        const CONNECT: u32 = Verdict::SocketConnect as u32;
        const REFUSED: u32 = Verdict::SocketRefused as u32;
        const TIMED_OUT: u32 = Verdict::SocketTimedOut as u32;
        const SOURCE: u32 = Verdict::SocketSource as u32;
        match self.0 >> 24 {
            CONNECT => Verdict::SocketConnect,
            REFUSED => Verdict::SocketRefused,
            TIMED_OUT => Verdict::SocketTimedOut,
            SOURCE => Verdict::SocketSource,
            _ => Verdict::SocketFlow,
        }
    }
}

#[inline(always)]
fn deny(errno: i32) -> i32 {
    // SAFETY: allowed in connect and sendmsg hooks.
    unsafe { bpf_set_retval(-errno) };
    DENY
}

/// What a socket meets when there is no backend for it.
#[inline(always)]
fn refuse(
    peer: &impl Peer,
    knock: &Knock,
    (addr, port, protocol): (&Addr, u16, u8),
    refusal: Refusal,
) -> i32 {
    let (errno, verdict) = match refusal {
        Refusal::Reject => (ECONNREFUSED, Verdict::SocketRefused),
        // A pod's packets go out untouched and are dropped by `from_pod`: the silence that the policy asks for.
        // The node's own never pass there, and the address must not leak out of the uplink.
        Refusal::Drop if !peer.in_node_namespace() => return ALLOW,
        Refusal::Drop => (ETIMEDOUT, Verdict::SocketTimedOut),
    };
    tell(
        peer,
        &knock.key,
        addr,
        None,
        What::new(port, protocol, verdict),
    );
    deny(errno)
}

/// Remembers which frontend a socket's backend stands for.
#[inline(always)]
fn remember(
    peer: &impl Peer,
    protocol: u8,
    (backend, backend_port): (&Addr, u16),
    (addr, port): (&Addr, u16),
) {
    let ports = u32::from(backend_port) << 16 | u32::from(port);
    let (cookie, netns) = (peer.cookie(), peer.namespace());
    if protocol == TCP {
        store::<true>(cookie, netns, backend, addr, ports);
    } else {
        store::<false>(cookie, netns, backend, addr, ports);
    }
}

/// A function of its own, since the stack is too small for two; the ports go through one register.
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, which is too small"
)]
#[inline(never)]
fn store<const IS_TCP: bool>(cookie: u64, netns: u64, backend: &Addr, addr: &Addr, ports: u32) {
    let key = SocketKey {
        cookie,
        addr: *backend,
        port: (ports >> 16) as u16,
        pad: [0; 3],
    };
    let value = SocketValue {
        addr: *addr,
        port: ports as u16,
        pad: [0; 3],
        netns,
    };
    // A full LRU map makes room by itself; a failure costs the program behind the socket only the frontend's name.
    if IS_TCP {
        put(&SOCKETS_TCP, &key, &value, Verdict::SocketTcpAdded);
        return;
    }
    // With each datagram of an unconnected socket, whose entry is there but for the first.
    // SAFETY: compared at once; only this socket's own calls write it.
    let known = unsafe { SOCKETS_UDP.get(&key) };
    let is_known = known.is_some_and(|known| {
        known.addr.same(addr) && known.port == value.port && known.netns == netns
    });
    if !is_known {
        put(&SOCKETS_UDP, &key, &value, Verdict::SocketUdpAdded);
    }
}

#[inline(always)]
fn connect(peer: &impl Peer) -> i32 {
    let protocol = peer.protocol();
    if protocol != TCP && protocol != UDP {
        return ALLOW;
    }
    let addr = peer.addr();
    let port = peer.port();
    let Some(mut knock) = find(peer, &addr, port, protocol) else {
        return ALLOW;
    };
    // Its packets are served by `from_pod`.
    if is_untranslated(peer.namespace()) {
        return ALLOW;
    }
    // Rules may know the client, and are to go on knowing it.
    if knock.value.affinity_timeout != 0 && hands_over() {
        return ALLOW;
    }
    if let Some(code) = shut_out(peer, &knock, (&addr, port, protocol)) {
        return code;
    }
    match pick(peer, &mut knock, &addr) {
        Ok(picked) => {
            let backend = picked.backend;
            let from = (&backend.addr, backend.port);
            remember(peer, protocol, from, (&addr, port));
            peer.set(&backend.addr, backend.port);
            let what = What::new(port, protocol, Verdict::SocketConnect);
            tell(peer, &knock.key, &addr, Some(&backend), what);
            ALLOW
        }
        Err(refusal) => refuse(peer, &knock, (&addr, port, protocol), refusal),
    }
}

/// The backend of an unconnected socket: the one it had, while that one serves; else another.
#[inline(always)]
fn steady(peer: &impl Peer, knock: &mut Knock, key: &SocketKey) -> Result<(Addr, u16), Refusal> {
    let (set, size) = match decide::choose(&knock.value, client(peer, &key.addr)) {
        Choice::Set { set, count } => (set, count),
        Choice::Reject => return Err(Refusal::Reject),
        Choice::Drop => return Err(Refusal::Drop),
    };
    // SAFETY: the value is copied at once; only this socket's own calls write it.
    if let Some(known) = unsafe { STEADY.get(key) }.copied() {
        if known.set == set {
            return Ok((known.addr, known.port));
        }
        if services::serves(set, size, &known.addr, known.port) {
            let _ = STEADY.insert(key, SteadyValue { set, ..known }, 0);
            return Ok((known.addr, known.port));
        }
        count(Verdict::Repicked);
    }
    let picked = pick(peer, knock, &key.addr)?;
    let value = SteadyValue {
        addr: picked.backend.addr,
        port: picked.backend.port,
        pad: 0,
        set: picked.set,
    };
    put(&STEADY, key, &value, Verdict::SteadyAdded);
    let what = What::new(key.port, UDP, Verdict::SocketFlow);
    tell(peer, &knock.key, &key.addr, Some(&picked.backend), what);
    Ok((value.addr, value.port))
}

/// Whether rules serve what begins.
#[inline(always)]
fn hands_over() -> bool {
    config().is_some_and(|config| config.flags & CONFIG_HANDOVER != 0)
}

/// Whether a socket's datagrams are translated on their way, as those of sockets are that begin while rules serve that.
#[inline(never)]
fn is_left(key: &SocketKey) -> bool {
    // SAFETY: looked at at once.
    if let Some(known) = unsafe { STEADY.get(key) } {
        return known.is_left();
    }
    let left = SteadyValue::LEFT;
    hands_over() && put(&STEADY, key, &left, Verdict::SteadyAdded)
}

#[inline(always)]
fn sendmsg(peer: &impl Peer) -> i32 {
    let addr = peer.addr();
    let port = peer.port();
    let Some(mut knock) = find(peer, &addr, port, UDP) else {
        return ALLOW;
    };
    if is_untranslated(peer.namespace()) {
        return ALLOW;
    }
    let key = SocketKey {
        cookie: peer.cookie(),
        addr,
        port,
        pad: [0; 3],
    };
    if is_left(&key) {
        return ALLOW;
    }
    if let Some(code) = shut_out(peer, &knock, (&addr, port, UDP)) {
        return code;
    }
    match steady(peer, &mut knock, &key) {
        Ok(backend) => {
            remember(peer, UDP, (&backend.0, backend.1), (&addr, port));
            peer.set(&backend.0, backend.1);
            count(Verdict::SocketSend);
            ALLOW
        }
        Err(refusal) => refuse(peer, &knock, (&addr, port, UDP), refusal),
    }
}

/// Shows the frontend where the kernel knows the backend.
#[inline(always)]
fn translate_back(peer: &impl Peer, protocol: u8) {
    let addr = peer.addr();
    let key = SocketKey {
        cookie: peer.cookie(),
        addr,
        port: peer.port(),
        pad: [0; 3],
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
        peer.set(&value.addr, value.port);
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
    connect(&V6(ctx.as_ptr().cast()))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&V6(ctx.as_ptr().cast()))
}

#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    translate_back(&V6(ctx.as_ptr().cast()), UDP);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(ctx: SockAddrContext) -> i32 {
    let peer = V6(ctx.as_ptr().cast());
    translate_back(&peer, peer.protocol());
    ALLOW
}
