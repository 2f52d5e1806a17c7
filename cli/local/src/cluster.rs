//! Brings a cluster up and takes it down.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::At;
use crate::node::Process;
use crate::place::need_root;
use crate::state::{Node, Role, State};
use crate::supervisor::{ensure, look_again, start_node, tail};
use crate::{LocalError, Place, node, switch};

const SERVERS_MAX: usize = 9;
const NODES_MAX: usize = 200;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Control-plane replicas, each of which is a node as well.
    pub servers: usize,
    /// Nodes without a control plane.
    pub agents: usize,
    /// The flotilla executable.
    pub executable: PathBuf,
    /// How long pods stay bound to an unreachable node; the servers' default when absent.
    pub toleration_seconds: Option<u64>,
    /// Addresses of the nodes' network for services of type LoadBalancer; the nodes' own when absent.
    pub load_balancer_pool: Option<String>,
    /// How long the first server may take to answer.
    pub limit: Duration,
}

/// What is known when all processes run but not all nodes are ready yet.
pub struct Ready<'a> {
    /// How the API is reached.
    pub kubeconfig: &'a Path,
    /// Names of the nodes that are to be ready.
    pub nodes: Vec<String>,
    place: &'a Place,
}

impl Ready<'_> {
    /// Fails when a node's process has ended, so that nobody waits in vain.
    pub fn check(&self) -> Result<(), LocalError> {
        self.nodes
            .iter()
            .try_for_each(|node| check_running(self.place, node))
    }

    /// The last lines of a node's log, which goes with the cluster when the wait fails.
    pub fn log_end(&self, node: &str) -> String {
        tail(self.place, node)
    }
}

/// Makes a cluster; `wait` returns once all nodes are ready. Whatever fails, nothing is left behind.
pub fn up(
    place: &Place,
    options: &UpOptions,
    wait: impl FnOnce(&Ready<'_>) -> Result<(), LocalError>,
) -> Result<(), LocalError> {
    need_root()?;
    if !(1..=SERVERS_MAX).contains(&options.servers) || options.servers + options.agents > NODES_MAX {
        return Err(LocalError::Size {
            servers_max: SERVERS_MAX,
            nodes_max: NODES_MAX,
        });
    }
    let lock = place.lock()?;
    if place.state_file().exists() || place.run().exists() {
        return Err(LocalError::Exists {
            name: place.name().to_owned(),
        });
    }
    let made = make(place, options, wait);
    if made.is_err() {
        // What made it fail is what the caller must see, not what else went wrong while cleaning up.
        let _ = remove_everything(place);
        let _ = lock.remove();
    }
    made
}

/// Removes a cluster and everything that it had. False: there was none.
pub fn down(place: &Place) -> Result<bool, LocalError> {
    need_root()?;
    let lock = place.lock()?;
    let existed = place.folder().exists() || place.run().exists();
    remove_everything(place)?;
    lock.remove()?;
    Ok(existed)
}

fn make(
    place: &Place,
    options: &UpOptions,
    wait: impl FnOnce(&Ready<'_>) -> Result<(), LocalError>,
) -> Result<(), LocalError> {
    let logs = place.folder().join("logs");
    fs::create_dir_all(&logs).at("create", &logs)?;
    let mut state = State {
        executable: options.executable.clone(),
        port: 0,
        toleration_seconds: options.toleration_seconds,
        load_balancer_pool: options.load_balancer_pool.clone(),
        nodes: nodes(options.servers, options.agents),
        partition: Vec::new(),
        one_way: false,
    };
    state.write(place)?;
    create_switch(place)?;
    state.port = thread::scope(|scope| {
        let machines: Vec<_> = state
            .nodes
            .iter()
            .map(|node| scope.spawn(|| create_machine(place, node)))
            .collect();
        let port = ensure(place, &state);
        for machine in machines {
            machine
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        port
    })?;
    state.write(place)?;
    let (first, others) = state
        .nodes
        .split_first()
        .unwrap_or_else(|| unreachable!("there is at least one server"));
    start_node(place, &first.name)?;
    wait_for_file(place, &first.name, "join-token", options.limit)?;
    for node in others {
        start_node(place, &node.name)?;
    }
    let admin = wait_for_file(place, &first.name, "admin.kubeconfig", options.limit)?;
    write_kubeconfig(place, &admin, state.port)?;
    copy_tokens(&place.data(&first.name), &place.folder())?;
    let nodes = state.nodes.iter().map(|node| node.name.clone()).collect();
    wait(&Ready {
        kubeconfig: &place.kubeconfig(),
        nodes,
        place,
    })
}

/// The switch, and the file system that everything of a running cluster hangs on.
pub(crate) fn create_switch(place: &Place) -> Result<(), LocalError> {
    node::mount_run(place)?;
    node::create_switch_namespace(place)?;
    switch::create(place)
}

/// What a node needs to join.
const TOKENS: [&str; 2] = ["join-token", "agent-join-token"];

/// Nodes find the tokens with the first server; the cluster keeps a copy, in case that server's disk is lost.
fn copy_tokens(from: &Path, to: &Path) -> Result<(), LocalError> {
    TOKENS.iter().try_for_each(|token| {
        let path = from.join(token);
        fs::copy(&path, to.join(token)).map(drop).at("copy", &path)
    })
}

/// Makes ready for a first server that has lost its disk to join the others.
pub(crate) fn replace_lost_disk(place: &Place, state: &State, node: &Node) -> Result<(), LocalError> {
    let data = place.data(&node.name);
    if state.nodes.first() != Some(node) || !node.lost_its_disk(place) {
        return Ok(());
    }
    fs::create_dir_all(&data).at("create", &data)?;
    copy_tokens(&place.folder(), &data)
}

/// Everything of a machine but its power: namespaces, network, cgroups, a disk.
pub(crate) fn create_machine(place: &Place, node: &Node) -> Result<(), LocalError> {
    place.node_cgroup(&node.name).child("node").create()?;
    node::create_namespaces(place, &node.name)?;
    switch::connect(place, node)?;
    let data = place.data(&node.name);
    fs::create_dir_all(&data).at("create", &data)
}

fn remove_everything(place: &Place) -> Result<(), LocalError> {
    let cgroup = place.cgroup();
    cgroup.kill()?;
    node::unmount_run(place)?;
    cgroup.remove()?;
    cgroup.remove_empty_parent()?;
    let folder = place.folder();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &folder),
        _ => {}
    }
    place.remove_empty_dir();
    Ok(())
}

fn nodes(servers: usize, agents: usize) -> Vec<Node> {
    let servers = (1..=servers).map(|number| (format!("server-{number}"), Role::Server));
    let agents = (1..=agents).map(|number| (format!("agent-{number}"), Role::Agent));
    let all = servers.chain(agents).enumerate();
    all.map(|(at, (name, role))| Node {
        name,
        role,
        address: switch::address(at),
    })
    .collect()
}

fn check_running(place: &Place, node: &str) -> Result<(), LocalError> {
    match Process::read(&place.pid_file(node)) {
        Some(_) => Ok(()),
        None => Err(LocalError::NodeEnded {
            node: node.to_owned(),
            log: tail(place, node),
        }),
    }
}

/// Waits until the node has written a file to its data folder, and returns its content.
fn wait_for_file(place: &Place, node: &str, file: &str, limit: Duration) -> Result<Vec<u8>, LocalError> {
    let path = place.data(node).join(file);
    let end = Instant::now() + limit;
    loop {
        match fs::read(&path) {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("read", &path),
            _ => {}
        }
        check_running(place, node)?;
        if Instant::now() > end {
            return Err(LocalError::NodeLate {
                node: node.to_owned(),
                seconds: limit.as_secs(),
                log: tail(place, node),
            });
        }
        look_again();
    }
}

/// The administrator's kubeconfig as the server wrote it, but leading through the forwarded port.
fn write_kubeconfig(place: &Place, admin: &[u8], port: u16) -> Result<(), LocalError> {
    let path = place.kubeconfig();
    let mut config: serde_json::Value = serde_json::from_slice(admin)
        .map_err(io::Error::from)
        .at("understand the kubeconfig for", &path)?;
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        cluster["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
    }
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&serde_json::to_vec_pretty(&config)?)
    };
    write().at("write", &path)
}
