//! One request by HTTP, from inside of a namespace.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use seaway_kernel::NetNs;

/// For the connection, and for each part of the answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What is served there at `/`; blocks.
pub fn get(netns: &NetNs, from: SocketAddr) -> Result<String> {
    let fetched = netns.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&from, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        Ok(body.trim().to_owned())
    })?;
    fetched.with_context(|| format!("http://{from}/"))
}
