//! Probing the way to each peer: whether anything arrives, how large, and with right checksums. Overlays answer each other
//! at [`PROBE_PORT`]; datagrams go the way that packets of pods go.
//!
//! [`path`] decides (pure), [`wire`] is the format, this file has sockets and clock.

pub mod path;
pub mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seaway_kernel::{Error, udp};
use seaway_model::ownership::PROBE_PORT;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use crate::plan::Findings;
use path::{Ask, Found, Health, Path};
use wire::Message;

/// Headers of IP and UDP.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;

/// Longer than anything that is read.
const BUFFER: usize = 2048;

/// The first rounds to many new peers are spread: one in this time.
const SPREAD: Duration = Duration::from_millis(1);

/// Questions that are remembered, for each peer: more than a round has.
const KEPT: usize = 16;

/// How often the paths are looked at, at most.
const GRAIN: Duration = Duration::from_millis(10);

/// Whom to probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// By name: an address of the peer on the overlay.
    pub peers: BTreeMap<Arc<str>, IpAddr>,
    /// Who else may ask: peers are seen with these addresses where they send from the node.
    pub known: HashSet<IpAddr>,
    /// The size of the largest packet that should arrive.
    pub full: u32,
    /// Whether checksums are left to the network card.
    pub offloaded: bool,
}

/// What was found of a peer, and when that last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub found: Found,
    pub since: Timestamp,
}

/// Access to what the prober finds, and to whom it probes.
#[derive(Debug, Clone)]
pub struct Probes {
    targets: Arc<watch::Sender<Targets>>,
    records: Arc<Mutex<HashMap<Arc<str>, Record>>>,
    changed: Arc<Notify>,
}

impl Probes {
    /// Starts probing, in the calling thread's network namespace. Without a family that the kernel does not have.
    pub fn start() -> Result<Self, Error> {
        let sockets = Sockets::open()?;
        let (targets, changes) = watch::channel(Targets::default());
        let probes = Self {
            targets: Arc::new(targets),
            records: Arc::default(),
            changed: Arc::default(),
        };
        let random = RandomState::new().hash_one(std::process::id());
        let prober = Prober {
            sockets,
            probes: probes.clone(),
            known: HashSet::new(),
            paths: HashMap::new(),
            by_sequence: HashMap::new(),
            token: random,
            sequence: 0,
            offloaded: true,
        };
        tokio::spawn(prober.run(changes));
        Ok(probes)
    }

    /// Probes these from now on.
    pub fn aim(&self, targets: Targets) {
        self.targets.send_if_modified(|current| {
            let new = *current != targets;
            *current = targets;
            new
        });
    }

    /// Returns when something new was found; safe to drop and call again.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is known of each peer.
    pub fn records(&self) -> HashMap<Arc<str>, Record> {
        self.lock().clone()
    }

    /// What has to be worked around.
    pub fn findings(&self) -> Findings {
        let full = self.targets.borrow().full;
        let records = self.lock();
        let narrow = |(name, record): (&Arc<str>, &Record)| {
            let mtu = record.found.mtu.filter(|mtu| *mtu < full)?;
            Some((name.clone(), mtu))
        };
        Findings {
            mtu: records.iter().filter_map(narrow).collect(),
            offload_broken: records
                .values()
                .any(|record| record.found.offload == Health::Broken),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Record>> {
        // A panic elsewhere cannot leave a record half-written.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets of one family.
#[derive(Debug)]
struct Pair {
    /// At the port; asks with a checksum.
    port: UdpSocket,
    /// Asks and answers without one.
    unchecked: UdpSocket,
}

impl Pair {
    fn open(ipv6: bool) -> Result<Option<Self>, Error> {
        let port = match udp::bind(ipv6, PROBE_PORT) {
            Err(error) if error.is_unsupported_family() => return Ok(None),
            other => other?,
        };
        let unchecked = udp::bind(ipv6, 0)?;
        udp::receive_unchecked(&port)?;
        udp::send_unchecked(&unchecked)?;
        for socket in [&port, &unchecked] {
            udp::probe_path_mtu(socket)?;
        }
        let socket = |socket| {
            UdpSocket::from_std(socket).map_err(|cause| Error::Io {
                operation: "poll",
                object: format!("UDP port {PROBE_PORT}"),
                cause,
            })
        };
        Ok(Some(Self {
            port: socket(port)?,
            unchecked: socket(unchecked)?,
        }))
    }
}

#[derive(Debug)]
struct Sockets {
    v4: Option<Pair>,
    v6: Option<Pair>,
}

impl Sockets {
    fn open() -> Result<Self, Error> {
        Ok(Self {
            v4: Pair::open(false)?,
            v6: Pair::open(true)?,
        })
    }

    fn of(&self, address: IpAddr) -> Option<&Pair> {
        match address {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }

    /// The next datagram, cut to a header. An error of one datagram (an ICMP message about an earlier one) is none.
    async fn receive(&self) -> (Option<Message>, IpAddr) {
        let (mut four, mut six) = ([0; BUFFER], [0; BUFFER]);
        let received = tokio::select! {
            received = receive(self.v4.as_ref(), &mut four) => received.map(|(n, from)| (&four[..n], from)),
            received = receive(self.v6.as_ref(), &mut six) => received.map(|(n, from)| (&six[..n], from)),
        };
        match received {
            Ok((bytes, from)) => (Message::read(bytes), from.ip()),
            Err(_) => (None, IpAddr::from([0; 4])),
        }
    }

    /// What cannot be sent is as good as lost.
    fn send(&self, to: IpAddr, message: Message, size: u32, checksum: bool) {
        let Some(pair) = self.of(to) else {
            return;
        };
        let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        let bytes = message.write(size.saturating_sub(headers) as usize);
        let socket = if checksum {
            &pair.port
        } else {
            &pair.unchecked
        };
        if let Err(error) = socket.try_send_to(&bytes, SocketAddr::new(to, PROBE_PORT)) {
            tracing::trace!(%error, %to, size, "a probe was not sent");
        }
    }
}

async fn receive(pair: Option<&Pair>, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    match pair {
        Some(pair) => pair.port.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

struct Prober {
    sockets: Sockets,
    probes: Probes,
    /// Whose questions are answered.
    known: HashSet<IpAddr>,
    paths: HashMap<Arc<str>, (IpAddr, Path)>,
    /// To whom a question went.
    by_sequence: HashMap<u32, Arc<str>>,
    token: u64,
    sequence: u32,
    offloaded: bool,
}

impl Prober {
    async fn run(mut self, mut targets: watch::Receiver<Targets>) {
        let mut due = None;
        loop {
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let targets = targets.borrow_and_update().clone();
                    self.aim(targets, Instant::now());
                    due = self.tick(Instant::now());
                }
                (message, from) = self.sockets.receive() => {
                    if let Some(message) = message {
                        self.hear(message, from, Instant::now());
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    due = self.tick(Instant::now());
                }
            }
        }
    }

    fn aim(&mut self, targets: Targets, now: Instant) {
        self.paths
            .retain(|name, (address, _)| targets.peers.get(name) == Some(address));
        let mut start = now;
        for (name, address) in &targets.peers {
            match self.paths.get_mut(name) {
                Some((_, path)) => {
                    path.resize(targets.full, now);
                    path.set_offloaded(targets.offloaded, now);
                }
                None => {
                    let path = Path::new(targets.full, targets.offloaded, start);
                    self.paths.insert(name.clone(), (*address, path));
                    start += SPREAD;
                }
            }
        }
        self.offloaded = targets.offloaded;
        self.known = targets.known;
        self.known.extend(targets.peers.values());
        let paths = &self.paths;
        self.probes
            .lock()
            .retain(|name, _| paths.contains_key(name));
        self.by_sequence.retain(|_, name| paths.contains_key(name));
        let names: Vec<_> = self.paths.keys().cloned().collect();
        for name in names {
            self.record(&name);
        }
    }

    /// Sends what is due; answers when there is more.
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut ended = Vec::new();
        for (name, (address, path)) in &mut self.paths {
            if path.due() <= now {
                for ask in path.tick(now, &mut self.sequence) {
                    self.by_sequence.insert(ask.sequence, name.clone());
                    let Ask {
                        sequence,
                        size,
                        checksum,
                    } = ask;
                    let message = Message {
                        is_answer: false,
                        sequence,
                        token: self.token,
                    };
                    self.sockets.send(*address, message, size, checksum);
                }
                ended.push(name.clone());
            }
            next = Some(next.map_or(path.due(), |next: Instant| next.min(path.due())));
        }
        for name in ended {
            self.record(&name);
        }
        if self.by_sequence.len() > KEPT * (self.paths.len() + 1) {
            // Of rounds long past.
            self.by_sequence.clear();
        }
        next.map(|next| next.max(now + GRAIN))
    }

    fn hear(&mut self, message: Message, from: IpAddr, now: Instant) {
        if !message.is_answer {
            // Answers are short and go to peers only: nobody else can be made to receive them.
            if self.known.contains(&from) {
                self.sockets.send(from, message.answer(), 0, false);
            }
            return;
        }
        if message.token != self.token {
            return;
        }
        let Some(name) = self.by_sequence.remove(&message.sequence) else {
            return;
        };
        if let Some((_, path)) = self.paths.get_mut(&name) {
            path.answer(message.sequence, now);
            self.record(&name);
        }
    }

    /// Makes known what is new of a peer.
    fn record(&mut self, name: &Arc<str>) {
        let Some((_, path)) = self.paths.get(name) else {
            return;
        };
        let found = path.found();
        let mut records = self.probes.lock();
        let before = records.get(name).map(|record| record.found);
        if before == Some(found) || before.is_none() && found == Found::default() {
            return;
        }
        let since = Timestamp::now();
        records.insert(name.clone(), Record { found, since });
        drop(records);
        tell(name, before.unwrap_or_default(), found);
        self.probes.changed.notify_one();
    }
}

fn tell(peer: &str, before: Found, found: Found) {
    if found.reachable != before.reachable {
        match found.reachable {
            Health::Broken => tracing::warn!("peer {peer} does not answer probes any more"),
            _ => tracing::debug!("peer {peer} answers probes"),
        }
    }
    if found.mtu != before.mtu
        && let Some(mtu) = found.mtu
    {
        tracing::debug!("packets to peer {peer} arrive up to {mtu} bytes");
    }
    if found.offload == Health::Broken && before.offload != Health::Broken {
        tracing::warn!(
            "checksums of packets to peer {peer} arrive wrong when the network card makes them"
        );
    }
    if found.mangled && !before.mangled {
        tracing::warn!("checksums of packets to peer {peer} arrive wrong whoever makes them");
    }
}
