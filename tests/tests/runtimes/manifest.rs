//! What kubelet asks a runtime for when it runs the pod of a DaemonSet of `deploy/`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, ContainerConfig, KeyValue, LinuxContainerConfig, LinuxContainerSecurityContext,
    Mount, MountPropagation, NamespaceMode, NamespaceOption, SecurityProfile,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, SecurityContext, Volume};
use k8s_openapi::serde::de::DeserializeOwned;

/// What of `/proc` and `/sys` kubelet lets nobody see or write to who has not all privileges (`procMount: Default`).
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/sys/firmware"];
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// The machine's libraries and programs: the image has none.
const PROGRAMS: [&str; 2] = ["/usr", "/etc/alternatives"];

/// Where our binaries are in the container; the machine's `/usr` cannot take them.
const BINARIES: &str = "/seaway";

/// The pod of a DaemonSet.
pub(crate) struct Manifest(PodSpec);

/// A node, as far as its manifests ask for something of it.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) binaries: PathBuf,
    /// What the daemon is told beside what its manifest says.
    pub(crate) flags: Vec<String>,
    /// Pods of any node.
    pub(crate) cluster_cidr: String,
    /// Directories that two nodes of one machine must not share, by the path in the manifest.
    pub(crate) own: Vec<(&'static str, PathBuf)>,
    /// What is at the same path in the container: what others are told about it has to be right outside, too.
    pub(crate) same: Vec<PathBuf>,
    /// The files of the ConfigMap.
    pub(crate) config: PathBuf,
}

/// A document of `deploy/kustomize`.
pub(crate) fn document<T: DeserializeOwned>(file: &str) -> Result<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize");
    let text = std::fs::read_to_string(path.join(file)).with_context(|| file.to_owned())?;
    serde_saphyr::from_str(&text).with_context(|| file.to_owned())
}

impl Manifest {
    /// The one of a kustomization.
    pub(crate) fn read(kustomization: &str) -> Result<Self> {
        let daemon_set: DaemonSet = document(&format!("{kustomization}/daemonset.yaml"))?;
        let pod = daemon_set.spec.and_then(|spec| spec.template.spec);
        pod.map(Self).context("a DaemonSet without pods")
    }

    /// Those that end before the daemon starts, in order.
    pub(crate) fn init(&self) -> impl Iterator<Item = &Container> {
        self.0.init_containers.iter().flatten()
    }

    /// The daemon's.
    pub(crate) fn daemon(&self) -> &Container {
        &self.0.containers[0]
    }

    /// The daemon's name, and its image's.
    pub(crate) fn program(&self) -> Result<&str> {
        self.daemon().image.as_deref().context("no image")
    }

    /// Whether the sandbox must allow all privileges.
    pub(crate) fn is_privileged(&self) -> bool {
        let contexts = self.init().chain([self.daemon()]);
        let mut contexts = contexts.filter_map(|container| container.security_context.as_ref());
        contexts.any(|context| context.privileged == Some(true))
    }

    /// What is asked for on that node. Where the manifest leaves the program to the image, it is the daemon, which the image is
    /// named after.
    pub(crate) fn config(&self, container: &Container, host: &Host) -> Result<ContainerConfig> {
        let variables = [
            ("CLUSTER_CIDR", &host.cluster_cidr),
            ("NODE_NAME", &host.name),
        ];
        let args = container.args.iter().flatten().map(|arg| {
            let variables = variables.iter();
            variables.fold(arg.clone(), |arg, (name, value)| {
                arg.replace(&format!("$({name})"), value)
            })
        });
        let mut args: Vec<String> = args.collect();
        let program = match container.command.as_deref() {
            Some([program]) => program.clone(),
            _ => {
                args.extend(host.flags.iter().cloned());
                format!("/usr/bin/{}", self.program()?)
            }
        };
        let context = container.security_context.as_ref();
        Ok(ContainerConfig {
            command: vec![program.replace("/usr/bin", BINARIES)],
            args,
            envs: vec![KeyValue {
                key: "PATH".into(),
                value: "/usr/sbin:/usr/bin".into(),
            }],
            mounts: self.mounts(container, host)?,
            linux: Some(LinuxContainerConfig {
                security_context: Some(privileges(context.context("no securityContext")?)),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        })
    }

    fn mounts(&self, container: &Container, host: &Host) -> Result<Vec<Mount>> {
        let mut mounts = vec![mount(Path::new(BINARIES), &host.binaries, true)];
        let there = PROGRAMS.iter().map(Path::new);
        mounts.extend(there.map(|path| mount(path, path, true)));
        mounts.extend(host.same.iter().map(|path| mount(path, path, false)));
        for wanted in container.volume_mounts.iter().flatten() {
            let mut volumes = self.0.volumes.iter().flatten();
            let volume = volumes.find(|volume| volume.name == wanted.name);
            let source = volume.and_then(|volume| host.source(volume));
            let source = source.with_context(|| format!("volume {}", wanted.name))?;
            let readonly = wanted.read_only.unwrap_or_default();
            let propagation = match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                _ => MountPropagation::PropagationPrivate,
            };
            mounts.push(Mount {
                propagation: propagation.into(),
                ..mount(Path::new(&wanted.mount_path), &source, readonly)
            });
        }
        Ok(mounts)
    }
}

impl Host {
    fn source(&self, volume: &Volume) -> Option<PathBuf> {
        if volume.config_map.is_some() {
            return Some(self.config.clone());
        }
        let path = &volume.host_path.as_ref()?.path;
        let own = self.own.iter().find(|(shared, _)| shared == path);
        Some(own.map_or_else(|| path.into(), |(_, own)| own.clone()))
    }
}

/// Puts the files of a ConfigMap into a directory.
pub(crate) fn write_config(map: &ConfigMap, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for (file, text) in map.data.iter().flatten() {
        std::fs::write(directory.join(file), text)?;
    }
    Ok(())
}

fn mount(container: &Path, host: &Path, readonly: bool) -> Mount {
    Mount {
        container_path: container.display().to_string(),
        host_path: host.display().to_string(),
        readonly,
        ..Mount::default()
    }
}

fn privileges(context: &SecurityContext) -> LinuxContainerSecurityContext {
    let namespaces = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    };
    let restricted = LinuxContainerSecurityContext {
        namespace_options: Some(namespaces),
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or_default(),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        ..LinuxContainerSecurityContext::default()
    };
    if context.privileged == Some(true) {
        return LinuxContainerSecurityContext {
            privileged: true,
            ..restricted
        };
    }
    let capabilities = context.capabilities.as_ref();
    let capabilities = capabilities.map(|capabilities| Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        ..Capability::default()
    });
    let profile = context.seccomp_profile.as_ref();
    let profile = match profile.map(|profile| &*profile.type_) {
        Some("Unconfined") => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    };
    LinuxContainerSecurityContext {
        capabilities,
        masked_paths: MASKED.map(str::to_owned).to_vec(),
        readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
        seccomp: Some(SecurityProfile {
            profile_type: profile.into(),
            ..SecurityProfile::default()
        }),
        ..restricted
    }
}
