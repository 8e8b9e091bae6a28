//! One Pod: what should happen (pure) and the task that makes it happen.
//!
//! Reading order: [`facts`] → [`view`] → [`machine`] (what to do next) and [`status`] (what to tell the API) →
//! [`task`], the shell around them.

pub mod backoff;
pub mod facts;
pub mod machine;
pub mod status;
pub mod task;
pub mod view;
