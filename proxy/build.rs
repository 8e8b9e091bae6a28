//! Builds the eBPF programs that this crate embeds; see `ebpf/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf/programs");
    match seaway_ebpf_build::build_script(&programs, "seaway") {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
