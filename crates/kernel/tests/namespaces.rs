//! Namespaces, children and programs.

use std::process::id;
use std::time::{Duration, Instant};
use std::{fs, thread};

use seaway_kernel::{Command, CommandError, NetNs, Process, Signal, Spawn, cgroup, sysctl};

/// A named namespace that goes away with the test, also when it fails.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("sw-kernel-{what}-{}", id()))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.0);
    }
}

#[test]
fn a_named_namespace_is_created_listed_and_deleted() {
    let name = Named::new("named");
    let netns = NetNs::create(&name.0).unwrap();
    assert_eq!(
        netns.path().unwrap().to_str().unwrap(),
        format!("/run/netns/{}", name.0)
    );
    assert!(NetNs::list().unwrap().contains(&name.0));
    assert!(netns.is_same(&NetNs::named(&name.0).unwrap()).unwrap());
    assert!(NetNs::create(&name.0).unwrap_err().is_present());
    assert!(
        NetNs::named(&name.0).is_ok(),
        "the failed creation took the existing one away"
    );
    NetNs::delete(&name.0).unwrap();
    NetNs::delete(&name.0).unwrap();
    assert!(NetNs::named(&name.0).unwrap_err().is_absent());
    assert!(NetNs::named("../etc").is_err());
}

#[test]
fn many_namespaces_are_created_at_once() {
    let names: Vec<_> = (0..16).map(|n| Named::new(&format!("many{n}"))).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| NetNs::create(&name.0).unwrap());
        }
    });
    for name in &names {
        NetNs::named(&name.0).unwrap();
    }
}

#[test]
fn the_guard_returns_home() {
    let home = NetNs::current().unwrap();
    let other = NetNs::anonymous().unwrap();
    {
        let _inside = other.enter().unwrap();
        assert!(NetNs::current().unwrap().is_same(&other).unwrap());
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        assert!(!sysctl::write("net.ipv4.ip_forward", "1").unwrap());
        assert!(sysctl::write("net.ipv4.ip_forward", "0").unwrap());
    }
    assert!(NetNs::current().unwrap().is_same(&home).unwrap());
    let inside = other.run(|| NetNs::current().unwrap()).unwrap();
    assert!(inside.is_same(&other).unwrap());
    assert!(NetNs::current().unwrap().is_same(&home).unwrap());
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [file.path(), &pipe] {
        let error = NetNs::open(path).unwrap_err().to_string();
        assert!(error.contains("the file is not a namespace"), "{error}");
    }
}

/// Such as the lock under which a script starts us.
#[test]
fn a_child_has_none_of_the_files_that_were_left_open_for_us() {
    let dir = tempfile::tempdir().unwrap();
    let left_open = fs::File::create(dir.path().join("left-open")).unwrap();
    // A copy is not closed on exec.
    let _copy = nix::unistd::dup(&left_open).unwrap();
    let log = dir.path().join("log");
    let child = Spawn::new("sh")
        .args(["-c", "ls -l /proc/$$/fd; echo done"])
        .stdout(&log)
        .stderr(&log)
        .start();
    assert!(child.unwrap().wait().unwrap().success());
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("done") && said.contains("/log"), "{said}");
    assert!(!said.contains("left-open"), "{said}");
}

#[test]
fn a_child_starts_in_its_namespace_and_cgroup() {
    let netns = NetNs::anonymous().unwrap();
    let group = cgroup::mount_point()
        .unwrap()
        .join(format!("seaway-spawn-{}", id()));
    cgroup::create(&group).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let child = Spawn::new("sh")
        .args([
            "-c",
            "echo $WORD; pwd; cat /proc/self/cgroup; ls -Li /proc/self/ns/net; sleep 60",
        ])
        .env("WORD", "hello")
        .cwd("/usr")
        .netns(&netns)
        .cgroup(&group)
        .stdout(&log)
        .stderr(&log)
        .start();
    let mut child = child.unwrap();
    let process = Process::open(child.id()).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(&log).unwrap().contains("ns/net") {
        assert!(Instant::now() < deadline, "the child printed nothing");
        thread::sleep(Duration::from_millis(10));
    }
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.starts_with("hello\n/usr\n"), "{said}");
    assert!(said.contains(&format!("seaway-spawn-{}", id())), "{said}");
    assert!(cgroup::processes(&group).unwrap().contains(&child.id()));
    assert!(
        cgroup::delete(&group)
            .unwrap_err()
            .to_string()
            .contains(&child.id().to_string())
    );

    assert!(process.alive().unwrap());
    assert!(Process::find(process.id()).unwrap().is_some());
    cgroup::kill(&group).unwrap();
    assert!(cgroup::wait_empty(&group, Duration::from_secs(10)).unwrap());
    assert!(process.wait_exit(Duration::from_secs(10)).unwrap());
    child.wait().unwrap();
    process.signal(Signal::Terminate).unwrap();
    assert!(Process::find(process.id()).unwrap().is_none());
    cgroup::delete(&group).unwrap();
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let marker = format!("{}", 40_000 + id() % 10_000);
    let started = Instant::now();
    let error = Command::new("sh")
        .args(["-c", &format!("sleep {marker} & sleep {marker}")])
        .timeout(Duration::from_millis(200))
        .output()
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let left = Command::new("pgrep")
        .args(["-f", &format!("^sleep {marker}$")])
        .output();
    assert!(left.await.is_err(), "a child is left");
}

#[tokio::test]
async fn a_failing_program_is_quoted_and_a_missing_one_named() {
    let error = Command::new("sh")
        .args(["-c", "echo out; echo no such table >&2; exit 3"])
        .output()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`sh -c echo out; echo no such table >&2; exit 3` failed (exit status: 3): no such table"
    );
    let error = Command::new("no-such-program-here")
        .output()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no-such-program-here is not installed (not found in PATH)"
    );
}

#[tokio::test]
async fn input_is_fed_and_the_namespace_entered() {
    let netns = NetNs::anonymous().unwrap();
    let big = vec![b'x'; 1 << 20];
    let output = Command::new("cat")
        .stdin(big.clone())
        .output()
        .await
        .unwrap();
    assert_eq!(output.stdout, big);
    let links = Command::new("cat")
        .arg("/proc/self/net/dev")
        .netns(&netns)
        .output()
        .await
        .unwrap();
    assert_eq!(links.text().lines().count(), 3, "{}", links.text());
}
