//! Processes of containers: started, adopted, stopped.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use seaway_kernel::{NetNs, Process, ProcessId, Signal, Spawn, cgroup};
use tracing::warn;

use crate::container::Launch;

/// How a process ended; nothing for one that was not our child.
pub type Ending = Option<ExitStatus>;

/// A running process of a container.
#[derive(Debug)]
pub struct Handle {
    process: Process,
    /// Ours to reap; none when an earlier agent started it.
    child: Option<Child>,
}

/// What became of a start.
#[derive(Debug)]
pub enum Started {
    Running(Handle),
    /// It ended before it could be looked at.
    Ended(Ending),
}

/// Starts a container in its namespace and cgroup; what an earlier attempt left in the cgroup is killed first.
pub fn start(
    launch: &Launch,
    netns: &NetNs,
    cgroup: &Path,
    log: &Path,
) -> Result<Started, seaway_kernel::Error> {
    cgroup::kill(cgroup)?;
    cgroup::create(cgroup)?;
    let mut spawn = Spawn::new(&launch.program)
        .args(&launch.args)
        .env_clear()
        .cwd(&launch.directory)
        .netns(netns)
        .cgroup(cgroup)
        .stdout(log)
        .stderr(log);
    for (name, value) in &launch.env {
        spawn = spawn.env(name, value);
    }
    let mut child = spawn.start()?;
    match Process::open(child.id())? {
        Some(process) => Ok(Started::Running(Handle {
            process,
            child: Some(child),
        })),
        None => Ok(Started::Ended(child.wait().ok())),
    }
}

/// Takes over a process that an earlier agent started; `None` if it has ended.
pub fn adopt(id: ProcessId) -> Result<Option<Handle>, seaway_kernel::Error> {
    Ok(Process::find(id)?.map(|process| Handle {
        process,
        child: None,
    }))
}

impl Handle {
    /// Identity, for the record.
    pub fn id(&self) -> ProcessId {
        self.process.id()
    }

    /// A function that asks the process to end (SIGTERM), for use while [`Handle::ended`] waits.
    pub fn terminator(&self) -> Result<Terminator, seaway_kernel::Error> {
        Ok(Terminator(Process::find(self.process.id())?))
    }

    /// Waits for the end, and reaps.
    pub async fn ended(self) -> Ending {
        if let Err(error) = self.process.exited().await {
            warn!("{error}");
        }
        // The pidfd is readable, so this does not block.
        self.child.and_then(|mut child| child.wait().ok())
    }
}

/// Asks one process to end; of no effect once it has.
#[derive(Debug)]
pub struct Terminator(Option<Process>);

impl Terminator {
    pub fn terminate(&self) -> Result<(), seaway_kernel::Error> {
        match &self.0 {
            Some(process) => process.signal(Signal::Terminate),
            None => Ok(()),
        }
    }
}

/// Exit code and signal as a container runtime reports them: 128 + signal for a killed process, and 137 when nobody
/// knows.
pub fn exit_code(ending: Ending) -> (i32, Option<i32>) {
    match ending {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (code, None),
            (None, Some(signal)) => (128 + signal, Some(signal)),
            (None, None) => (UNKNOWN_CODE, None),
        },
        None => (UNKNOWN_CODE, None),
    }
}

const UNKNOWN_CODE: i32 = 137;

/// The cgroup of a container, or of the whole Pod without a name.
pub fn cgroup_of(root: &Path, uid: &str, container: Option<&str>) -> PathBuf {
    let pod = root.join("pods").join(uid);
    match container {
        Some(name) => pod.join(name),
        None => pod,
    }
}

/// Whether a path is a file that may be run.
pub fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
