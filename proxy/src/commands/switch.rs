//! `seaway-proxy switch`.

use crate::cli::SwitchArgs;
use crate::switch::control;

/// Asks the running daemon to change its mode and tells how it goes.
pub async fn switch(args: SwitchArgs) -> anyhow::Result<()> {
    let tell = |what: &str| println!("{what}");
    let done = control::ask(&args.run_dir, args.mode, tell).await?;
    println!("{done}");
    Ok(())
}
