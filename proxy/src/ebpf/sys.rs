//! `bpf(2)` as far as aya has no API for it: maps in batches, links by what they are attached to.
//!
//! Every attribute struct is the beginning of the kernel's `union bpf_attr` for its command; the kernel takes what is
//! missing at the end as zero.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const MAP_DELETE_BATCH: libc::c_int = 27;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `enum bpf_attach_type`: where a link attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub(super) enum AttachType {
    Inet4Connect = 10,
    Inet6Connect = 11,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Inet4Getpeername = 29,
    Inet6Getpeername = 30,
    TcxIngress = 46,
    TcxEgress = 47,
    Xdp = 37,
}

/// Calls `bpf(2)`.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a `repr(C)` struct that begins like `union bpf_attr` does for this command, and the size given
    // is its size; addresses in it point to buffers that the caller keeps alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor; nobody else knows it. Descriptors fit an int.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        ..ObjAttr::default()
    };
    bpf(OBJ_GET, &mut attr).map(owned)
}

/// Pins a map, a program or a link at a path.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut value = T::default();
    let mut attr = InfoAttr {
        fd: raw(fd),
        len: size_of::<T>() as u32,
        info: &raw mut value as u64,
    };
    bpf(OBJ_GET_INFO, &mut attr)?;
    Ok(value)
}

/// `struct bpf_map_info`, its beginning.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MapInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

pub(super) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

/// The memory of a map in bytes, as the kernel accounts for it; `None` where it does not say.
pub(super) fn map_memory(fd: BorrowedFd<'_>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Creates an empty map like another one, but of that size.
pub(super) fn map_create_like(info: &MapInfo, max_entries: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr {
        kind: info.kind,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries,
        flags: info.flags,
        name: info.name,
        ..MapCreateAttr::default()
    };
    bpf(MAP_CREATE, &mut attr).map(owned)
}

/// `struct bpf_link_info`, as far as our three kinds of links use it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    target: [u32; 4],
}

/// A link, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) id: u32,
    pub(super) program: u32,
    pub(super) target: LinkTarget,
}

/// What a link is attached to; 0 stands for a target that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkTarget {
    Cgroup(u64),
    Interface(u32),
    Other,
}

const LINK_CGROUP: u32 = 3;
const LINK_XDP: u32 = 6;
const LINK_TCX: u32 = 11;

pub(super) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let raw: RawLinkInfo = info(fd)?;
    let [a, b, ..] = raw.target;
    let target = match raw.kind {
        LINK_CGROUP => {
            let (a, b) = (a.to_ne_bytes(), b.to_ne_bytes());
            LinkTarget::Cgroup(u64::from_ne_bytes([
                a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3],
            ]))
        }
        LINK_TCX | LINK_XDP => LinkTarget::Interface(a),
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo {
        id: raw.id,
        program: raw.program,
        target,
    })
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// Attaches a program to a cgroup (a descriptor) or an interface (an index in the calling thread's namespace).
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: raw(program),
        target,
        attach_type: attach_type as u32,
        flags,
        ..LinkCreateAttr::default()
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Attaches an XDP program to an interface of the calling thread's namespace, with `XDP_FLAGS_*`.
pub(super) fn link_create_xdp(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: raw(program),
        target: ifindex,
        attach_type: AttachType::Xdp as u32,
        flags,
        ..LinkCreateAttr::default()
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// The target of a cgroup link.
pub(super) fn cgroup_target(cgroup: &impl AsFd) -> u32 {
    raw(cgroup.as_fd())
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Puts another program behind a link, atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: raw(link),
        program: raw(program),
        ..LinkUpdateAttr::default()
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link at once, whoever else holds it.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [raw(link), 0];
    bpf(LINK_DETACH, &mut attr).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Room for the programs at one hook; the kernel allows 64 (`BPF_MPROG_MAX`).
const QUERY_MAX: usize = 64;

/// The ids of the links at an interface's tcx hook.
pub(super) fn tcx_links(ifindex: u32, attach_type: AttachType) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; QUERY_MAX];
    let mut links = [0_u32; QUERY_MAX];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type: attach_type as u32,
        program_ids: programs.as_mut_ptr() as u64,
        count: QUERY_MAX as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(links
        .into_iter()
        .take(attr.count as usize)
        .filter(|id| *id != 0)
        .collect())
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element<K, V>(map: BorrowedFd<'_>, key: &K, value: *mut V) -> ElementAttr {
    ElementAttr {
        map: raw(map),
        key: std::ptr::from_ref(key) as u64,
        value: value as u64,
        ..ElementAttr::default()
    }
}

/// Reads an element. `K` and `V` have the sizes of the map's keys and values (for a per-CPU map: of all CPUs').
pub(super) fn map_lookup<K, V>(map: BorrowedFd<'_>, key: &K, value: &mut [V]) -> io::Result<()> {
    let mut attr = element(map, key, value.as_mut_ptr());
    bpf(MAP_LOOKUP, &mut attr).map(drop)
}

pub(super) fn map_update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = element(map, key, std::ptr::from_ref(value).cast_mut());
    bpf(MAP_UPDATE, &mut attr).map(drop)
}

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// Writes an element unless there is one (`EEXIST`).
pub(super) fn map_insert<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = element(map, key, std::ptr::from_ref(value).cast_mut());
    attr.flags = NO_EXIST;
    bpf(MAP_UPDATE, &mut attr).map(drop)
}

/// Writes an element of a per-CPU map of words: one for each possible CPU.
pub(super) fn map_update_all<K>(map: BorrowedFd<'_>, key: &K, values: &[u64]) -> io::Result<()> {
    let mut attr = element(map, key, values.as_ptr().cast_mut());
    bpf(MAP_UPDATE, &mut attr).map(drop)
}

pub(super) fn map_delete<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = element(map, key, std::ptr::null_mut::<u8>());
    bpf(MAP_DELETE, &mut attr).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes many elements in one call.
pub(super) fn map_update_batch<K, V>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map: raw(map),
        ..BatchAttr::default()
    };
    bpf(MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Deletes elements until one is missing; returns how many were deleted, and whether one was missing.
pub(super) fn map_delete_batch<K>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<(usize, bool)> {
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        count: keys.len() as u32,
        map: raw(map),
        ..BatchAttr::default()
    };
    match bpf(MAP_DELETE_BATCH, &mut attr) {
        Ok(_) => Ok((keys.len(), false)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((attr.count as usize, true)),
        Err(error) => Err(error),
    }
}

/// Where a batched reading stands: a bucket of a hash table, or the last key of a trie.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor(Option<[u64; CURSOR_WORDS]>);

/// Room for the longest key that is read in batches.
const CURSOR_WORDS: usize = 8;

/// Fills `keys` and `values` from where `cursor` stands. Returns how many elements it read, and whether they were the
/// last. `ENOSPC` means that the buffers are smaller than one bucket of the hash table.
pub(super) fn map_lookup_batch<K, V>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    const { assert!(size_of::<K>() <= size_of::<[u64; CURSOR_WORDS]>()) };
    let mut position = cursor.0.unwrap_or_default();
    let mut next = [0_u64; CURSOR_WORDS];
    let mut attr = BatchAttr {
        in_batch: cursor.0.map_or(0, |_| &raw mut position as u64),
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map: raw(map),
        ..BatchAttr::default()
    };
    let last = match bpf(MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    cursor.0 = Some(next);
    Ok((attr.count as usize, last))
}

/// The beginning of `union bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct ProgramAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

const PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const CGROUP_SOCK_ADDR: u32 = 18;
/// `r0 = 1` and `exit`, as `struct bpf_insn`.
const ALLOW: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Whether the kernel takes programs for that hook of sockets.
pub(super) fn has_socket_hook(hook: AttachType) -> io::Result<bool> {
    let license = c"Dual MIT/GPL";
    let mut attr = ProgramAttr {
        kind: CGROUP_SOCK_ADDR,
        count: ALLOW.len() as u32,
        instructions: ALLOW.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: hook as u32,
        ..ProgramAttr::default()
    };
    match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => {
            drop(owned(fd));
            Ok(true)
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub(super) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
