//! Who carries which ports.

use std::collections::BTreeSet;

use seaway_model::{Change, Desired, ObjectKey, PortRule, Protocol, ServiceRules};

#[cfg(test)]
mod tests;

/// The ports of a Service that the programs carry, and those that netfilter does.
pub fn split(rules: &ServiceRules) -> (Vec<&PortRule>, Vec<&PortRule>) {
    rules.ports.iter().partition(|rule| match rule.protocol {
        Protocol::Tcp | Protocol::Udp => true,
        Protocol::Sctp => false,
    })
}

/// Netfilter's part of all Services, and what of it has changed. Pure; a change costs what it touches.
#[derive(Debug, Default)]
pub struct Share {
    desired: Desired,
    due: Option<Change>,
}

impl Share {
    /// Of all Services at once.
    pub fn of(desired: &Desired) -> Desired {
        let mut share = Self::default();
        share.update(desired, &Change::Full);
        share.desired
    }

    /// Takes in what is wanted of these Services.
    pub fn update(&mut self, desired: &Desired, change: &Change) {
        let keys: BTreeSet<ObjectKey> = match change {
            Change::Services(keys) => keys.clone(),
            Change::Full => self
                .desired
                .keys()
                .into_iter()
                .chain(desired.keys())
                .collect(),
        };
        let mut changed = BTreeSet::new();
        for key in keys {
            let after = desired.services.get(&key).and_then(part);
            if self.desired.services.get(&key) == after.as_ref() {
                continue;
            }
            match after {
                Some(rules) => self.desired.services.insert(key.clone(), rules),
                None => self.desired.services.remove(&key),
            };
            changed.insert(key);
        }
        if changed.is_empty() {
            return;
        }
        self.due = match self.due.take() {
            Some(Change::Full) => Some(Change::Full),
            Some(Change::Services(before)) => Some(Change::Services(
                before.into_iter().chain(changed).collect(),
            )),
            None => Some(Change::Services(changed)),
        };
    }

    /// Everything has to be compared with the kernel.
    pub fn everything(&mut self) {
        self.due = Some(Change::Full);
    }

    /// What is wanted, and what of it has changed since this was asked last.
    pub fn take(&mut self) -> (Desired, Option<Change>) {
        (self.desired.clone(), self.due.take())
    }

    /// What is wanted.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }
}

/// Netfilter's part of a Service; `None` if there is none.
fn part(rules: &ServiceRules) -> Option<ServiceRules> {
    let (_, ports) = split(rules);
    (!ports.is_empty()).then(|| ServiceRules {
        ports: ports.into_iter().cloned().collect(),
        ..ServiceRules::default()
    })
}
