//! Builds the eBPF programs that this crate embeds; see `ebpf/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo runs it in the folder of the package.
    match seaway_ebpf_build::build_script(Path::new("../ebpf/programs"), "seaway") {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
