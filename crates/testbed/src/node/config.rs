//! The configuration of containerd, its network plugins and the kubelet.

use std::path::Path;

use serde_json::json;

use super::{ADDRESS, BRIDGE, PODS, machine::PLUGINS, runtime::BUSYBOX};

/// The folder, in that of the node, in which containerd finds how to reach a registry.
pub const REGISTRIES: &str = "registries";

/// The configuration of containerd.
pub fn containerd(directory: &Path, socket: &Path) -> String {
    let directory = directory.display();
    let socket = socket.display();
    // containers could get a better OOM score than allowed without CAP_SYS_RESOURCE, as inside a container
    format!(
        "version = 3
root = '{directory}/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.internal.v1.tracing']

[grpc]
address = '{socket}'

[plugins.'io.containerd.internal.v1.opt']
path = '{directory}/opt'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{BUSYBOX}'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{directory}/{REGISTRIES}'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{PLUGINS}']
conf_dir = '{directory}/cni'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"
    )
}

/// The configuration of the registry. It logs each request, by default to the standard output.
pub fn registry(directory: &Path, address: &str) -> String {
    json!({
        "version": "0.1",
        "log": {"formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": directory}},
        "http": {"addr": address},
    })
    .to_string()
}

/// The network of the pods: an existing bridge.
pub fn network(directory: &Path) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "testbed",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": directory.join("addresses"),
                "ranges": [[{"subnet": PODS, "rangeStart": "10.88.1.1", "gateway": ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// The configuration of the kubelet.
pub fn kubelet(directory: &Path, socket: &Path, cgroup: &str) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        // this network has no other users
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "podLogsDir": directory.join("pods"),
        "volumePluginDir": directory.join("volume-plugins"),
        // the names that the machine resolves mean nothing to pods
        "resolvConf": "",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        // a changed Secret is in the pods' files after 5 to 8 s; the kubelet's default is a minute
        "syncFrequency": "5s",
        // a disk that is nearly full is no reason to evict these pods
        "evictionHard": {"memory.available": "10Mi"},
        "imageGCHighThresholdPercent": 100,
    })
    .to_string()
}
