//! What the programs do to the first packet of a flow and to all that follows, against the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seaway_ebpf_abi::flow::{FLOW_REVERSE, STATE_ESTABLISHED, STATE_OPENED, STATE_REPLIED};
use seaway_model::oracle::{Remembered, outcomes, outcomes_for_known};
use seaway_model::testing::classes::Class;
use seaway_model::{Desired, Family, NodeContext, Outcome, Outcomes, Packet, Protocol};
use seaway_proxy::companion::Share;

use crate::frame::{self, Content, Shape, same};
use crate::node::{Entry, Flow, Node, Verdict};

/// Ports from which a packet is sent until all that is allowed was seen: of eight endpoints one is missed once in 10^14
/// times.
const ATTEMPTS: u16 = 256;
/// What every packet carries: enough for two fragments.
const PAYLOAD: &[u8; 40] = b"0123456789abcdefghijklmnopqrstuvwxyz!?-+";
/// Where datagrams are cut: a multiple of eight, behind the header.
const CUT: usize = 24;

/// Packets for one cluster on one node.
pub(crate) struct Judge<'a> {
    node: &'a mut Node,
    desired: &'a Desired,
    /// Whom clients of Service ports with session affinity have had: by the name of the port.
    remembered: BTreeMap<(String, IpAddr), SocketAddr>,
    next_port: u16,
    pub(crate) classes: BTreeSet<Class>,
    /// Frames that programs were run over.
    pub(crate) runs: usize,
}

impl<'a> Judge<'a> {
    /// Programs the node anew. It still knows flows and clients, unless it was told to forget them.
    pub(crate) fn new(node: &'a mut Node, desired: &'a Desired) -> Self {
        node.program(desired);
        Self {
            node,
            desired,
            remembered: BTreeMap::new(),
            next_port: 20_000,
            classes: BTreeSet::new(),
            runs: 0,
        }
    }

    /// Sends a packet from ever new ports until every outcome that is allowed was seen.
    ///
    /// # Errors
    ///
    /// What is not as it should be, of the packet or of the conversation that follows.
    pub(crate) fn send(&mut self, packet: &Packet, entry: Entry) -> Result<(), String> {
        let affinity = self.affinity(packet);
        let all = outcomes(self.desired, packet, &self.node.context);
        if is_left(self.desired, packet, &self.node.context) {
            let (met, _) = self.first(packet, entry, self.next_port)?;
            self.played(packet, entry, &all);
            return same("what netfilter carries", met, Outcome::Pass);
        }
        let mut seen = Outcomes::new();
        for _ in 0..ATTEMPTS {
            let mut allowed = all.clone();
            let known = affinity.as_ref().map(|name| (name.clone(), packet.source));
            if let Some(backend) = known.as_ref().and_then(|key| self.remembered.get(key)) {
                let remembered = Remembered {
                    backend: *backend,
                    age: Duration::ZERO,
                };
                allowed = outcomes_for_known(self.desired, packet, &self.node.context, &remembered);
            }
            let port = self.port();
            let (met, translated) = self.first(packet, entry, port)?;
            let fits = |one: &&Outcome| self.fits(packet, **one, met);
            let Some(outcome) = allowed.iter().find(fits) else {
                return Err(format!("{met:?}, but allowed is {allowed:?}"));
            };
            let new = seen.insert(*outcome);
            if let (Outcome::Deliver { backend, .. }, Some(key)) = (*outcome, known) {
                self.remembered.insert(key, backend);
            }
            // Nobody but the node itself goes on talking with an address of the node.
            let goes_on = new && !self.node.context.is_node(packet.source);
            if let Some(translated) = translated.filter(|_| goes_on) {
                self.converse(packet, entry, port, &translated)
                    .map_err(|error| format!("{met:?}: {error}"))?;
            }
            if seen == all || affinity.is_some() {
                self.played(packet, entry, &all);
                return Ok(());
            }
        }
        let never: Vec<_> = all.difference(&seen).collect();
        Err(format!("never in {ATTEMPTS} times: {never:?}"))
    }

    fn played(&mut self, packet: &Packet, entry: Entry, all: &Outcomes) {
        let class = |way| Class::of(self.desired, packet, way, &self.node.context, all);
        self.classes.extend(entry.way().map(class));
    }

    /// Sends a packet once from this port, whatever flows there are, and expects one of these outcomes.
    pub(crate) fn send_again(
        &mut self,
        packet: &Packet,
        entry: Entry,
        port: u16,
        allowed: &Outcomes,
    ) -> Result<(), String> {
        let (met, _) = self.first(packet, entry, port)?;
        let backend = |outcome: &Outcome| match *outcome {
            Outcome::Deliver { backend, .. } => Some(backend),
            _ => None,
        };
        let fits =
            |one: &Outcome| *one == met || backend(one).is_some_and(|b| backend(&met) == Some(b));
        match allowed.iter().any(fits) {
            true => Ok(()),
            false => Err(format!("{met:?}, but allowed is {allowed:?}")),
        }
    }

    /// Sends each packet from one and the same port, and then all replies: each must be taken for that of its own flow,
    /// however many of them have endpoint and client in common.
    pub(crate) fn crowd(&mut self, packets: &[(Packet, Entry)]) -> Result<(), String> {
        let port = self.port();
        let mut open = Vec::new();
        let is_node = |packet: &Packet| self.node.context.is_node(packet.source);
        let others: Vec<_> = packets.iter().filter(|(p, _)| !is_node(p)).collect();
        for (packet, entry) in others {
            if packet.protocol == Protocol::Sctp {
                continue;
            }
            let (_, translated) = self.first(packet, *entry, port)?;
            let Some(translated) = translated else {
                continue;
            };
            if let Content::Plain(arrived, _) = frame::read(&translated)? {
                let tcp = packet.protocol == Protocol::Tcp;
                let from = SocketAddr::new(packet.source, port);
                let sent = Shape::first(from, packet.destination, tcp);
                open.push((sent, arrived, *entry));
            }
        }
        for (sent, arrived, entry) in open {
            let back = self.way_back(arrived, entry);
            self.follows(back, arrived.answer(), sent.answer())
                .map_err(|error| format!("{sent:?} as {arrived:?}: {error}"))?;
        }
        Ok(())
    }

    /// Where replies meet the programs.
    fn way_back(&self, arrived: Shape, entry: Entry) -> Entry {
        match self.node.context.is_node(arrived.to.ip()) {
            true => entry.way_out(),
            false => self.node.entry_of(arrived.to.ip()),
        }
    }

    fn port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        self.next_port
    }

    /// The name of the Service port whose clients stay with their endpoint.
    fn affinity(&self, packet: &Packet) -> Option<String> {
        let to = packet.destination;
        let on_node = self.node.context.serves_node_ports(to.ip());
        let (key, rule, _) = self
            .desired
            .find(to.ip(), to.port(), packet.protocol, on_node)?;
        rule.affinity?;
        let family = Family::of(to.ip());
        Some(format!(
            "{key} {} {} {family:?}",
            rule.port_name, rule.protocol
        ))
    }

    /// Whether an allowed outcome is what was met. A source that the node masquerades with shows nothing of that, and what
    /// does not leave the node is never masqueraded.
    fn fits(&self, packet: &Packet, allowed: Outcome, met: Outcome) -> bool {
        let is_node = |ip| self.node.context.is_node(ip);
        match (allowed, met) {
            (Outcome::Deliver { backend, .. }, Outcome::Deliver { backend: found, .. })
                if is_node(packet.source) || is_node(backend.ip()) =>
            {
                backend == found
            }
            _ => allowed == met,
        }
    }

    fn run(&mut self, entry: Entry, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.runs += 1;
        self.node.run(entry, frame)
    }

    /// What becomes of the first packet from a port; and the frame that leaves, if one does.
    fn first(
        &mut self,
        packet: &Packet,
        entry: Entry,
        port: u16,
    ) -> Result<(Outcome, Option<Vec<u8>>), String> {
        let from = SocketAddr::new(packet.source, port);
        let tcp = packet.protocol == Protocol::Tcp;
        let sent = Shape::first(from, packet.destination, tcp);
        let input = match packet.protocol {
            Protocol::Sctp => frame::write_sctp(sent, PAYLOAD),
            _ => frame::write(sent, PAYLOAD),
        };
        let (verdict, output) = self.run(entry, &input);
        if verdict == Verdict::Drop {
            return Ok((Outcome::Drop, None));
        }
        if verdict == Verdict::Pass && output == input {
            return Ok((Outcome::Pass, None));
        }
        match frame::read(&output)? {
            Content::Plain(shape, payload) => {
                same("payload", payload.as_slice(), PAYLOAD)?;
                same("flags", shape.tcp, sent.tcp)?;
                // What passes goes up the stack, to a process of the node.
                let up = verdict == Verdict::Pass;
                same(
                    "goes up the stack",
                    up,
                    self.node.context.is_node(shape.to.ip()),
                )?;
                same("hops", shape.hops, sent.hops - u8::from(!up))?;
                let outcome = Outcome::Deliver {
                    backend: shape.to,
                    masqueraded: shape.from.ip() != packet.source,
                };
                Ok((outcome, Some(output)))
            }
            Content::Reset(shape, acknowledged) => {
                same("verdict", verdict, Verdict::Redirect)?;
                let expected = Shape {
                    tcp: Some(frame::RST | frame::ACK),
                    ..sent.answer()
                };
                same("reset", shape, expected)?;
                same(
                    "acknowledged",
                    acknowledged,
                    frame::acknowledgement(PAYLOAD),
                )?;
                Ok((Outcome::Reject, None))
            }
            refusal @ Content::Error { .. } => {
                same("verdict", verdict, Verdict::Redirect)?;
                same("a refusal of TCP by ICMP", tcp, false)?;
                same(
                    "refusal",
                    refusal,
                    unreachable(sent.to.ip(), from.ip(), (from, sent.to)),
                )?;
                Ok((Outcome::Reject, None))
            }
        }
    }

    /// All that follows a first packet which was delivered as `translated`.
    fn converse(
        &mut self,
        packet: &Packet,
        entry: Entry,
        port: u16,
        translated: &[u8],
    ) -> Result<(), String> {
        let tcp = packet.protocol == Protocol::Tcp;
        let client = SocketAddr::new(packet.source, port);
        let sent = Shape::first(client, packet.destination, tcp);
        let Content::Plain(arrived, _) = frame::read(translated)? else {
            return Err("no longer the packet".to_owned());
        };
        let arrived = Shape {
            hops: sent.hops,
            ..arrived
        };
        self.flows(sent, arrived, STATE_OPENED)?;
        let forward = |judge: &mut Self, shape: Shape| {
            let as_first = Shape {
                tcp: shape.tcp,
                hops: shape.hops,
                ..arrived
            };
            judge.follows(entry, shape, as_first)
        };
        forward(self, sent)?;
        // The reply, and what the client says to that.
        let back = self.way_back(arrived, entry);
        let answer = self.follows(back, arrived.answer(), sent.answer())?;
        forward(self, sent.next())?;
        // From now on nothing changes any more, which lets the programs take a short way.
        let next = arrived.answer().next();
        for _ in 0..2 {
            self.follows(back, next, sent.answer().next())?;
            forward(self, sent.next())?;
        }
        let established = if tcp { STATE_ESTABLISHED } else { 0 };
        self.flows(sent, arrived, STATE_OPENED | STATE_REPLIED | established)?;
        // Each of the two complains about what it got.
        let (backend, masqueraded) = (arrived.to.ip(), arrived.from.ip());
        let complaint = frame::complaint(backend, masqueraded, translated);
        let about = (client, packet.destination);
        let shown = unreachable(packet.destination.ip(), client.ip(), about);
        self.complains(back, &complaint, shown)?;
        let complaint = frame::complaint(client.ip(), packet.destination.ip(), &answer);
        let about = (arrived.to, arrived.from);
        let shown = unreachable(masqueraded, backend, about);
        self.complains(entry, &complaint, shown)?;
        match tcp {
            true => Ok(()),
            false => self.fragments(sent, arrived, entry, back),
        }
    }

    /// Both entries of the flow are there and say the same.
    fn flows(&self, sent: Shape, arrived: Shape, state: u8) -> Result<(), String> {
        let tcp = sent.tcp.is_some();
        let there = self.node.flow(sent.from, sent.to, tcp);
        let there = there.ok_or("no entry for the client's packets")?;
        let expected = Flow {
            from: arrived.from,
            to: arrived.to,
            state,
            flags: there.flags & !FLOW_REVERSE,
        };
        same("forward entry", there, expected)?;
        let back = self.node.flow(arrived.to, arrived.from, tcp);
        let back = back.ok_or("no entry for the replies")?;
        let expected = Flow {
            from: sent.to,
            to: sent.from,
            // Of the flow's, the other entry has the truth.
            state: back.state,
            flags: there.flags | FLOW_REVERSE,
        };
        same("reverse entry", back, expected)
    }

    /// A packet of the flow is sent on as expected, apart from its hops; the frame that leaves.
    fn follows(&mut self, entry: Entry, shape: Shape, expected: Shape) -> Result<Vec<u8>, String> {
        let (verdict, output) = self.run(entry, &frame::write(shape, PAYLOAD));
        let expected = self.sent_on(entry, verdict, expected)?;
        let expected = Content::Plain(expected, PAYLOAD.to_vec());
        same("translated", frame::read(&output)?, expected)?;
        Ok(output)
    }

    /// A packet is sent out elsewhere with one hop less, unless it comes from the node or goes there.
    fn sent_on(&self, entry: Entry, verdict: Verdict, shape: Shape) -> Result<Shape, String> {
        let passes = entry.is_way_out() || self.node.context.is_node(shape.to.ip());
        let (expected, shape) = match passes {
            true => (Verdict::Pass, shape),
            false => (Verdict::Redirect, shape.routed()),
        };
        same("verdict", verdict, expected).map_err(|e| format!("{shape:?}: {e}"))?;
        Ok(shape)
    }

    fn complains(&mut self, entry: Entry, complaint: &[u8], shown: Content) -> Result<(), String> {
        let (verdict, output) = self.run(entry, complaint);
        same("dropped complaint", verdict == Verdict::Drop, false)?;
        same("complaint", frame::read(&output)?, shown)
    }

    /// A datagram of the client and one of the backend in two fragments each.
    fn fragments(
        &mut self,
        sent: Shape,
        arrived: Shape,
        entry: Entry,
        back: Entry,
    ) -> Result<(), String> {
        let id = self.port();
        for (entry, shape, expected) in [
            (entry, sent, arrived),
            (back, arrived.answer(), sent.answer()),
        ] {
            let mut out = Vec::new();
            let mut shown = expected;
            for part in frame::cut(&frame::write(shape, PAYLOAD), CUT, id) {
                let (verdict, output) = self.run(entry, &part);
                shown = self.sent_on(entry, verdict, expected)?;
                out.push(output);
            }
            let joined = frame::read(&frame::join([&out[0], &out[1]]))?;
            same("joined", joined, Content::Plain(shown, PAYLOAD.to_vec()))?;
        }
        Ok(())
    }
}

/// Whether the packet is for the rules beside the programs: to be served or refused there.
fn is_left(desired: &Desired, packet: &Packet, node: &NodeContext) -> bool {
    let passes = Outcomes::from([Outcome::Pass]);
    packet.protocol == Protocol::Sctp && outcomes(&Share::of(desired), packet, node) != passes
}

/// "Port unreachable".
fn unreachable(from: IpAddr, to: IpAddr, about: (SocketAddr, SocketAddr)) -> Content {
    Content::Error {
        kind: if from.is_ipv4() { (3, 3) } else { (1, 4) },
        from,
        to,
        about,
    }
}
