//! What the echo server says, as one line of JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One answer of the echo server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the pod that answers.
    pub pod: String,
    /// Node that the pod runs on; empty where it was not told.
    pub node: String,
    /// The server's own address as it sees it: that of the pod, whatever the client knocked at.
    pub local: SocketAddr,
    /// The client as the server sees it; tells whether the source was rewritten on the way.
    pub peer: SocketAddr,
    /// The request, without its line end.
    pub echo: String,
}

/// Who answers, from the environment that the agent gives to a container.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    pub pod: String,
    pub node: String,
}

impl Identity {
    /// `POD_NAME` or `HOSTNAME`, and `NODE_NAME`.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            pod: var("POD_NAME")
                .or_else(|| var("HOSTNAME"))
                .unwrap_or_default(),
            node: var("NODE_NAME").unwrap_or_default(),
        }
    }

    pub(crate) fn answer(&self, local: SocketAddr, peer: SocketAddr, request: &str) -> Answer {
        Answer {
            pod: self.pod.clone(),
            node: self.node.clone(),
            local,
            peer,
            echo: request.trim_end_matches(['\r', '\n']).to_owned(),
        }
    }
}

impl Answer {
    /// The line that goes over the wire, with its line end.
    pub(crate) fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
