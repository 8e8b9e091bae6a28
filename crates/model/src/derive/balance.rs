//! How a Service chooses among its backends.

use super::Diagnostic;
use crate::desired::PortRule;
use crate::inputs::{Algorithm, Service};
use crate::ownership::ALGORITHM_ANNOTATION;
use crate::settings::NodeSettings;

/// What the Service asks for; else the node's default, if any port is exposed: what is a cluster IP only is
/// nearly always reached by sockets, for which there is no hash.
pub(super) fn algorithm(
    service: &Service,
    ports: &[PortRule],
    settings: &NodeSettings,
    diagnostics: &mut Vec<Diagnostic>,
) -> Algorithm {
    if service.algorithm == Some(Algorithm::Maglev) && !settings.carries_maglev {
        diagnostics.push(Diagnostic {
            object: service.key.clone(),
            field: format!("metadata.annotations[{ALGORITHM_ANNOTATION}]"),
            consequence: "this node's mode cannot choose by maglev: it chooses at random, so that a flow which changes \
                          to this node changes its endpoint; --mode ebpf can"
                .to_owned(),
        });
    }
    let exposed = ports.iter().any(PortRule::is_external);
    match service.algorithm {
        Some(algorithm) => algorithm,
        None if exposed => settings.algorithm,
        None => Algorithm::Random,
    }
}
