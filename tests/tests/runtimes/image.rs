//! An image without a registry: Debian's static busybox in an OCI layout, as one tar archive.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Its name; no such registry exists, so no runtime can be waiting for one.
pub(crate) const IMAGE: &str = "seaway.invalid/busybox:1";

/// Debian's package `busybox-static`.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// Programs of it that tests call by name.
const APPLETS: [&str; 7] = ["sh", "httpd", "wget", "sleep", "ip", "cat", "hostname"];

/// Makes the archive in a directory.
pub(crate) fn build(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("rootfs");
    for directory in ["bin", "etc", "usr", "www", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    // A container that is given the machine's /usr finds its libraries.
    for directory in ["lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(directory), root.join(directory))?;
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox"))
        .with_context(|| format!("{BUSYBOX}: cargo xtask setup"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layer = dir.join("layer.tar");
    tar(&root, &layer)?;
    let layer = blob(&blobs, &std::fs::read(layer)?, "layer.v1.tar")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "86400"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(&blobs, config.to_string().as_bytes(), "config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media("manifest.v1+json"), "config": config, "layers": [layer],
    });
    let mut manifest = blob(&blobs, manifest.to_string().as_bytes(), "manifest.v1+json")?;
    // containerd and podman each have a key of their own.
    manifest["annotations"] = json!({
        "io.containerd.image.name": IMAGE,
        "org.opencontainers.image.ref.name": IMAGE,
    });
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string())?;
    let version = json!({"imageLayoutVersion": "1.0.0"});
    std::fs::write(layout.join("oci-layout"), version.to_string())?;
    let archive = dir.join("image.tar");
    tar(&layout, &archive)?;
    Ok(archive)
}

/// Writes a blob under the name of its content; answers its descriptor.
fn blob(blobs: &Path, content: &[u8], kind: &str) -> Result<Value> {
    let digest = HEXLOWER.encode(&Sha256::digest(content));
    std::fs::write(blobs.join(&digest), content)?;
    Ok(
        json!({"mediaType": media(kind), "digest": format!("sha256:{digest}"), "size": content.len()}),
    )
}

fn media(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}

fn tar(directory: &Path, archive: &Path) -> Result<()> {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--sort=name", "-cf"])
        .arg(archive)
        .arg("-C")
        .arg(directory)
        .arg(".")
        .status()
        .context("tar")?;
    ensure!(status.success(), "tar of {}", directory.display());
    Ok(())
}
