//! A directory of manifests as a source: the proxy without any API.
//!
//! Polled rather than watched: a poll of a few files costs microseconds, sees atomic renames and swapped
//! symbolic links (mounted ConfigMaps) alike, and works on every file system.

mod directory;
mod parse;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use seaway_model::InputEvent;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::convert::{Object, convert};
use crate::intern::Interner;
use crate::ledger::Ledger;
use crate::source::{NodeScope, Wants};
use directory::Directory;

pub use parse::{Parsed, parse};

const POLL: Duration = Duration::from_millis(500);

/// Follows the directory until the receiver of `events` is dropped.
pub(crate) async fn follow(path: PathBuf, wants: Wants, events: mpsc::Sender<InputEvent>) {
    let mut directory = Directory::new(path);
    let mut ledger = Ledger::default();
    let mut names = Interner::default();
    let mut synced = false;
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = events.closed() => return,
        }
        let poll = directory.poll(SystemTime::now());
        for problem in &poll.problems {
            warn!("{problem}");
        }
        let mut batch = Vec::new();
        if poll.changed {
            ledger.begin_list();
            for object in directory.objects().filter(|object| wanted(&wants, object)) {
                batch.extend(ledger.take(convert(object, &mut names)));
            }
            batch.extend(ledger.end_list());
        }
        if !synced && poll.complete {
            synced = true;
            batch.push(InputEvent::Synced);
        }
        for event in batch {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn wanted(wants: &Wants, object: &Object) -> bool {
    match object {
        Object::Service(_) => wants.services,
        Object::Slice(_) => wants.slices,
        Object::Node(node) => match &wants.nodes {
            NodeScope::None => false,
            NodeScope::One(name) => node.metadata.name.as_ref() == Some(name),
            NodeScope::All => true,
        },
    }
}
