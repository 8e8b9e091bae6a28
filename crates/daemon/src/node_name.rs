//! What a node is called when nobody says.

const FILE: &str = "/proc/sys/kernel/hostname";

/// The host name in lower case: the name that the kubelet gives its Node without `--hostname-override`.
///
/// # Errors
/// When /proc is not mounted.
pub fn host_name() -> std::io::Result<String> {
    let name = std::fs::read_to_string(FILE).map_err(|cause| {
        std::io::Error::new(cause.kind(), format!("cannot read {FILE}: {cause}"))
    })?;
    Ok(name.trim().to_lowercase())
}
