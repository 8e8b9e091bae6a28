//! Probing the way to each peer: whether anything arrives, how large, and with right checksums. Overlays answer each other
//! at [`PROBE_PORT`]; datagrams go the way that packets of pods go.
//!
//! [`path`] decides (pure), [`news`] says what is logged of it (pure), [`wire`] is the format, this file has sockets and clock.

mod news;
pub mod path;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
use news::News;
use path::{Ask, Found, Health, Path};
use wire::Message;

/// Headers of IP and UDP.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;

/// Longer than anything that is read.
const BUFFER: usize = 2048;

/// The first rounds to many new peers are spread: one in this time.
const SPREAD: Duration = Duration::from_millis(1);

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

/// Whom to probe from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// These.
    All(Targets),
    /// Those as until now, but for these.
    Some {
        /// `None`: not any more.
        peers: Vec<(Arc<str>, Option<IpAddr>)>,
        /// Who else may not ask any more, and who may; who is in both may.
        gone: BTreeSet<IpAddr>,
        new: BTreeSet<IpAddr>,
    },
}

impl Targets {
    /// Answers whether it is something else now.
    fn take(&mut self, aim: Aim) -> bool {
        match aim {
            Aim::All(targets) => {
                let new = *self != targets;
                *self = targets;
                new
            }
            Aim::Some { peers, gone, new } => {
                for (name, address) in peers {
                    match address {
                        Some(address) => self.peers.insert(name, address),
                        None => self.peers.remove(&name),
                    };
                }
                for address in &gone {
                    self.known.remove(address);
                }
                self.known.extend(new);
                true
            }
        }
    }
}

/// What was found of a peer, and when that last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub found: Found,
    /// The largest packet that arrives, where that is less than it should be.
    pub narrow: Option<u32>,
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
            queue: BTreeSet::new(),
            by_sequence: HashMap::new(),
            news: News::default(),
            token: random,
            sequence: 0,
            full: 0,
            offloaded: true,
        };
        tokio::spawn(prober.run(changes));
        Ok(probes)
    }

    /// Probes these from now on.
    pub fn aim(&self, aim: Aim) {
        self.targets.send_if_modified(|targets| targets.take(aim));
    }

    /// Returns when something new was found that has to be worked around, or no longer; safe to drop and call again.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is known of each peer.
    pub fn records(&self) -> HashMap<Arc<str>, Record> {
        self.lock().clone()
    }

    /// What has to be worked around.
    pub fn findings(&self) -> Findings {
        let records = self.lock();
        let mtu = records
            .iter()
            .filter_map(|(name, record)| Some((name.clone(), record.narrow?)));
        Findings {
            mtu: mtu.collect(),
            offload_broken: records.values().any(|record| work(Some(record)).1),
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
    paths: HashMap<Arc<str>, Probed>,
    /// The paths by when they have something to do.
    queue: BTreeSet<(Instant, Arc<str>)>,
    /// To whom a question of a round that is under way went.
    by_sequence: HashMap<u32, Arc<str>>,
    news: News,
    token: u64,
    sequence: u32,
    full: u32,
    offloaded: bool,
}

/// A peer.
#[derive(Debug)]
struct Probed {
    address: IpAddr,
    path: Path,
    /// The questions of the last round.
    asked: Vec<u32>,
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
        self.forget(|name, probed| targets.peers.get(name) == Some(&probed.address));
        let resized = std::mem::replace(&mut self.full, targets.full) != targets.full;
        let switched =
            std::mem::replace(&mut self.offloaded, targets.offloaded) != targets.offloaded;
        let mut start = now;
        for (name, &address) in &targets.peers {
            if self.paths.contains_key(name) {
                if resized || switched {
                    self.change(name, |path| {
                        path.resize(targets.full, now);
                        path.set_offloaded(targets.offloaded, now);
                    });
                    self.record(name);
                }
                continue;
            }
            let probed = Probed {
                address,
                path: Path::new(targets.full, targets.offloaded, start),
                asked: Vec::new(),
            };
            self.queue.insert((probed.path.due(), name.clone()));
            self.paths.insert(name.clone(), probed);
            start += SPREAD;
        }
        self.known = targets.known;
        self.known.extend(targets.peers.values());
    }

    /// Leaves out who need not be probed any more.
    fn forget(&mut self, stays: impl Fn(&Arc<str>, &Probed) -> bool) {
        let before = self.paths.len();
        self.paths.retain(|name, probed| stays(name, probed));
        let paths = &self.paths;
        if paths.len() == before {
            return;
        }
        self.queue.retain(|(_, name)| paths.contains_key(name));
        self.by_sequence.retain(|_, name| paths.contains_key(name));
        self.news.retain(|name| paths.contains_key(name));
        let mut eased = false;
        self.probes.lock().retain(|name, record| {
            let there = paths.contains_key(name);
            eased |= !there && work(Some(record)) != work(None);
            there
        });
        if eased {
            self.probes.changed.notify_one();
        }
    }

    /// Does something to a path, and keeps its place in the queue right.
    fn change(&mut self, name: &Arc<str>, what: impl FnOnce(&mut Path)) {
        if let Some(probed) = self.paths.get_mut(name) {
            self.queue.remove(&(probed.path.due(), name.clone()));
            what(&mut probed.path);
            self.queue.insert((probed.path.due(), name.clone()));
        }
    }

    /// Sends what is due; answers when there is more.
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, name)) = self.queue.pop_first() {
            if due > now {
                self.queue.insert((due, name));
                break;
            }
            let Some(probed) = self.paths.get_mut(&name) else {
                continue;
            };
            for sequence in probed.asked.drain(..) {
                self.by_sequence.remove(&sequence);
            }
            for ask in probed.path.tick(now, &mut self.sequence) {
                self.by_sequence.insert(ask.sequence, name.clone());
                probed.asked.push(ask.sequence);
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
                self.sockets.send(probed.address, message, size, checksum);
            }
            self.queue.insert((probed.path.due(), name.clone()));
            self.record(&name);
        }
        for line in self.news.lines(now) {
            tracing::warn!("{line}");
        }
        let next = self.queue.first().map(|(due, _)| *due);
        let due = next.into_iter().chain(self.news.due(now)).min()?;
        Some(due.max(now + GRAIN))
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
        self.change(&name, |path| path.answer(message.sequence, now));
        self.record(&name);
    }

    /// Makes known what is new of a peer.
    fn record(&mut self, name: &Arc<str>) {
        let Some(probed) = self.paths.get(name) else {
            return;
        };
        let found = probed.path.found();
        let mut records = self.probes.lock();
        let before = records.get(name).copied();
        let now = Record {
            found,
            narrow: found.mtu.filter(|mtu| *mtu < self.full),
            since: Timestamp::now(),
        };
        let former = before.map(|before| before.found).unwrap_or_default();
        if former == found && work(before.as_ref()) == work(Some(&now)) {
            return;
        }
        records.insert(name.clone(), now);
        drop(records);
        self.news.hear(name, former, found);
        tell(name, former, found);
        if work(before.as_ref()) != work(Some(&now)) {
            self.probes.changed.notify_one();
        }
    }
}

/// What of it has to be worked around: a way that is narrower than it should be, wrong checksums.
fn work(record: Option<&Record>) -> (Option<u32>, bool) {
    let broken = |record: &Record| record.found.offload == Health::Broken;
    (record.and_then(|r| r.narrow), record.is_some_and(broken))
}

/// Good news, which few want to hear.
fn tell(peer: &str, before: Found, found: Found) {
    if found.reachable != before.reachable && found.reachable != Health::Broken {
        tracing::debug!("peer {peer} answers probes");
    }
    if found.mtu != before.mtu
        && let Some(mtu) = found.mtu
    {
        tracing::debug!("packets to peer {peer} arrive up to {mtu} bytes");
    }
}

#[cfg(test)]
mod tests;
