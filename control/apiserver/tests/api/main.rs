//! The server as clients meet it: raw requests, kube-rs informers, and a real kubectl.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod allocation;
mod deletes;
mod informers;
mod kubectl;
mod logs;
mod reads;
mod security;
mod support;
mod watches;
mod wording;
mod writes;
