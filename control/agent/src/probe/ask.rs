//! Asking: one probe, and the loop around it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use seaway_kernel::{Command, NetNs};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Check, Judge, Spec};

/// Longest status line that is read.
const STATUS_LINE: u64 = 8 * 1024;

/// Whom a probe asks.
#[derive(Debug, Clone)]
pub struct Target {
    pub ip: IpAddr,
    /// Where exec probes run.
    pub netns: NetNs,
    pub env: Vec<(String, String)>,
    pub cgroup: PathBuf,
}

/// Probes for ever; calls `changed` with the new readiness and the reason. Starts from `ready`, which an adopted
/// container brings along.
pub async fn run(
    spec: Spec,
    target: Target,
    ready: bool,
    mut report: impl FnMut(Option<bool>, &Result<(), String>),
) {
    let mut judge = Judge::new(&spec, ready);
    tokio::time::sleep(spec.initial_delay).await;
    loop {
        let answer = ask(&spec.check, &target, spec.timeout).await;
        report(judge.take(answer.is_ok()), &answer);
        tokio::time::sleep(judge.interval()).await;
    }
}

/// One probe; the error is worded as kubelet's events are.
pub async fn ask(check: &Check, target: &Target, limit: Duration) -> Result<(), String> {
    match check {
        Check::Tcp { host, port } => within(limit, connect(host.as_deref(), target.ip, *port))
            .await
            .map(drop),
        Check::Http {
            host,
            port,
            path,
            headers,
        } => {
            within(
                limit,
                http(host.as_deref(), target.ip, *port, path, headers),
            )
            .await
        }
        Check::Exec { command } => exec(command, target, limit).await,
    }
}

async fn within<T>(
    limit: Duration,
    ask: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::time::timeout(limit, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn connect(host: Option<&str>, ip: IpAddr, port: u16) -> Result<TcpStream, String> {
    let failed = |address: String| move |e| format!("dial tcp {address}: {e}");
    match host.filter(|host| !host.is_empty()) {
        Some(host) => TcpStream::connect((host, port))
            .await
            .map_err(failed(format!("{host}:{port}"))),
        None => {
            let address = SocketAddr::new(ip, port);
            TcpStream::connect(address)
                .await
                .map_err(failed(address.to_string()))
        }
    }
}

async fn http(
    host: Option<&str>,
    ip: IpAddr,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let stream = connect(host, ip, port).await?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {}\r\n", SocketAddr::new(ip, port)));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("User-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let failed = |e: std::io::Error| {
        format!(
            "Get \"http://{}{slash}{path}\": {e}",
            SocketAddr::new(ip, port)
        )
    };
    let mut stream = BufReader::new(stream);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut line = String::new();
    let mut limited = tokio::io::AsyncReadExt::take(&mut stream, STATUS_LINE);
    limited.read_line(&mut line).await.map_err(failed)?;
    let code: Option<u16> = line
        .strip_prefix("HTTP/")
        .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    match code {
        Some(200..400) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("malformed HTTP response {:?}", line.trim_end())),
    }
}

async fn exec(command: &[String], target: &Target, limit: Duration) -> Result<(), String> {
    let Some((program, args)) = command.split_first() else {
        return Err("no command".to_owned());
    };
    let mut run = Command::new(program)
        .args(args)
        .env_clear()
        .netns(&target.netns)
        .cgroup(&target.cgroup)
        .timeout(limit);
    for (name, value) in &target.env {
        run = run.env(name, value);
    }
    run.output()
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
