//! Label selectors and node selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

type Labels = BTreeMap<String, String>;

/// The labels of an object; none if it has none.
pub(crate) fn labels(meta: &ObjectMeta) -> &Labels {
    static NONE: Labels = Labels::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// Whether every pair of an equality selector is among the labels.
pub(crate) fn equals(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether a label selector matches. An empty one matches everything.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let pairs = selector.match_labels.iter().flatten();
    pairs.clone().all(|(k, v)| labels.get(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|expr| {
            let values = expr.values.as_deref().unwrap_or_default();
            requirement(&expr.operator, values, labels.get(&expr.key))
        })
}

/// Whether one term of a node affinity matches. A term without any requirement matches no node.
pub(crate) fn node_term(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let holds = |expr: &NodeSelectorRequirement, value: Option<&String>| {
        let values = expr.values.as_deref().unwrap_or_default();
        requirement(&expr.operator, values, value)
    };
    let name = name.to_owned();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|e| holds(e, labels.get(&e.key)))
        && fields
            .iter()
            .all(|f| f.key == "metadata.name" && holds(f, Some(&name)))
}

fn requirement(operator: &str, values: &[String], value: Option<&String>) -> bool {
    match operator {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(values, value).is_some_and(|(have, want)| have > want),
        "Lt" => compare(values, value).is_some_and(|(have, want)| have < want),
        _ => false,
    }
}

fn compare(values: &[String], value: Option<&String>) -> Option<(i64, i64)> {
    Some((value?.parse().ok()?, values.first()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(selector: &serde_json::Value, labels: &[(&str, &str)], expected: bool) {
        let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        assert_eq!(
            matches(&parsed, &labels),
            expected,
            "{selector} on {labels:?}"
        );
    }

    #[test]
    fn label_selectors() {
        check(&json!({}), &[], true);
        check(
            &json!({"matchLabels": {"a": "1"}}),
            &[("a", "1"), ("b", "2")],
            true,
        );
        check(&json!({"matchLabels": {"a": "1"}}), &[("a", "2")], false);
        let expr = |op: &str, values: &[&str]| json!({"matchExpressions": [{"key": "a", "operator": op, "values": values}]});
        check(&expr("In", &["1", "2"]), &[("a", "2")], true);
        check(&expr("In", &["1", "2"]), &[], false);
        check(&expr("NotIn", &["1"]), &[], true);
        check(&expr("NotIn", &["1"]), &[("a", "1")], false);
        check(&expr("Exists", &[]), &[("a", "")], true);
        check(&expr("DoesNotExist", &[]), &[("a", "")], false);
        check(&expr("Gt", &["5"]), &[("a", "6")], true);
        check(&expr("Lt", &["5"]), &[("a", "x")], false);
    }

    #[test]
    fn node_terms() {
        let term = |value| serde_json::from_value::<NodeSelectorTerm>(value).unwrap();
        let fields =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        assert!(node_term(&term(fields.clone()), "n1", &Labels::new()));
        assert!(!node_term(&term(fields), "n2", &Labels::new()));
        assert!(!node_term(&term(json!({})), "n1", &Labels::new()));
    }
}
