//! What a source has handed out, so that it can say what vanished while it was not looking.

use std::collections::{BTreeMap, HashMap, HashSet};

use seaway_model::{Diagnostic, InputEvent, Kind, pack};

use crate::convert::{Conversion, ObjectRef};

/// Remembers which objects the consumer knows. After a relist nothing in the watch protocol names what has
/// been deleted meanwhile: the difference has to be taken here.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// With the number of the list that was in progress when each was last seen, or the last one. Not a hash table, of
    /// which a third or more would be empty.
    known: BTreeMap<ObjectRef, u32>,
    /// Lists that have begun.
    lists: u32,
    /// Diagnostics last reported, only of objects that have any; the consumer may not know the object.
    reported: HashMap<ObjectRef, Vec<Diagnostic>>,
    /// Objects with diagnostics, seen since the list in progress began.
    faulty: Option<HashSet<ObjectRef>>,
}

impl Ledger {
    /// A list begins (again).
    pub(crate) fn begin_list(&mut self) {
        self.lists = self.lists.wrapping_add(1);
        self.faulty = Some(HashSet::new());
    }

    /// Takes an object that was listed or has changed; the events to send, if the consumer needs any.
    pub(crate) fn take(
        &mut self,
        conversion: Conversion,
    ) -> impl Iterator<Item = InputEvent> + use<> {
        let findings = self.report(&conversion.object, &conversion.diagnostics);
        let event = if conversion.is_present() {
            self.known.insert(conversion.object, self.lists);
            Some(conversion.event)
        } else {
            self.forget(&conversion.object)
        };
        event.into_iter().chain(findings)
    }

    /// An object is gone; the events to send if the consumer knew of it.
    pub(crate) fn remove(
        &mut self,
        object: &ObjectRef,
    ) -> impl Iterator<Item = InputEvent> + use<> {
        let findings = self.report(object, &[]);
        self.forget(object).into_iter().chain(findings)
    }

    /// The list is complete: the end of everything that it did not mention.
    pub(crate) fn end_list(&mut self) -> Vec<InputEvent> {
        let Some(faulty) = self.faulty.take() else {
            return Vec::new();
        };
        let mut events = Vec::new();
        self.known.retain(|object, seen| {
            let present = *seen == self.lists;
            if !present {
                events.push(object.deleted());
            }
            present
        });
        pack(&mut self.known);
        let told = self.reported.keys();
        let settled: Vec<ObjectRef> = told
            .filter(|object| !faulty.contains(object))
            .cloned()
            .collect();
        events.extend(settled.iter().filter_map(|object| self.report(object, &[])));
        events
    }

    fn forget(&mut self, object: &ObjectRef) -> Option<InputEvent> {
        self.known.remove(object).map(|_| object.deleted())
    }

    /// What could not be used, once for each set of findings.
    fn report(&mut self, object: &ObjectRef, diagnostics: &[Diagnostic]) -> Option<InputEvent> {
        if let Some(faulty) = &mut self.faulty
            && !diagnostics.is_empty()
        {
            faulty.insert(object.clone());
        }
        let known = self.reported.get(object);
        if known.map_or(&[][..], Vec::as_slice) == diagnostics {
            return None;
        }
        if diagnostics.is_empty() {
            self.reported.remove(object);
        } else {
            self.reported.insert(object.clone(), diagnostics.to_vec());
        }
        let kind = match object {
            ObjectRef::Service(_) => Kind::Service,
            ObjectRef::Slice(_) => Kind::Slice,
            ObjectRef::Node(_) => Kind::Node,
        };
        let findings = diagnostics.to_vec();
        Some(InputEvent::Findings(kind, object.key(), findings))
    }
}

#[cfg(test)]
mod tests {
    use seaway_model::{DirectAnswers, Node, ObjectKey};

    use super::*;

    fn node(name: &str) -> Conversion {
        let node = Node {
            name: name.into(),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            zone: None,
            draining: false,
            direct_answers: DirectAnswers::No,
        };
        Conversion {
            object: ObjectRef::Node(name.into()),
            event: InputEvent::Node(name.into(), Some(node)),
            diagnostics: Vec::new(),
        }
    }

    fn take(ledger: &mut Ledger, conversion: Conversion) -> Vec<InputEvent> {
        ledger.take(conversion).collect()
    }

    /// A slice that nobody can use, and as many words about it.
    fn faulty(name: &str, words: &[&str]) -> Conversion {
        let key = ObjectKey::new("default", name);
        Conversion {
            object: ObjectRef::Slice(key.clone()),
            event: InputEvent::Slice(key, None),
            diagnostics: words.iter().map(|word| finding(name, word)).collect(),
        }
    }

    fn finding(name: &str, word: &str) -> Diagnostic {
        Diagnostic {
            object: ObjectKey::new("default", name),
            field: "addressType".to_owned(),
            consequence: word.to_owned(),
        }
    }

    fn found(name: &str, words: &[&str]) -> InputEvent {
        let key = ObjectKey::new("default", name);
        let findings = words.iter().map(|word| finding(name, word)).collect();
        InputEvent::Findings(Kind::Slice, key, findings)
    }

    fn gone(name: &str) -> InputEvent {
        InputEvent::Node(name.into(), None)
    }

    #[test]
    fn a_relist_deletes_what_it_does_not_mention() {
        let mut ledger = Ledger::default();
        ledger.begin_list();
        take(&mut ledger, node("a"));
        take(&mut ledger, node("b"));
        assert_eq!(ledger.end_list(), []);
        take(&mut ledger, node("c"));
        ledger.begin_list();
        take(&mut ledger, node("b"));
        let mut deleted = ledger.end_list();
        deleted.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(deleted, [gone("a"), gone("c")]);
        assert_eq!(ledger.end_list(), []);
    }

    #[test]
    fn an_interrupted_list_counts_for_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin_list();
        take(&mut ledger, node("a"));
        ledger.begin_list();
        take(&mut ledger, node("b"));
        assert_eq!(ledger.end_list(), [gone("a")]);
    }

    #[test]
    fn what_was_never_ours_is_not_deleted() {
        let mut ledger = Ledger::default();
        let mut foreign = node("a");
        foreign.event = gone("a");
        assert_eq!(take(&mut ledger, foreign.clone()), []);
        assert_eq!(ledger.remove(&foreign.object).next(), None);
        assert_eq!(take(&mut ledger, node("a")).len(), 1);
        assert_eq!(take(&mut ledger, foreign), [gone("a")]);
    }

    #[test]
    fn findings_are_told_once_and_taken_back_when_they_are_settled() {
        let mut ledger = Ledger::default();
        ledger.begin_list();
        let first = found("a", &["odd"]);
        assert_eq!(take(&mut ledger, faulty("a", &["odd"])), [first]);
        assert_eq!(take(&mut ledger, faulty("a", &["odd"])), []);
        let more = found("a", &["odd", "bad"]);
        assert_eq!(take(&mut ledger, faulty("a", &["odd", "bad"])), [more]);
        assert_eq!(take(&mut ledger, faulty("b", &["odd"])).len(), 1);
        assert_eq!(ledger.end_list(), []);
        assert_eq!(take(&mut ledger, faulty("a", &[])), [found("a", &[])]);
        assert_eq!(take(&mut ledger, faulty("a", &[])), []);

        // Still there in the next list, then not.
        ledger.begin_list();
        assert_eq!(take(&mut ledger, faulty("b", &["odd"])), []);
        assert_eq!(ledger.end_list(), []);
        ledger.begin_list();
        assert_eq!(ledger.end_list(), [found("b", &[])]);

        assert_eq!(take(&mut ledger, faulty("c", &["odd"])).len(), 1);
        let mut broken = node("n1");
        broken.diagnostics = vec![finding("n1", "odd")];
        let told = take(&mut ledger, broken);
        let key = ObjectKey::new("", "n1");
        let finds = InputEvent::Findings(Kind::Node, key, vec![finding("n1", "odd")]);
        assert_eq!(told[1..], [finds]);

        let reference = faulty("c", &[]).object;
        let taken_back: Vec<_> = ledger.remove(&reference).collect();
        assert_eq!(taken_back, [found("c", &[])]);
    }
}
