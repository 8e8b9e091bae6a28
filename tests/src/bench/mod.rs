//! What `seaway-bench` measures: figures as values, one file a scenario.
//!
//! Reading order: [`statistics`] (pure) → [`figure`] (what is reported, and how it is shown) → [`stage`] (progress,
//! machine, the lab that is always taken away) → the scenarios: [`walkthrough`] (with [`scale_up`] and [`first_answer`]),
//! [`cni`] (with [`plugin`]), [`overlay`], [`mesh`] (with [`server`]), [`programming`] and [`datapath`] (with [`node_port`], [`frames`] and [`one_node`]), [`packet`], [`switch`]
//! and [`restart`] (with [`flows`]) → [`plot`] (figures as a picture).

pub mod cni;
pub mod datapath;
pub mod figure;
pub mod first_answer;
pub mod flows;
mod frames;
pub mod mesh;
pub mod node_port;
pub mod one_node;
pub mod overlay;
pub mod packet;
pub mod plot;
pub mod plugin;
pub mod programming;
pub mod restart;
pub mod scale_up;
pub mod server;
pub mod stage;
pub mod statistics;
pub mod switch;
pub mod walkthrough;

pub use figure::{Figure, Figures, Unit};
pub use stage::Stage;
