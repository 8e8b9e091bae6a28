//! The server as clients meet it: raw requests, kube-rs informers, and a real kubectl.

mod allocation;
mod deletes;
mod informers;
mod kubectl;
mod reads;
mod security;
mod support;
mod watches;
mod writes;
