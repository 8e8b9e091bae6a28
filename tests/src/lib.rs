//! What the demo, the benchmarks and the end-to-end suites share; the suites themselves are in `tests/tests`, one file a subject.
//!
//! Reading order: [`require`] (needs are declared), [`fixture`] (a lab for a test, and its diagnosis), [`workload`]
//! (the manifests), [`reach`] (who answers whom), [`trace`] (what is on the machine, before and after),
//! [`runtimes`] (playing a container runtime).

pub mod bench;
pub mod fixture;
pub mod http;
pub mod reach;
pub mod require;
pub mod runtimes;
pub mod trace;
pub mod workload;
