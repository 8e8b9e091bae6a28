//! The Service of the API server never goes without endpoints: whoever reaches the API by it, this daemon among them, could not
//! learn that there are endpoints again.

use super::Diagnostic;
use crate::desired::{PortRule, ServiceRules};
use crate::inputs::ObjectKey;

/// The Service by which pods reach the API server; its endpoints are written by API servers themselves, and all of them are taken
/// out when the last one ends or loses its lease.
const LIFELINE: (&str, &str) = ("default", "kubernetes");

/// Gives ports of the API server's Service that have no endpoint any more those that they had `before`. What became of that
/// is said for as long as it lasts. Other Services are left alone.
pub fn keep_lifeline(
    key: &ObjectKey,
    before: Option<&ServiceRules>,
    now: &mut ServiceRules,
) -> Option<Diagnostic> {
    if (key.namespace(), key.name()) != LIFELINE {
        return None;
    }
    let had = |port: &PortRule| {
        let same = |other: &&PortRule| {
            (&other.port_name, other.protocol, other.family)
                == (&port.port_name, port.protocol, port.family)
        };
        before?
            .ports
            .iter()
            .find(same)
            .filter(|had| had.any_endpoints)
    };
    let mut kept = 0;
    for port in now.ports.iter_mut().filter(|port| !port.any_endpoints) {
        if let Some(had) = had(port) {
            port.cluster = had.cluster.clone();
            port.local = had.local.clone();
            port.any_endpoints = true;
            kept += had.cluster.len();
        }
    }
    (kept > 0).then(|| Diagnostic {
        object: key.clone(),
        field: "endpoints".to_owned(),
        consequence: format!(
            "none is left; the {kept} that it had last go on getting traffic, so that the API can be reached again"
        ),
    })
}
