//! The answer as a value, in words and in JSON.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use seaway_model::{FrontendKind, Outcome, Outcomes, Protocol, TrafficPolicy};
use serde::Serialize;

/// What becomes of a packet. Its `Display` is for people, its JSON for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What may become of the packet, from the oracle.
    #[serde(skip)]
    pub outcomes: Outcomes,
    pub(super) packet: Asked,
    pub(super) verdict: Verdict,
    /// The Service port that takes the packet.
    pub(super) service: Option<Taken>,
    /// Why none takes it, where that may surprise.
    pub(super) reasons: Vec<String>,
}

/// The packet that was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) source: IpAddr,
    pub(super) source_is: &'static str,
    pub(super) destination: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// To one of the endpoints that are used.
    Deliver,
    Reject,
    Drop,
    /// No Service: left to the routes of the node.
    Pass,
}

impl Verdict {
    pub(super) fn of(outcomes: &Outcomes) -> Self {
        match outcomes.first() {
            Some(Outcome::Deliver { .. }) => Self::Deliver,
            Some(Outcome::Reject) => Self::Reject,
            Some(Outcome::Drop) => Self::Drop,
            Some(Outcome::Pass) | None => Self::Pass,
        }
    }
}

/// Who takes the packet, and what it meets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken {
    pub(super) name: String,
    pub(super) port: String,
    /// The kind of frontend, and the field that has it.
    pub(super) by: FrontendKind,
    pub(super) field: String,
    pub(super) source_ranges: Option<SourceRanges>,
    /// None where the source ranges have refused the packet already, as is all that follows.
    pub(super) policy: Option<Policy>,
    /// Why there is no endpoint to go to.
    pub(super) because: Option<&'static str>,
    pub(super) source_address: Option<SourceAddress>,
    pub(super) affinity_seconds: Option<u64>,
    #[serde(flatten)]
    pub(super) endpoints: Endpoints,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceRanges {
    pub(super) admitted: bool,
    pub(super) ranges: Vec<IpNetwork>,
}

/// A traffic policy, and what has decided about it: a field, or who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Policy {
    pub(super) name: TrafficPolicy,
    pub(super) field: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
}

/// Whether the endpoint sees who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceAddress {
    pub(super) kept: bool,
    /// An endpoint that sees another one all the same.
    pub(super) but_at: Option<SocketAddr>,
    pub(super) reason: &'static str,
    /// How pods are told from others.
    pub(super) pods: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoints {
    #[serde(rename = "endpoints")]
    pub(super) all: Vec<Judged>,
    /// Why there are none.
    #[serde(rename = "noEndpoints")]
    pub(super) none: Option<String>,
    /// Why hints that are there decide nothing.
    pub(super) zone_hints_ignored: Option<String>,
}

/// An endpoint, and why it is used or left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Judged {
    pub(super) address: SocketAddr,
    pub(super) node: Option<String>,
    /// On this node.
    pub(super) here: bool,
    pub(super) slice: String,
    /// Where in the slice.
    pub(super) index: usize,
    pub(super) used: bool,
    pub(super) reason: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked {
            protocol,
            source,
            source_is,
            destination,
        } = &self.packet;
        writeln!(
            f,
            "packet: {protocol} from {source} ({source_is}) to {destination}"
        )?;
        writeln!(f, "verdict: {}", verdict(&self.outcomes))?;
        if let Some(taken) = &self.service {
            taken.tell(*source, f)?;
        }
        self.reasons
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn verdict(outcomes: &Outcomes) -> String {
    let delivered = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Deliver { .. }))
        .count();
    match (Verdict::of(outcomes), outcomes.first()) {
        (_, Some(Outcome::Deliver { backend, .. })) if delivered == 1 => {
            format!("goes to {backend}, the only endpoint")
        }
        (Verdict::Deliver, _) => {
            format!("goes to one of {delivered} endpoints, each as likely as any other")
        }
        (Verdict::Reject, _) => {
            "refused at once (TCP reset, ICMP port unreachable otherwise)".to_owned()
        }
        (Verdict::Drop, _) => "dropped without an answer".to_owned(),
        (Verdict::Pass, _) => "not a Service: left to the routes of the node".to_owned(),
    }
}

impl Taken {
    fn tell(&self, source: IpAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match &*self.port {
            "" => "its only port".to_owned(),
            name => format!("port {name:?}"),
        };
        let what = match self.by {
            FrontendKind::ClusterIp => "its cluster IP",
            FrontendKind::NodePort => "its node port",
            FrontendKind::ExternalIp => "an external IP",
            FrontendKind::LoadBalancer => "a load balancer address",
        };
        writeln!(
            f,
            "service: {}, {port}, by {what} ({})",
            self.name, self.field
        )?;
        if let Some(SourceRanges { admitted, ranges }) = &self.source_ranges {
            let is_in = if *admitted { "is in" } else { "is in none of" };
            let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
            let ranges = ranges.join(", ");
            writeln!(
                f,
                "source ranges: {source} {is_in} {ranges} (spec.loadBalancerSourceRanges)"
            )?;
        }
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        writeln!(f, "policy: {policy}")?;
        if let Some(because) = &self.because {
            writeln!(f, "because: {because}")?;
        }
        if let Some(address) = &self.source_address {
            writeln!(f, "source address: {address}")?;
        }
        if let Some(seconds) = self.affinity_seconds {
            writeln!(
                f,
                "affinity: a client keeps its endpoint until {seconds} s after its last new connection \
                 (spec.sessionAffinity: ClientIP)"
            )?;
        }
        write!(f, "{}", self.endpoints)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.name {
            TrafficPolicy::Cluster => "Cluster, endpoints of all nodes",
            TrafficPolicy::Local => "Local, endpoints of this node",
        })?;
        match (self.field, self.reason) {
            (Some(field), _) => write!(f, " ({field})"),
            (None, Some(reason)) => write!(f, ": {reason}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.kept {
            "kept"
        } else {
            "replaced by the node's"
        })?;
        match self.but_at {
            Some(own) => write!(f, ", but at {own}, {}", self.reason)?,
            None => write!(f, ": {}", self.reason)?,
        }
        match &self.pods {
            Some(pods) => write!(f, " ({pods})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.none {
            Some(reason) => writeln!(f, "endpoints: none: {reason}")?,
            None => writeln!(f, "endpoints:")?,
        }
        for endpoint in &self.all {
            writeln!(f, "  {endpoint}")?;
        }
        match &self.zone_hints_ignored {
            Some(reason) => writeln!(f, "zone hints decide nothing: {reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            slice,
            index,
            ..
        } = self;
        let place = match &self.node {
            _ if self.here => "this node".to_owned(),
            Some(node) => format!("node {node}"),
            None => "no node".to_owned(),
        };
        write!(
            f,
            "{address} ({place}; EndpointSlice {slice}, endpoints[{index}]): "
        )?;
        match (self.used, &self.reason) {
            (true, None) => f.write_str("used"),
            (true, Some(reason)) => write!(f, "used, because {reason}"),
            (false, reason) => write!(f, "left out: {}", reason.as_deref().unwrap_or_default()),
        }
    }
}
