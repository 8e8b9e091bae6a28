//! Field selectors: a short list of fields per kind, equality only.

use serde_json::Value;

use super::SelectorError;
use crate::kinds::Kind;
use crate::meta;
use crate::status::Status;

/// All terms must hold. Without any, everything matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// The form of the query parameter: `spec.nodeName=n1,status.phase!=Failed`; `\` escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = split(text)
            .iter()
            .filter(|term| !term.is_empty())
            .map(|term| parse_term(term))
            .collect();
        Ok(Self {
            terms: terms_or_error(terms, text)?,
        })
    }

    /// Refuses fields that this kind cannot be selected by.
    pub fn check(&self, kind: &Kind) -> Result<(), Status> {
        for term in &self.terms {
            let known = matches!(term.field.as_str(), "metadata.name" | "metadata.namespace")
                || kind.selectable.iter().any(|field| field.name == term.field);
            if !known {
                return Err(Status::unsupported_field_label(&term.field));
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one name that can match, if the selector asks for one.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.field == "metadata.name")
            .map(|t| t.value.as_str())
    }

    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let equal = match term.field.as_str() {
                "metadata.name" => meta::name(object) == term.value,
                "metadata.namespace" => meta::namespace(object) == term.value,
                name => kind
                    .selectable
                    .iter()
                    .any(|f| f.name == name && (f.get)(object) == term.value),
            };
            equal == term.equal
        })
    }
}

fn split(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, terms.last_mut()) {
            (',', _) => terms.push(String::new()),
            ('\\', Some(term)) => term.extend(std::iter::once('\\').chain(characters.next())),
            (c, Some(term)) => term.push(c),
            (_, None) => unreachable!("there is always a last term"),
        }
    }
    terms
}

fn parse_term(term: &str) -> Option<Term> {
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((field, value)) = term.split_once(operator) {
            return Some(Term {
                field: field.to_owned(),
                equal,
                value: unescape(value),
            });
        }
    }
    None
}

fn terms_or_error(terms: Vec<Option<Term>>, text: &str) -> Result<Vec<Term>, SelectorError> {
    let bad = || {
        SelectorError(format!(
            "invalid selector: '{text}'; can't understand '{text}'"
        ))
    };
    terms.into_iter().map(|term| term.ok_or_else(bad)).collect()
}

fn unescape(value: &str) -> String {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        text.push(if c == '\\' {
            characters.next().unwrap_or(c)
        } else {
            c
        });
    }
    text
}
