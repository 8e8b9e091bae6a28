//! The controllers against the real API server, in memory. Nodes and their agents are played by the test.

#![expect(clippy::unwrap_used, reason = "a test fails at the line that is wrong")]

mod cluster;
mod deletion;
mod nodes;
mod workloads;
