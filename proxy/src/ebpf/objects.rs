//! Loading: maps are created or adopted by their pins, programs go through the verifier.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::programs::{CgroupSockAddr, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use seaway_ebpf_abi::{maps, programs};

use super::config::MapSizes;
use super::error::EbpfError;

/// What `build.rs` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/seaway.o"));

/// Programs that the kernel has accepted. They live as long as this value or a link to them.
pub struct Programs {
    loaded: Ebpf,
    fds: BTreeMap<&'static str, OwnedFd>,
}

impl Programs {
    /// Loads all programs. Maps are pinned in `dir`; those that are there already are used with what they hold.
    ///
    /// # Errors
    ///
    /// If the kernel does not take a map or a program; with the verifier's log.
    pub fn load(dir: &Path, sizes: MapSizes) -> Result<Self, EbpfError> {
        let mut loader = EbpfLoader::new();
        for name in maps::ALL {
            loader.map_pin_path(name, dir.join(name));
        }
        for (name, size) in [
            (maps::FRONTENDS, sizes.frontends),
            (maps::BACKENDS, sizes.backends),
            (maps::MAGLEV, sizes.maglev),
            (maps::RANGES, sizes.ranges),
            (maps::AFFINITY, sizes.affinity),
            (maps::FLOWS, sizes.flows),
            (maps::SOCKETS_TCP, sizes.sockets),
            (maps::SOCKETS_UDP, sizes.sockets),
            (maps::STEADY, sizes.sockets),
            // Of most frontends only flows are counted, of few a reason why not.
            (maps::TALLIES, sizes.frontends.saturating_mul(2)),
        ] {
            loader.map_max_entries(name, size);
        }
        let mut loaded = loader
            .load(OBJECT)
            .map_err(|error| EbpfError::load("the eBPF object", &error))?;
        let mut fds = BTreeMap::new();
        for name in programs::CLASSIFIERS {
            fds.insert(name, classifier(&mut loaded, name)?);
        }
        for name in programs::SOCKET {
            fds.insert(name, socket_hook(&mut loaded, name)?);
        }
        let name = programs::XDP_UPLINK;
        fds.insert(name, xdp(&mut loaded, name)?);
        Ok(Self { loaded, fds })
    }

    /// The program of that name.
    pub(super) fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, EbpfError> {
        self.fds
            .get(name)
            .map(AsFd::as_fd)
            .ok_or_else(|| absent(name))
    }

    /// A classifier, for test runs and for attaching by filters.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, EbpfError> {
        self.loaded
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| absent(name))
    }

    /// An XDP program, for test runs.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp, EbpfError> {
        self.loaded
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| absent(name))
    }
}

fn absent(name: &str) -> EbpfError {
    EbpfError::Load {
        object: format!("program {name}"),
        reason: "the object does not contain it".to_owned(),
    }
}

/// Loads a program. The verifier gives up (`EAGAIN`) when a signal comes, such as that of a child's end.
fn undisturbed(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
    load()
}

/// Twice as often as libbpf.
const LOAD_ATTEMPTS: usize = 10;

fn classifier(loaded: &mut Ebpf, name: &'static str) -> Result<OwnedFd, EbpfError> {
    let failed = |error: &dyn std::error::Error| EbpfError::load(format!("program {name}"), error);
    let program: &mut SchedClassifier = loaded
        .program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error| failed(&error))?;
    undisturbed(|| program.load()).map_err(|error| failed(&error))?;
    let fd = program.fd().map_err(|error| failed(&error))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(&error))
}

fn xdp(loaded: &mut Ebpf, name: &'static str) -> Result<OwnedFd, EbpfError> {
    let failed = |error: &dyn std::error::Error| EbpfError::load(format!("program {name}"), error);
    let program: &mut Xdp = loaded
        .program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error| failed(&error))?;
    undisturbed(|| program.load()).map_err(|error| failed(&error))?;
    let fd = program.fd().map_err(|error| failed(&error))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(&error))
}

fn socket_hook(loaded: &mut Ebpf, name: &'static str) -> Result<OwnedFd, EbpfError> {
    let failed = |error: &dyn std::error::Error| EbpfError::load(format!("program {name}"), error);
    let program: &mut CgroupSockAddr = loaded
        .program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error| failed(&error))?;
    undisturbed(|| program.load()).map_err(|error| failed(&error))?;
    let fd = program.fd().map_err(|error| failed(&error))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_takes_every_program() {
        let dir = Path::new("/sys/fs/bpf").join(format!("seaway-load-{}", std::process::id()));
        super::super::bpffs::create_dir(&dir).expect("a BPF file system");
        let result = Programs::load(&dir, MapSizes::default());
        std::fs::remove_dir_all(&dir).expect("our own directory");
        if let Err(error) = result {
            panic!("{error}");
        }
    }
}
