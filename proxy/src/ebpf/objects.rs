//! Loading: maps are created or adopted by their pins, programs go through the verifier.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp};
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
            fds.insert(name, load(&mut loaded, name, SchedClassifier::load)?);
        }
        for name in programs::SOCKET {
            fds.insert(name, load(&mut loaded, name, CgroupSockAddr::load)?);
        }
        let name = programs::XDP_UPLINK;
        fds.insert(name, load(&mut loaded, name, Xdp::load)?);
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

/// Has the kernel take a program by the `load` of its type.
fn load<P>(
    loaded: &mut Ebpf,
    name: &'static str,
    load: impl Fn(&mut P) -> Result<(), ProgramError>,
) -> Result<OwnedFd, EbpfError>
where
    for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let failed = |error: &dyn std::error::Error| EbpfError::load(format!("program {name}"), error);
    let program = loaded.program_mut(name).ok_or_else(|| absent(name))?;
    let typed = <&mut P>::try_from(&mut *program).map_err(|error| failed(&error))?;
    undisturbed(|| load(typed)).map_err(|error| failed(&error))?;
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
