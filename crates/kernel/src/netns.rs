//! Network namespaces: named ones as `ip netns` makes them, and a guard to be inside of one.

mod machine;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io, thread};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Netlink};

pub use machine::{Place, places};

/// Where `ip netns` keeps its named namespaces.
const NAMED: &str = "/run/netns";

/// The calling thread's own namespace (not the process leader's: threads differ).
const OWN: &str = "/proc/thread-self/ns/net";

/// An open handle on a network namespace; it keeps the namespace alive. Cheap to clone.
#[derive(Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
    path: Option<Arc<Path>>,
}

impl NetNs {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        let file = File::open(OWN).map_err(|e| Error::io("open", OWN, e))?;
        Ok(Self {
            fd: Arc::new(file.into()),
            path: None,
        })
    }

    /// Opens a namespace by a path: a bind mount, or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let object = || format!("network namespace {}", path.display());
        // A named pipe would have us wait for who writes into it.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path);
        let file = opened.map_err(|e| Error::io("open", object(), e))?;
        // Opening a regular file works too; setns would then fail much later with a bare EINVAL.
        let magic = nix::sys::statfs::fstatfs(&file)
            .map_err(|e| Error::io("open", object(), e))?
            .filesystem_type();
        if magic != nix::sys::statfs::FsType(nix::libc::NSFS_MAGIC as _) {
            return Err(Error::Invalid {
                object: object(),
                reason: "the file is not a namespace (was it deleted?)".into(),
            });
        }
        Ok(Self {
            fd: Arc::new(file.into()),
            path: Some(path.into()),
        })
    }

    /// Opens `/run/netns/NAME`.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::open(&named_path(name)?)
    }

    /// Creates `/run/netns/NAME` as `ip netns add` does, and sets its loopback link up. Fails if it exists. Any
    /// number of processes may do this at once.
    pub fn create(name: &str) -> Result<Self, Error> {
        let path = named_path(name)?;
        let object = || format!("network namespace {name}");
        prepare_directory()?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::io("create", object(), e))?;
        let made = on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::io("create", object(), e))?;
            mount(
                Some(OWN),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|e| Error::io("mount", object(), e))?;
            loopback_up()
        })
        .and_then(|inner| inner)
        .and_then(|()| Self::open(&path));
        if made.is_err() {
            // The first error is the one that matters; what is half made goes away.
            let _ = remove(&path);
        }
        made
    }

    /// A new namespace without a name: it is gone with the last handle, link and process. Loopback is up.
    pub fn anonymous() -> Result<Self, Error> {
        on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::io("create", "network namespace", e))?;
            loopback_up()?;
            Self::current()
        })?
    }

    /// Deletes `/run/netns/NAME` as `ip netns del` does; it is fine if there is none. The namespace itself lives on
    /// as long as a process or a handle is in it.
    pub fn delete(name: &str) -> Result<(), Error> {
        let path = named_path(name)?;
        remove(&path).map_err(|e| Error::io("delete", format!("network namespace {name}"), e))
    }

    /// The names in `/run/netns`, sorted.
    pub fn list() -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(NAMED) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("list", NAMED, e)),
        };
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| Error::io("list", NAMED, e))?;
        names.sort();
        Ok(names)
    }

    /// Moves the calling thread into the namespace until the guard is dropped. Do not hold it across an `await`: the
    /// guard is not `Send`, so that a multi-threaded runtime refuses it.
    pub fn enter(&self) -> Result<NetNsGuard, Error> {
        let home = Self::current()?;
        self.set()?;
        Ok(NetNsGuard {
            home,
            _this_thread: PhantomData,
        })
    }

    /// Runs `f` inside the namespace on a fresh thread, and waits for it. A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_fresh_thread(|| {
            self.set()?;
            Ok(f())
        })?
    }

    /// Where it was opened from; none for [`NetNs::current`].
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether both handles mean the same namespace.
    pub fn is_same(&self, other: &Self) -> Result<bool, Error> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Device and inode number: no other namespace has both while this one is there.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        let stat =
            nix::sys::stat::fstat(self).map_err(|e| Error::io("examine", self.to_string(), e))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn set(&self) -> Result<(), Error> {
        setns(self, CloneFlags::CLONE_NEWNET).map_err(|e| Error::io("enter", self.to_string(), e))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "network namespace {}", path.display()),
            None => f.write_str("own network namespace"),
        }
    }
}

impl fmt::Debug for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetNs({self})")
    }
}

/// The calling thread is in another namespace while this lives.
#[derive(Debug)]
#[must_use = "the namespace is left again when the guard is dropped"]
pub struct NetNsGuard {
    home: NetNs,
    /// Makes it `!Send`: it must be dropped on the thread that entered.
    _this_thread: PhantomData<*const ()>,
}

impl Drop for NetNsGuard {
    fn drop(&mut self) {
        // Going on in the wrong namespace would change links and rules of another machine.
        if let Err(error) = self.home.set() {
            panic!("cannot return to the namespace of this thread: {error}");
        }
    }
}

fn named_path(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') || name.len() > 255 {
        return Err(Error::Invalid {
            object: format!("namespace name {name:?}"),
            reason: "it must be a plain file name".into(),
        });
    }
    Ok(Path::new(NAMED).join(name))
}

/// Makes `/run/netns` a shared mount, as iproute2 does, so that a namespace deleted here is gone in every mount
/// namespace. A file lock serialises it: two bind mounts at once would stack.
fn prepare_directory() -> Result<(), Error> {
    fs::create_dir_all(NAMED).map_err(|e| Error::io("create", NAMED, e))?;
    let lock = File::open(NAMED).map_err(|e| Error::io("open", NAMED, e))?;
    lock.lock().map_err(|e| Error::io("lock", NAMED, e))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(Some(""), NAMED, Some("none"), flags, None::<&str>)
    };
    if share().is_err() {
        // Not a mount point yet.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(NAMED), NAMED, Some("none"), flags, None::<&str>)
            .map_err(|e| Error::io("bind", NAMED, e))?;
        share().map_err(|e| Error::io("share", NAMED, e))?;
    }
    Ok(())
}

fn loopback_up() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("start", "runtime", e))?;
    runtime.block_on(async { Netlink::new()?.set_up(1).await })
}

fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: not a mount point, the left-over of an interrupted creation.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn on_fresh_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)
            .map_err(|e| Error::io("start", "namespace thread", e))?;
        worker
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
    })
}
