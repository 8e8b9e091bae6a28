//! How a lab is doing.

use serde::Serialize;

use crate::health;
use crate::record::Record;
use crate::{Daemon, LabError, LabName, Mode};
use seaway_kernel::NetNs;

/// A whole lab.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub name: LabName,
    /// It came up once, and every daemon runs and is in sync now.
    pub healthy: bool,
    pub daemons: Vec<DaemonStatus>,
}

/// One daemon.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonStatus {
    pub daemon: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_kib: Option<u64>,
    /// What its health endpoint says; `ok` also for a daemon that has none and runs.
    pub health: String,
}

/// Looks at every daemon of a lab.
pub async fn status(name: &LabName) -> Result<Status, LabError> {
    let record = Record::load(name)?;
    let mut daemons = vec![look(name, &Daemon::Server, None).await?];
    for node in &record.config.nodes {
        for daemon in Daemon::of_node(&node.name) {
            let mode = matches!(daemon, Daemon::Proxy(_)).then_some(node.mode);
            daemons.push(look(name, &daemon, mode).await?);
        }
    }
    Ok(Status {
        name: name.clone(),
        healthy: record.ready && daemons.iter().all(|daemon| daemon.health == "ok"),
        daemons,
    })
}

async fn look(
    lab: &LabName,
    daemon: &Daemon,
    mode: Option<Mode>,
) -> Result<DaemonStatus, LabError> {
    let process = daemon.process(lab)?;
    let health = match (&process, daemon) {
        (None, _) => "not running".to_owned(),
        (Some(_), Daemon::Server | Daemon::Agent(_)) => "ok".to_owned(),
        (Some(_), Daemon::Overlay(node)) => ask(lab, node, health::OVERLAY).await?,
        (Some(_), Daemon::Proxy(node)) => ask(lab, node, health::PROXY).await?,
    };
    Ok(DaemonStatus {
        daemon: daemon.id(),
        mode,
        pid: process.map(|process| process.id().pid),
        resident_kib: daemon.resident_kib(lab)?,
        health,
    })
}

async fn ask(lab: &LabName, node: &str, port: u16) -> Result<String, LabError> {
    let netns = NetNs::named(&lab.node_netns(node))?;
    let answer = health::healthz(&netns, port).await;
    Ok(answer.map_or_else(|seen| seen, |()| "ok".to_owned()))
}
