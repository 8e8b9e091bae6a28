//! What a pod does on the network: answer with a byte that says who it is, and ask in several ways.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, timeout};

use super::super::first_answer::now;

/// For one attempt; shorter than the first retransmission of a SYN (1 s), so that a lost one is a failure.
const ONE: Duration = Duration::from_millis(500);

/// Connections at once, when all Services are asked.
const AT_ONCE: usize = 64;

/// Asked of a pod, one JSON line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Ask all of these every so often, until each has answered once; by this backend, if one is named.
    Until {
        targets: Vec<SocketAddr>,
        from: Option<u8>,
        pause_us: u64,
        limit_ms: u64,
    },
    /// Which of these do not answer?
    Silent { targets: Vec<SocketAddr> },
    /// How long does it take to connect, that often, one after the other?
    Connect { target: SocketAddr, count: usize },
    /// How many exchanges a second?
    Rate {
        target: SocketAddr,
        exchange: Exchange,
        connections: usize,
        millis: u64,
    },
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// Connect, one byte, one byte back, close.
    NewConnection,
    /// One byte, one byte back, on a connection that is kept.
    KeptConnection,
}

/// Told by a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// When the last target answered, on the clock of [`now`].
    At {
        nanoseconds: u64,
        failures: u64,
    },
    Silent(Vec<SocketAddr>),
    /// Microseconds.
    Times(Vec<f64>),
    PerSecond(f64),
    Failed(String),
}

/// Answers every byte with `tag`, on all addresses.
pub async fn serve(port: u16, tag: u8) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // Another client may be in the same pod, of which nobody asks anything.
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    serve_on(socket.listen(4096)?, tag).await
}

async fn serve_on(listener: TcpListener, tag: u8) -> io::Result<()> {
    loop {
        // A client that gave up before its turn is no failure of the listener.
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let mut bytes = [0; 64];
            loop {
                let count = stream.read(&mut bytes).await?;
                if count == 0 {
                    return io::Result::Ok(());
                }
                stream.write_all(&vec![tag; count]).await?;
            }
        });
    }
}

/// Does what was asked.
pub async fn answer(ask: Ask) -> Told {
    let told = match ask {
        Ask::Until {
            targets,
            from,
            pause_us,
            limit_ms,
        } => until(targets, from, pause_us, limit_ms).await,
        Ask::Silent { targets } => Ok(Told::Silent(silent(targets).await)),
        Ask::Connect { target, count } => connect_times(target, count).await,
        Ask::Rate {
            target,
            exchange,
            connections,
            millis,
        } => rate(target, exchange, connections, Duration::from_millis(millis)).await,
    };
    told.unwrap_or_else(|error| Told::Failed(error.to_string()))
}

/// An attempt is not waited for by the next: until an address is served nothing may answer at all.
async fn until(
    targets: Vec<SocketAddr>,
    from: Option<u8>,
    pause_us: u64,
    limit_ms: u64,
) -> io::Result<Told> {
    let limit = Instant::now() + Duration::from_millis(limit_ms);
    let mut left: BTreeSet<SocketAddr> = targets.into_iter().collect();
    let mut under_way = FuturesUnordered::new();
    let mut beat = tokio::time::interval(Duration::from_micros(pause_us));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        tokio::select! {
            _ = beat.tick() => {
                let attempts = left.iter().copied();
                under_way.extend(attempts.map(async |target| (target, once(target).await)));
            }
            Some((target, answer)) = under_way.next() => match answer {
                Some(tag) if from.is_none_or(|from| from == tag) => _ = left.remove(&target),
                Some(_) => {}
                None => failures += 1,
            },
        }
        if left.is_empty() {
            let nanoseconds = u64::try_from(now()).unwrap_or(u64::MAX);
            return Ok(Told::At {
                nanoseconds,
                failures,
            });
        }
        if Instant::now() > limit {
            let text = format!("no answer of {left:?} within {limit_ms} ms ({failures} failures)");
            return Err(io::Error::other(text));
        }
    }
}

/// The tag of who answered.
async fn once(target: SocketAddr) -> Option<u8> {
    let attempt = async {
        let mut stream = open(target).await?;
        exchange(&mut stream).await
    };
    timeout(ONE, attempt).await.ok()?.ok()
}

async fn open(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Ends in a reset: thousands of connections must not leave as many ports waiting.
    socket.set_zero_linger()?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream) -> io::Result<u8> {
    stream.write_all(b"?").await?;
    stream.read_u8().await
}

async fn silent(targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    stream::iter(targets)
        .map(async |target| once(target).await.is_none().then_some(target))
        .buffer_unordered(AT_ONCE)
        .filter_map(future::ready)
        .collect()
        .await
}

/// From the first packet sent to its answer; a few connections go before those that are counted.
async fn connect_times(target: SocketAddr, count: usize) -> io::Result<Told> {
    let measure = move || {
        let mut times = Vec::with_capacity(count);
        for number in 0..count + count / 10 {
            let start = Instant::now();
            let stream = std::net::TcpStream::connect(target)?;
            let took = start.elapsed();
            if number >= count / 10 {
                times.push(took.as_secs_f64() * 1e6);
            }
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?.set_zero_linger()?;
        }
        Ok(Told::Times(times))
    };
    let done = tokio::task::spawn_blocking(measure).await;
    done.map_err(io::Error::other)?
}

async fn rate(
    target: SocketAddr,
    what: Exchange,
    connections: usize,
    time: Duration,
) -> io::Result<Told> {
    // The first tenth warms up.
    let begin = Instant::now() + time / 10;
    let end = begin + time;
    let workers = (0..connections).map(|_| tokio::spawn(work(target, what, begin, end)));
    let mut done = 0;
    for worker in future::join_all(workers).await {
        done += worker.map_err(io::Error::other)??;
    }
    Ok(Told::PerSecond(done as f64 / time.as_secs_f64()))
}

/// Exchanges that ended between the two times.
async fn work(target: SocketAddr, what: Exchange, begin: Instant, end: Instant) -> io::Result<u64> {
    let mut count = 0;
    let mut kept = None;
    loop {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => open(target).await?,
        };
        exchange(&mut stream).await?;
        let now = Instant::now();
        if now >= end {
            return Ok(count);
        }
        count += u64::from(now >= begin);
        if what == Exchange::KeptConnection {
            kept = Some(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server(tag: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_on(listener, tag));
        address
    }

    #[tokio::test]
    async fn the_tag_says_who_answered() {
        let (a, b) = (server(b'a').await, server(b'b').await);
        let until = |targets: &[SocketAddr], from| Ask::Until {
            targets: targets.to_vec(),
            from,
            pause_us: 100,
            limit_ms: 50,
        };
        let told = answer(until(&[a, b], None)).await;
        assert!(matches!(told, Told::At { failures: 0, .. }), "{told:?}");
        let told = answer(until(&[a, b], Some(b'b'))).await;
        assert!(
            matches!(&told, Told::Failed(why) if why.contains(&a.to_string())),
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named() {
        let a = server(b'a').await;
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let targets = vec![a, gone];
        assert_eq!(
            answer(Ask::Silent { targets }).await,
            Told::Silent(vec![gone])
        );
    }

    #[tokio::test]
    async fn times_and_rates_are_counted() {
        let target = server(b'a').await;
        let told = answer(Ask::Connect { target, count: 20 }).await;
        assert!(matches!(&told, Told::Times(times) if times.len() == 20));
        for exchange in [Exchange::NewConnection, Exchange::KeptConnection] {
            let told = answer(Ask::Rate {
                target,
                exchange,
                connections: 2,
                millis: 50,
            })
            .await;
            assert!(
                matches!(told, Told::PerSecond(rate) if rate > 1.0),
                "{told:?}"
            );
        }
    }
}
