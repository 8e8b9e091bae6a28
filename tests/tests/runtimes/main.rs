//! Real container runtimes, from Debian's packages, over the plugin; and a runtime that is played.
//!
//! Reading order: [`image`], [`cri`], [`containerd`] → [`nodes`] (two nodes with one each), [`manifest`], [`deployed`] → [`podman`], [`driver`] (Debian's
//! libcni) → [`played`].

mod containerd;
mod cri;
mod deployed;
mod driver;
mod image;
mod manifest;
mod nodes;
mod played;
mod podman;
