//! The socket by which an operator asks the running daemon: one line of JSON there, lines of JSON back. Only root may.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use seaway_daemon::answer_of;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::{Order, Teller, Update};
use crate::cli::Mode;

/// Name of the socket in the run directory.
const SOCKET: &str = "proxy.sock";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    switch: Mode,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Opens the socket, in place of what an earlier daemon has left: the lock of the run directory is ours.
pub fn listen(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = path(run_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {} (--run-dir)", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    Ok(listener)
}

/// Passes on what is asked until the task is dropped.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Order>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let orders = orders.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, orders).await {
                        tracing::debug!(%error, "whoever asked has gone");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a question");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, orders: mpsc::Sender<Order>) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await?;
    let (listener, mut updates) = mpsc::unbounded_channel();
    match serde_json::from_str::<Request>(&line) {
        Ok(Request { switch: mode }) => {
            let teller = Teller::new(listener);
            orders.send(Order { mode, teller }).await?;
        }
        Err(error) => listener.send(Update::Failed(format!("not understood: {error}")))?,
    }
    while let Some(update) = updates.recv().await {
        let mut line = serde_json::to_vec(&update)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
    Ok(())
}

/// Asks the daemon of this run directory to change its mode. `tell` hears of each step; what is returned is the result.
pub async fn ask(run_dir: &Path, mode: Mode, mut tell: impl FnMut(&str)) -> anyhow::Result<String> {
    let path = path(run_dir);
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "cannot reach seaway-proxy at {}: is it running on this node, with this --run-dir?",
            path.display()
        )
    })?;
    let (reader, mut writer) = stream.split();
    let mut request = serde_json::to_vec(&Request { switch: mode })?;
    request.push(b'\n');
    writer.write_all(&request).await?;
    let mut lines = BufReader::new(reader).lines();
    // It takes an order once it is in sync.
    let who = format!(
        "seaway-proxy at {}, which may not be in sync",
        path.display()
    );
    let mut next = answer_of(&who, None, lines.next_line()).await??;
    while let Some(line) = next {
        match serde_json::from_str(&line).context("not an answer of seaway-proxy")? {
            Update::Progress(what) => tell(&what),
            Update::Done(what) => return Ok(what),
            Update::Failed(why) => anyhow::bail!(why),
        }
        next = lines.next_line().await?;
    }
    anyhow::bail!("the daemon ended before it had answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_passed_on_and_its_course_told() {
        let dir = tempfile::tempdir().unwrap();
        let listener = listen(dir.path()).unwrap();
        let (sender, mut orders) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, sender));
        let daemon = async {
            let order = orders.recv().await.unwrap();
            assert_eq!(order.mode, Mode::Ebpf);
            order.teller.progress("one step");
            order.teller.done("all is well".into());
            let order = orders.recv().await.unwrap();
            order.teller.failed("no".into());
        };
        let asking = async {
            let mut told = Vec::new();
            let tell = |what: &str| told.push(what.to_owned());
            let done = ask(dir.path(), Mode::Ebpf, tell).await.unwrap();
            assert_eq!(done, "all is well");
            assert!(told.len() == 1 && told[0].ends_with("one step"), "{told:?}");
            let failed = ask(dir.path(), Mode::Iptables, |_| {}).await.unwrap_err();
            assert_eq!(failed.to_string(), "no");
        };
        tokio::join!(daemon, asking);
        serving.abort();
    }

    #[tokio::test]
    async fn what_is_no_question_is_answered_and_nobody_else_may_ask() {
        let dir = tempfile::tempdir().unwrap();
        // What a daemon that was killed has left.
        fs::write(path(dir.path()), "").unwrap();
        let listener = listen(dir.path()).unwrap();
        let mode = fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (sender, _orders) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, sender));
        let mut stream = UnixStream::connect(path(dir.path())).await.unwrap();
        stream.write_all(b"{\"switch\":\"ipvs\"}\n").await.unwrap();
        let mut answer = String::new();
        BufReader::new(&mut stream)
            .read_line(&mut answer)
            .await
            .unwrap();
        assert!(
            answer.contains("ipvs") && answer.contains("ebpf"),
            "{answer}"
        );
        serving.abort();
    }

    #[tokio::test]
    async fn without_a_daemon_the_socket_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(dir.path(), Mode::Ebpf, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("proxy.sock"), "{error}");
    }
}
