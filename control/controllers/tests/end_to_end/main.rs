//! The controllers against the real API server, in memory. Nodes and their agents are played by the test.

mod cluster;
mod deletion;
mod nodes;
mod workloads;
