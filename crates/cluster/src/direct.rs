//! What proxies tell each other on their Nodes: which nodes answer clients of others themselves
//! ([`DirectAnswers`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use seaway_model::ownership::DIRECT_ANSWERS_ANNOTATION;
use seaway_model::{DirectAnswers, InputEvent};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::convert::direct_answers;
use crate::source::{NodeScope, Source, Wants, stream};
use crate::wire::Node;

#[cfg(test)]
mod tests;

/// What nodes say, by their internal addresses; of those that say nothing there is nothing.
pub type Answering = BTreeMap<IpAddr, DirectAnswers>;

/// Follows all nodes until every receiver is dropped; must be called inside a tokio runtime. `None` until all of them have
/// been listed.
pub fn follow(source: Source) -> watch::Receiver<Option<Answering>> {
    let (tell, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let wants = Wants {
            nodes: NodeScope::All,
            ..Wants::default()
        };
        let mut events = stream(source, wants);
        let mut known = Known::default();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = tell.closed() => return,
            };
            let Some(event) = event else { return };
            if let Some(now) = known.absorb(event) {
                tell.send_replace(Some(now));
            }
        }
    });
    receiver
}

/// The nodes that say something.
#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<Arc<str>, (Vec<IpAddr>, DirectAnswers)>,
    listed: bool,
}

impl Known {
    /// Takes an event in; what is to be told, if that is something new.
    fn absorb(&mut self, event: InputEvent) -> Option<Answering> {
        let differs = match event {
            InputEvent::Synced => {
                self.listed = true;
                true
            }
            InputEvent::Node(name, Some(node)) if node.direct_answers != DirectAnswers::No => {
                let says = (node.addresses, node.direct_answers);
                self.nodes.insert(name, says.clone()) != Some(says)
            }
            InputEvent::Node(name, _) => self.nodes.remove(&name).is_some(),
            _ => false,
        };
        (differs && self.listed).then(|| self.told())
    }

    fn told(&self) -> Answering {
        let of_node = |(ips, says): &(Vec<IpAddr>, DirectAnswers)| {
            let says = *says;
            ips.clone().into_iter().map(move |ip| (ip, says))
        };
        self.nodes.values().flat_map(of_node).collect()
    }
}

/// Has the Node say it, if it says something else. [`DirectAnswers::Begun`] is for a node that has said more before: one that
/// says nothing goes on so. Needs `get` of nodes, and `patch` of their status, which takes annotations, too, and leaves the spec alone.
///
/// # Errors
///
/// If the API does not answer or does not allow it.
pub async fn say(client: &Client, node: &str, says: DirectAnswers) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let there = nodes.get(node).await?;
    if let Some(patch) = patch(direct_answers(&there), says) {
        let params = PatchParams::default();
        nodes
            .patch_status(node, &params, &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}

/// What has to be changed of a Node that says this, if anything.
fn patch(there: Option<&str>, says: DirectAnswers) -> Option<Value> {
    let is_so = there == says.as_str() || (there.is_none() && says == DirectAnswers::Begun);
    let annotations = json!({DIRECT_ANSWERS_ANNOTATION: says.as_str()});
    (!is_so).then(|| json!({"metadata": {"annotations": annotations}}))
}
