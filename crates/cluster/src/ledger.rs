//! What a source has handed out, so that it can say what vanished while it was not looking.

use std::collections::{HashMap, HashSet};

use seaway_model::{Diagnostic, InputEvent};
use tracing::warn;

use crate::convert::{Conversion, ObjectRef};

/// Remembers which objects the consumer knows. After a relist nothing in the watch protocol names what has
/// been deleted meanwhile: the difference has to be taken here.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    known: HashSet<ObjectRef>,
    /// Objects seen since the list in progress began.
    listed: Option<HashSet<ObjectRef>>,
    /// Diagnostics last reported, only of objects that have any.
    reported: HashMap<ObjectRef, Vec<Diagnostic>>,
}

impl Ledger {
    /// A list begins (again).
    pub(crate) fn begin_list(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// Takes an object that was listed or has changed; the event to send, if the consumer needs one.
    pub(crate) fn take(&mut self, conversion: Conversion) -> Option<InputEvent> {
        self.report(&conversion.object, conversion.diagnostics.as_slice());
        if !conversion.is_present() {
            return self.remove(&conversion.object);
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(conversion.object.clone());
        }
        self.known.insert(conversion.object);
        Some(conversion.event)
    }

    /// An object is gone; the event to send if the consumer knew it.
    pub(crate) fn remove(&mut self, object: &ObjectRef) -> Option<InputEvent> {
        if let Some(listed) = &mut self.listed {
            listed.remove(object);
        }
        self.known.remove(object).then(|| object.deleted())
    }

    /// The list is complete: deletions of everything that it did not mention.
    pub(crate) fn end_list(&mut self) -> Vec<InputEvent> {
        let Some(listed) = self.listed.take() else {
            return Vec::new();
        };
        let gone: Vec<ObjectRef> = self.known.difference(&listed).cloned().collect();
        self.known = listed;
        self.reported
            .retain(|object, _| self.known.contains(object));
        gone.iter().map(ObjectRef::deleted).collect()
    }

    /// Logs what could not be used, once for each set of findings.
    fn report(&mut self, object: &ObjectRef, diagnostics: &[Diagnostic]) {
        if diagnostics.is_empty() {
            self.reported.remove(object);
            return;
        }
        if self.reported.get(object).is_some_and(|d| d == diagnostics) {
            return;
        }
        for diagnostic in diagnostics {
            warn!(%object, field = %diagnostic.field, "{}", diagnostic.consequence);
        }
        self.reported.insert(object.clone(), diagnostics.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use seaway_model::Node;

    use super::*;

    fn node(name: &str) -> Conversion {
        let node = Node {
            name: name.into(),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            zone: None,
            draining: false,
        };
        Conversion {
            object: ObjectRef::Node(name.into()),
            event: InputEvent::Node(name.into(), Some(node)),
            diagnostics: Vec::new(),
        }
    }

    fn gone(name: &str) -> InputEvent {
        InputEvent::Node(name.into(), None)
    }

    #[test]
    fn a_relist_deletes_what_it_does_not_mention() {
        let mut ledger = Ledger::default();
        ledger.begin_list();
        ledger.take(node("a"));
        ledger.take(node("b"));
        assert_eq!(ledger.end_list(), []);
        ledger.take(node("c"));
        ledger.begin_list();
        ledger.take(node("b"));
        let mut deleted = ledger.end_list();
        deleted.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(deleted, [gone("a"), gone("c")]);
        assert_eq!(ledger.end_list(), []);
    }

    #[test]
    fn an_interrupted_list_counts_for_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin_list();
        ledger.take(node("a"));
        ledger.begin_list();
        ledger.take(node("b"));
        assert_eq!(ledger.end_list(), [gone("a")]);
    }

    #[test]
    fn what_was_never_ours_is_not_deleted() {
        let mut ledger = Ledger::default();
        let mut foreign = node("a");
        foreign.event = gone("a");
        assert_eq!(ledger.take(foreign.clone()), None);
        assert_eq!(ledger.remove(&foreign.object), None);
        assert!(ledger.take(node("a")).is_some());
        assert_eq!(ledger.take(foreign), Some(gone("a")));
    }
}
