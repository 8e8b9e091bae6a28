//! A full disk, and another boot.

use std::fs;
use std::path::PathBuf;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::support::{Namespace, Node, address, environment};

/// A small file system; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let options = Some("size=64k,nr_inodes=64");
        mount(Some("none"), &at, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        Self(at)
    }

    /// Takes all room and every file that there could be.
    fn fill(&self) -> usize {
        let mut files = 0;
        while fs::write(self.0.join(format!("fill{files}")), [0; 8192]).is_ok() {
            files += 1;
        }
        while fs::write(self.0.join(format!("empty{files}")), []).is_ok() {
            files += 1;
        }
        files
    }

    fn empty(&self) {
        for file in fs::read_dir(&self.0).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_add_fails_cleanly_and_del_succeeds() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let disk = SmallDisk::new(node.state_dir());
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    // Before there is any ledger.
    assert!(disk.fill() > 3);
    assert_eq!(node.add("one", &one).await.unwrap_err().0, 5);
    node.del("one", &one.path()).await.unwrap();
    disk.empty();
    let result = node.add("one", &one).await.unwrap();
    disk.fill();
    let (code, message) = node.add("two", &two).await.unwrap_err();
    assert_eq!(code, 5);
    assert!(message.contains("No space left"), "{message}");
    assert!(two.netlink().link("eth0").await.unwrap().is_none());
    assert_eq!(node.leases().await, [address(&result)]);
    node.check("one", &one, &result).await.unwrap();
    node.del("one", &one.path()).await.unwrap();
    assert_eq!(node.leases().await.len(), 0);
    disk.empty();
    let next = node.add("two", &two).await.unwrap();
    assert_ne!(address(&next), address(&result), "freed a moment ago");
}

/// Ids of other boots.
const BOOTS: [&str; 2] = [
    "9f94d7e0-7b6c-4ae4-a0e4-000000000001",
    "9f94d7e0-7b6c-4ae4-a0e4-000000000002",
];

/// Runs ADD as on a machine that was booted under another id.
fn add_after_reboot(node: &Node, id: &str, pod: &Namespace, boot: &str) -> Value {
    let file = node.state_dir().join("boot_id");
    fs::write(&file, format!("{boot}\n")).unwrap();
    let config = node.config("1.0.0").to_string();
    let input = node.state_dir().join("input");
    fs::write(&input, config).unwrap();
    let in_another_boot = || {
        // Nobody but this thread, and what it starts, sees the file.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let at = "/proc/sys/kernel/random/boot_id";
        mount(Some(&file), at, none, MsFlags::MS_BIND, none).unwrap();
        let _inside = node.space.netns.enter().unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
            .env_clear()
            .envs(environment("ADD", id, &pod.path()))
            .stdin(fs::File::open(&input).unwrap())
            .output()
            .unwrap()
    };
    let output = thread::scope(|scope| scope.spawn(in_another_boot).join().unwrap());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn after_a_reboot_every_address_is_free() {
    let node = Node::new(&["10.244.1.0/30"]).await;
    let pods: Vec<_> = (0..2).map(|_| Namespace::new("pod")).collect();
    for (id, pod) in ["a", "b"].iter().zip(&pods) {
        node.add(id, pod).await.unwrap();
    }
    let pod = Namespace::new("pod");
    assert_eq!(node.add("c", &pod).await.unwrap_err().0, 101);
    let result = add_after_reboot(&node, "c", &pod, BOOTS[0]);
    assert_eq!(address(&result).to_string(), "10.244.1.1");
    let ledgers: Vec<_> = fs::read_dir(node.state_dir().join("ipam/seaway"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(ledgers, [BOOTS[0]]);
}

/// Nothing of the ledger is forced to the disk: what a power cut may have torn belongs to a boot that is over. And if a file
/// of this boot is torn all the same, its address stays with whoever has it.
#[tokio::test]
async fn after_a_power_cut_no_address_is_used_twice() {
    let node = Node::new(&["10.244.1.0/29"]).await;
    let network = node.state_dir().join("ipam/seaway");
    let torn = [
        ("10.244.1.1@00000000001", ""),
        ("10.244.1.2@00000000002", "{\"containerID\": \"b\", \"ifna"),
        ("10.244.1.3@00000000003", "\0\0\0\0\0\0\0\0"),
        (".last.0", "10.244."),
        (".new", "{"),
        ("10.244.1.4~", ""),
    ];
    let boots = [(BOOTS[0], 0), (BOOTS[1], 1)];
    for (boot, from) in boots {
        fs::create_dir_all(network.join(boot)).unwrap();
        for (name, content) in &torn[from..] {
            fs::write(network.join(boot).join(name), content).unwrap();
        }
    }
    let pods: Vec<_> = (0..4).map(|_| Namespace::new("pod")).collect();
    let mut given: Vec<String> = Vec::new();
    for (id, pod) in ["a", "b", "c", "d"].iter().zip(&pods) {
        let result = add_after_reboot(&node, id, pod, BOOTS[1]);
        given.push(address(&result).to_string());
    }
    given.sort();
    // Of the boot before nothing counts; of this one .2 and .3 have owners, whatever stands in their files.
    let free = ["10.244.1.1", "10.244.1.4", "10.244.1.5", "10.244.1.6"];
    assert_eq!(given, free);
    assert!(!network.join(BOOTS[0]).exists());
    let pod = Namespace::new("pod");
    let full = add_after_reboot(&node, "e", &pod, BOOTS[1]);
    assert_eq!(full["code"], 101, "{full}");
}
