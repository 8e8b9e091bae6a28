//! The subcommands: each puts a data plane, a source and the reconcile loop together.

mod check;
mod cleanup;
mod flows;
mod inspect;
mod reload;
mod run;
mod serve;
mod setup;
mod switch;

pub use check::check;
pub use cleanup::cleanup;
pub use flows::flows;
pub use inspect::{dump, explain, plan};
pub use run::run;
pub use switch::switch;
