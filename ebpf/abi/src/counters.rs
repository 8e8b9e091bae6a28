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
    /// Answered by "packet too big": larger than the link to the backend allows.
    TooLarge = 22, "too_large";
    /// Dropped: larger than the link to the backend allows, and to be fragmented on the way, which is not done here.
    DroppedTooLarge = 23, "dropped_too_large";
}

/// Entries in the map of counters: room for more without a new layout.
pub const COUNTERS_LEN: u32 = 32;

const _: () = assert!(Verdict::ALL.len() <= COUNTERS_LEN as usize);
