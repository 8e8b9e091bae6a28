//! Loading: maps are created or adopted by their pins, programs go through the verifier.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use seaway_ebpf_abi::shortcut::slots;
use seaway_ebpf_abi::{globals, maps, programs};

use super::config::MapSizes;
use super::error::EbpfError;
use super::sys;

/// Entries of `TALLIES`, whatever the number of frontends: far more than Services have series of their own.
const TALLIES_AT_LEAST: u32 = 131_072;

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
            // Of most frontends only flows are counted, of few a reason why not. It does not grow with the frontends: memory is
            // taken for those with traffic only.
            (
                maps::TALLIES,
                sizes.frontends.saturating_mul(2).max(TALLIES_AT_LEAST),
            ),
        ] {
            loader.map_max_entries(name, size);
        }
        let (entries, slots) = shortcuts(dir, sizes.flows)?;
        loader.map_max_entries(maps::SHORTCUTS, entries);
        loader.override_global(globals::SLOTS, &slots, true);
        let mut loaded = loader
            .load(OBJECT)
            .map_err(|error| EbpfError::load("the eBPF object", &error))?;
        let fds = load_all(&mut loaded)?;
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

/// How large the map of shortcuts is, or is to be, and how many of them each CPU has.
fn shortcuts(dir: &Path, flows: u32) -> Result<(u32, u32), EbpfError> {
    let name = maps::SHORTCUTS;
    let failed = |error| EbpfError::map("open", name, error);
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error))? as u32;
    let entries = match sys::open_pin(&dir.join(name)) {
        Ok(fd) => sys::map_info(fd.as_fd()).map_err(failed)?.max_entries,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((slots(flows, cpus) * cpus, slots(flows, cpus)));
        }
        Err(error) => return Err(failed(error)),
    };
    // Another number of CPUs than when it was made: their slots must not overlap.
    let each = (entries / cpus).checked_ilog2().map_or(1, |log| 1 << log);
    Ok((entries, each))
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

/// What the kernel is asked to take, the longest first: two threads share them.
fn names() -> Vec<&'static str> {
    let others = [programs::XDP_UPLINK].into_iter().chain(programs::SOCKET);
    programs::CLASSIFIERS.into_iter().chain(others).collect()
}

/// Has the kernel take all programs. It verifies those of several threads at the same time.
fn load_all(loaded: &mut Ebpf) -> Result<BTreeMap<&'static str, OwnedFd>, EbpfError> {
    let mut there: BTreeMap<&str, &mut Program> = loaded.programs_mut().collect();
    let mut due = Vec::new();
    for name in names() {
        due.push((name, there.remove(name).ok_or_else(|| absent(name))?));
    }
    due.reverse();
    let due = Mutex::new(due);
    let take = || due.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || -> Result<Vec<(&'static str, OwnedFd)>, EbpfError> {
        let mut done = Vec::new();
        while let Some((name, program)) = take() {
            done.push((name, load(name, program)?));
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut fds: BTreeMap<_, _> = work()?.into_iter().collect();
        match other.join() {
            Ok(theirs) => fds.extend(theirs?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(fds)
    })
}

/// Has the kernel take a program by the `load` of its type.
fn load(name: &'static str, program: &mut Program) -> Result<OwnedFd, EbpfError> {
    let failed = |error: &dyn std::error::Error| EbpfError::load(format!("program {name}"), error);
    undisturbed(|| match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    })
    .map_err(|error| failed(&error))?;
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
