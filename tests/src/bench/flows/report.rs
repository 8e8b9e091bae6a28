//! What came of flows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Of any number of flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub flows: usize,
    /// Messages that were sent, each with a number of its own.
    pub messages: u64,
    /// Bytes that came back as they were sent.
    pub bytes: u64,
    /// Bytes that did not.
    pub lost_bytes: u64,
    /// Flows that ended by an error, or before they were told to.
    pub broken: usize,
    /// Flows that were answered by another backend than at first.
    pub changed: usize,
    /// The longest that a flow waited for an answer but its first, for which neighbours have to be found.
    pub longest_ms: u64,
    /// What happened, by how often.
    pub problems: BTreeMap<String, usize>,
}

impl Report {
    /// Takes another in.
    pub fn add(&mut self, other: Self) {
        self.flows += other.flows;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.lost_bytes += other.lost_bytes;
        self.broken += other.broken;
        self.changed += other.changed;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        for (problem, count) in other.problems {
            *self.problems.entry(problem).or_default() += count;
        }
    }

    /// Nothing happened to any flow.
    pub fn is_whole(&self) -> bool {
        self.lost_bytes == 0 && self.broken == 0 && self.changed == 0
    }

    /// Notes a problem.
    pub fn note(&mut self, problem: impl Into<String>) {
        *self.problems.entry(problem.into()).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flows,
            messages,
            bytes,
            lost_bytes,
            broken,
            changed,
            longest_ms,
            problems,
        } = self;
        write!(
            f,
            "{flows} flows, {messages} messages, {bytes} bytes; {lost_bytes} bytes lost, {broken} broken, {changed} \
             changed; longest wait {longest_ms} ms"
        )?;
        for (problem, count) in problems.iter().take(20) {
            write!(f, "\n    {count} x {problem}")?;
        }
        Ok(())
    }
}
