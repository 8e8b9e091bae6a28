//! A kubelet in small: the calls of the Container Runtime Interface that tests need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxStatusRequest, PortMapping, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StatusRequest, StopPodSandboxRequest,
    VersionRequest,
};
use serde_json::Value;
use tonic::transport::Channel;

use crate::image::IMAGE;

/// A connection to a runtime.
#[derive(Debug, Clone)]
pub(crate) struct Cri(RuntimeServiceClient<Channel>);

/// A pod to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodConfig {
    pub(crate) name: String,
    /// TCP: port of the node, port of the pod.
    pub(crate) host_ports: Vec<(u16, u16)>,
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// The parent of its cgroups.
    pub(crate) cgroup: String,
    /// In the network namespace of the node, as with `hostNetwork`; the plugin is not called.
    pub(crate) host_network: bool,
    /// Whether its containers may have all privileges.
    pub(crate) privileged: bool,
    /// Where files are put with what its containers print.
    pub(crate) logs: String,
}

/// What holds the containers of a pod together.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    config: PodSandboxConfig,
}

/// One that runs.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) sandbox: Sandbox,
    pub(crate) ip: IpAddr,
    /// The name of its network namespace in `/run/netns`.
    pub(crate) netns: String,
}

impl Cri {
    /// Connects, and asks who is there.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let client = RuntimeServiceClient::connect(format!("unix://{}", socket.display())).await?;
        let mut cri = Self(client);
        let version = VersionRequest {
            version: "0.1.0".into(),
        };
        cri.0.version(version).await?;
        Ok(cri)
    }

    /// Condition `NetworkReady`, as kubelet asks for it before it runs a pod.
    pub(crate) async fn network_ready(&mut self) -> Result<bool> {
        let status = self.0.status(StatusRequest { verbose: false }).await?;
        let status = status.into_inner().status.context("no status")?;
        let mut conditions = status.conditions.iter();
        Ok(conditions.any(|condition| condition.r#type == "NetworkReady" && condition.status))
    }

    /// RunPodSandbox: namespaces, the plugin's ADD, and the process that holds them.
    pub(crate) async fn run_sandbox(&mut self, wanted: &PodConfig) -> Result<Sandbox> {
        // A pod in the node's network has the node's name, too.
        let (network, hostname) = match wanted.host_network {
            true => (NamespaceMode::Node, String::new()),
            false => (NamespaceMode::Pod, wanted.name.clone()),
        };
        let security_context = LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption {
                network: network.into(),
                ..NamespaceOption::default()
            }),
            privileged: wanted.privileged,
            ..LinuxSandboxSecurityContext::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: wanted.name.clone(),
                uid: format!("uid-{}", wanted.name),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname,
            port_mappings: wanted
                .host_ports
                .iter()
                .map(|&(host, pod)| PortMapping {
                    protocol: 0,
                    container_port: pod.into(),
                    host_port: host.into(),
                    host_ip: String::new(),
                })
                .collect(),
            annotations: wanted
                .annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: wanted.cgroup.clone(),
                security_context: Some(security_context),
                ..LinuxPodSandboxConfig::default()
            }),
            log_directory: wanted.logs.clone(),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let name = &wanted.name;
        let ran = self.0.run_pod_sandbox(request).await;
        let id = ran
            .with_context(|| format!("run pod {name}"))?
            .into_inner()
            .pod_sandbox_id;
        Ok(Sandbox { id, config })
    }

    /// Runs a pod that has a network of its own.
    pub(crate) async fn run_pod(&mut self, wanted: &PodConfig) -> Result<Pod> {
        let sandbox = self.run_sandbox(wanted).await?;
        let name = &wanted.name;
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.id.clone(),
            verbose: true,
        };
        let answer = self.0.pod_sandbox_status(request).await?.into_inner();
        let ip = answer.status.and_then(|status| status.network);
        let ip = ip.with_context(|| format!("pod {name} has no network"))?.ip;
        Ok(Pod {
            sandbox,
            ip: ip
                .parse()
                .with_context(|| format!("address of pod {name}"))?,
            netns: netns(&answer.info)
                .with_context(|| format!("no network namespace in {:?}", answer.info))?,
        })
    }

    /// A container in a pod that is not told anything else.
    pub(crate) async fn run_command(&mut self, pod: &Pod, command: &[&str]) -> Result<String> {
        let config = ContainerConfig {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ContainerConfig::default()
        };
        self.run_container(&pod.sandbox, "main", config).await
    }

    /// A container of the image, created and started.
    pub(crate) async fn run_container(
        &mut self,
        sandbox: &Sandbox,
        name: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: IMAGE.into(),
                ..ImageSpec::default()
            }),
            log_path: format!("{name}.log"),
            ..config
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let created = self.0.create_container(request).await?.into_inner();
        let container_id = created.container_id;
        let request = StartContainerRequest {
            container_id: container_id.clone(),
        };
        self.0.start_container(request).await?;
        Ok(container_id)
    }

    /// ContainerStatus: the exit code of one that has ended.
    pub(crate) async fn exit_code(&mut self, container: &str) -> Result<Option<i32>> {
        let request = ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let answer = self.0.container_status(request).await?.into_inner();
        let status = answer.status.context("no status")?;
        Ok((status.state() == ContainerState::ContainerExited).then_some(status.exit_code))
    }

    /// ExecSync: the exit code, and what was printed.
    pub(crate) async fn exec(
        &mut self,
        container: &str,
        command: &[&str],
    ) -> Result<(i32, String)> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 20,
        };
        let answer = self.0.exec_sync(request).await?.into_inner();
        let said = [answer.stdout, answer.stderr].concat();
        Ok((
            answer.exit_code,
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// StopPodSandbox, then RemovePodSandbox, as kubelet ends a pod.
    pub(crate) async fn end(&mut self, sandbox: &Sandbox) -> Result<()> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: sandbox.id.clone(),
        };
        self.0
            .stop_pod_sandbox(request)
            .await
            .context("stop a pod")?;
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.id.clone(),
        };
        self.0
            .remove_pod_sandbox(request)
            .await
            .context("remove a pod")?;
        Ok(())
    }
}

/// containerd tells it in what it says to people: the runtime's specification.
fn netns(info: &HashMap<String, String>) -> Option<String> {
    let info: Value = serde_json::from_str(info.get("info")?).ok()?;
    let namespaces = info
        .pointer("/runtimeSpec/linux/namespaces")?
        .as_array()?
        .iter();
    let mut paths = namespaces.filter(|ns| ns["type"] == "network");
    let path = paths.next()?.get("path")?.as_str()?;
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}
