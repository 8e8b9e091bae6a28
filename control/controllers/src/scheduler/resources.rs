//! What Pods ask for and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pods;

type Amounts = BTreeMap<String, i128>;

/// What the Pods of a node use of it.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub pods: i128,
    /// In thousandths, by resource.
    pub requested: Amounts,
}

impl Load {
    pub(super) fn of<'a>(pods: impl Iterator<Item = &'a Pod>) -> Self {
        let mut load = Self::default();
        for pod in pods.filter(|pod| !pods::is_finished(pod)) {
            load.pods += 1;
            for (resource, amount) in requests(pod) {
                *load.requested.entry(resource).or_default() += amount;
            }
        }
        load
    }
}

/// What a Pod asks for: the sum of its containers, or the largest init container if that is more (plus overhead).
pub(super) fn requests(pod: &Pod) -> Amounts {
    let mut total = Amounts::new();
    let Some(spec) = &pod.spec else {
        return total;
    };
    for container in &spec.containers {
        for (resource, amount) in container_requests(container) {
            *total.entry(resource).or_default() += amount;
        }
    }
    for container in spec.init_containers.iter().flatten() {
        for (resource, amount) in container_requests(container) {
            let known = total.entry(resource).or_default();
            *known = amount.max(*known);
        }
    }
    for (resource, amount) in spec.overhead.iter().flatten() {
        *total.entry(resource.clone()).or_default() += thousandths(amount).unwrap_or(0);
    }
    total
}

fn container_requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let requests = resources
        .and_then(|r| r.requests.as_ref())
        .into_iter()
        .flatten();
    requests
        .filter_map(|(resource, amount)| Some((resource.clone(), thousandths(amount)?)))
        .collect()
}

/// How much of a resource a node offers, in thousandths; `None` if it does not say.
pub(super) fn allocatable(node: &Node, resource: &str) -> Option<i128> {
    let status = node.status.as_ref()?;
    let offered = status.allocatable.as_ref().or(status.capacity.as_ref())?;
    thousandths(offered.get(resource)?)
}

/// Reads a quantity, in thousandths of its unit, rounded up
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).
fn thousandths(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'));
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = factor(suffix)?;
    let product = number.checked_mul(numerator)?.checked_mul(1000)?;
    let divisor = scale.checked_mul(denominator)?;
    Some(product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) != 0))
}

fn factor(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power| Some((10_i128.checked_pow(power)?, 1));
    let binary = |power| Some((1024_i128.checked_pow(power)?, 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent >= 0 {
                (power, 1)
            } else {
                (1, power)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("0.1", Some(100)),
            ("1.5", Some(1500)),
            ("64Mi", Some(64 * 1024 * 1024 * 1000)),
            ("1k", Some(1_000_000)),
            ("2e3", Some(2_000_000)),
            ("1n", Some(1)),
            ("many", None),
            ("", None),
        ] {
            assert_eq!(thousandths(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}
