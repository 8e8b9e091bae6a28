//! What programs did, counted.

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $label:literal;)*) => {
        /// An index into the map of counters.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verdict { $($(#[$doc])* $name = $index,)* }

        impl Verdict {
            /// Every verdict, in order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name for people and for the label of a metric.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

verdicts! {
    /// A packet of a client, translated to its backend.
    Forward = 0, "forward";
    /// A packet of a backend, translated back.
    Reverse = 1, "reverse";
    /// A flow was set up.
    NewFlow = 2, "new_flow";
    /// A UDP flow, or one never answered, moved on because its backend is gone.
    Repicked = 3, "repicked";
    /// A socket was connected to a backend.
    SocketConnect = 4, "socket_connect";
    /// A datagram of an unconnected socket was sent to a backend.
    SocketSend = 5, "socket_send";
    /// A socket was refused: no endpoint anywhere.
    SocketRefused = 6, "socket_refused";
    /// A socket of the node timed out at once: no endpoint that the policy allows.
    SocketTimedOut = 7, "socket_timed_out";
    /// Answered by a reset or "port unreachable": no endpoint anywhere, or no such port of a cluster IP.
    Rejected = 8, "rejected";
    /// Dropped: `loadBalancerSourceRanges` do not let the client in.
    DroppedSource = 9, "dropped_source";
    /// Dropped: no endpoint that the policy allows.
    DroppedNoLocal = 10, "dropped_no_local";
    /// TCP in the middle of a connection that we do not know; left to the stack, whose own connection tracking may
    /// know it from before a change of mode.
    UnknownConnection = 11, "unknown_connection";
    /// Dropped: no free port to masquerade with.
    DroppedNoPort = 12, "dropped_no_port";
    /// Dropped: no route to the backend.
    DroppedNoRoute = 13, "dropped_no_route";
    /// Dropped: the packet's hops are used up.
    DroppedTtl = 14, "dropped_ttl";
    /// Dropped: the packet could not be rewritten or the flow not stored.
    DroppedError = 15, "dropped_error";
    /// A fragment passed untouched.
    Fragment = 16, "fragment";
    /// A frontend pointed to a slot that was not there, twice in a row.
    SlotMissing = 17, "slot_missing";
    /// An ICMP error about a packet of a flow, translated.
    IcmpError = 18, "icmp_error";
    /// A fragment that followed the first one of its packet.
    FragmentFollowed = 19, "fragment_followed";
    /// A client got the backend that it had before (session affinity).
    AffinityKept = 20, "affinity_kept";
    /// A socket of the node timed out at once: `loadBalancerSourceRanges` do not let the node in.
    SocketSource = 21, "socket_source";
    /// Answered by "packet too big": larger than the way to the backend, or back to the client, allows.
    TooLarge = 22, "too_large";
    /// Dropped: larger than the way that it has to take allows, and nobody could be told.
    DroppedTooLarge = 23, "dropped_too_large";
    /// A TCP flow was closed by both ends or reset by one.
    FlowClosed = 24, "flow_closed";
    /// An entry of the flow table that was not there before: two a flow.
    EntryAdded = 25, "entry_added";
    /// An entry of the flow table that a program removed.
    EntryRemoved = 26, "entry_removed";
    /// The same, removed by user space, which alone counts here.
    EntryCollected = 27, "entry_collected";
    /// An entry of the flow table that user space brought in, likewise.
    EntryAdopted = 28, "entry_adopted";
    /// A listener was not told of something: the ring buffer was full.
    EventLost = 29, "event_lost";
    /// Something was not counted for its Service: the table was full.
    TallyLost = 30, "tally_lost";
    /// An unconnected socket got a backend, for its first datagram to a frontend or because the one it had is gone.
    SocketFlow = 31, "socket_flow";
    /// Of those translated: at the driver of an uplink, by XDP.
    Xdp = 32, "xdp";
    /// Of those translated: sent as they are to the node of the backend, which answers the client itself.
    SentOn = 33, "sent_on";
    /// Dropped: its flow is on its way to connection tracking at this moment.
    DroppedHeld = 34, "dropped_held";
    /// Dropped: a pod sent it with an address that is not its own.
    DroppedSpoofed = 35, "dropped_spoofed";
    /// Between pods, of which neither is a Service's: handed to a pod of this node past the stack.
    PodLocal = 36, "pod_local";
    /// The same: sent through the overlay.
    PodRemote = 37, "pod_remote";
    /// Of those sent through the overlay: put into the tunnel by the program, past the overlay's device.
    PodPacked = 38, "pod_packed";
    /// Of those handed to a pod of this node: taken out of the tunnel at the uplink, past the overlay's device.
    PodUnpacked = 39, "pod_unpacked";
    /// A client of a Service with session affinity that was not remembered before.
    AffinityAdded = 40, "affinity_added";
    /// The same, forgotten by user space, which alone counts here.
    AffinityCollected = 41, "affinity_collected";
    /// The same, brought in by user space, likewise.
    AffinityAdopted = 42, "affinity_adopted";
    /// A TCP socket and its backend that were not remembered before.
    SocketTcpAdded = 43, "socket_tcp_added";
    /// The same, forgotten by user space, which alone counts here.
    SocketTcpCollected = 44, "socket_tcp_collected";
    /// The same, brought in by user space, likewise.
    SocketTcpAdopted = 45, "socket_tcp_adopted";
    /// A UDP socket and its backend that were not remembered before.
    SocketUdpAdded = 46, "socket_udp_added";
    /// The same, forgotten by user space, which alone counts here.
    SocketUdpCollected = 47, "socket_udp_collected";
    /// The same, brought in by user space, likewise.
    SocketUdpAdopted = 48, "socket_udp_adopted";
    /// An unconnected UDP socket and a frontend that were not remembered before.
    SteadyAdded = 49, "steady_added";
    /// The same, forgotten by user space, which alone counts here.
    SteadyCollected = 50, "steady_collected";
    /// The same, brought in by user space, likewise.
    SteadyAdopted = 51, "steady_adopted";
    /// A direction of a flow between pods that stays in the stack and was not known to before.
    DetourAdded = 52, "detour_added";
    /// The same, forgotten by user space, which alone counts here.
    DetourCollected = 53, "detour_collected";
    /// The same, brought in by user space, likewise.
    DetourAdopted = 54, "detour_adopted";
    /// Of those translated: larger than their way allows, and handed to the stack, which sends them in fragments.
    Cut = 55, "cut";
}

/// Entries in the map of counters: room for more without a new layout.
pub const COUNTERS_LEN: u32 = 64;

const _: () = assert!(Verdict::ALL.len() <= COUNTERS_LEN as usize);

/// The padding in the key of a count for a frontend: what is counted, and for which clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tally {
    /// By [`Verdict::tally`], below 128.
    pub what: u8,
    /// For clients outside of the cluster.
    pub outside: bool,
}

impl Tally {
    /// As it stands in a key.
    #[inline(always)]
    #[must_use]
    pub const fn pad(self) -> u8 {
        self.what << 1 | self.outside as u8
    }

    /// From a key.
    #[must_use]
    pub const fn of_pad(pad: u8) -> Self {
        Self {
            what: pad >> 1,
            outside: pad & 1 != 0,
        }
    }
}

/// In a [`Tally`]: flows that began.
pub const TALLY_OPENED: u8 = 0;

const REJECTED: u32 = Verdict::Rejected as u32;
const ERROR: u32 = Verdict::DroppedError as u32;

/// What a [`Tally`] counts, as people call it. The first are flows; the others are reasons why somebody was not served.
pub const TALLIES: [(u8, &str); 9] = [
    (TALLY_OPENED, "opened"),
    (tally_of(REJECTED), "no_endpoint"),
    (tally_of(Verdict::DroppedSource as u32), "source_range"),
    (
        tally_of(Verdict::DroppedNoLocal as u32),
        "no_local_endpoint",
    ),
    (tally_of(Verdict::DroppedNoPort as u32), "no_port_left"),
    (tally_of(Verdict::DroppedNoRoute as u32), "no_route"),
    (tally_of(Verdict::DroppedTtl as u32), "ttl"),
    (tally_of(ERROR), "error"),
    (TALLY_TOO_LARGE, "too_large"),
];

const TALLY_TOO_LARGE: u8 = tally_of(ERROR) + 1;

/// Of the verdicts from [`Verdict::Rejected`] to [`Verdict::DroppedError`].
const fn tally_of(index: u32) -> u8 {
    (index - REJECTED) as u8 + 1
}

impl Verdict {
    /// Whether somebody was not served: refused, dropped, or told to send less at once.
    #[inline(always)]
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self.tally(), Some(tally) if tally != TALLY_OPENED)
    }

    /// What it is counted as for the Service, if it is. Computed, since a table would be data that the programs have to be loaded
    /// with.
    #[inline(always)]
    #[must_use]
    pub const fn tally(self) -> Option<u8> {
        let index = self as u32;
        if matches!(self, Self::UnknownConnection) {
            None
        } else if index >= REJECTED && index <= ERROR {
            Some(tally_of(index))
        } else if matches!(self, Self::NewFlow | Self::SocketConnect | Self::SocketFlow) {
            Some(TALLY_OPENED)
        } else if matches!(self, Self::SocketRefused) {
            Some(tally_of(REJECTED))
        } else if matches!(self, Self::SocketTimedOut) {
            Some(tally_of(Self::DroppedNoLocal as u32))
        } else if matches!(self, Self::SocketSource) {
            Some(tally_of(Self::DroppedSource as u32))
        } else if matches!(self, Self::TooLarge | Self::DroppedTooLarge) {
            Some(TALLY_TOO_LARGE)
        } else {
            None
        }
    }
}
