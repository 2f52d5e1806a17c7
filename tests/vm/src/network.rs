//! The network between machines: a switch of Ethernet frames, each in a datagram on a Unix socket.
//!
//! Nothing of this machine's own network is touched, and a machine without power is silent: nobody answers its peers
//! with a reset, as this machine's kernel would for a forwarded connection.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

/// The longest frame, and room to spare.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// How long a machine that takes nothing holds up the others; then its frame is lost, as in a real switch.
const PATIENCE: Duration = Duration::from_millis(20);

/// A switch, to which machines connect by sending.
pub struct Switch {
    path: PathBuf,
    forwarder: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts one at a path.
    ///
    /// # Panics
    ///
    /// If no socket can be made there.
    pub fn start(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).expect("a socket can be made");
        socket
            .set_write_timeout(Some(PATIENCE))
            .expect("a limit can be set");
        Self {
            path,
            forwarder: Some(std::thread::spawn(move || forward(&socket))),
        }
    }

    /// Where machines send to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Sends each frame to all other ports, until an empty one comes.
fn forward(socket: &UnixDatagram) {
    let mut ports = BTreeSet::new();
    let mut frame = vec![0; FRAME_BYTES_MAX];
    loop {
        let (length, sender) = socket.recv_from(&mut frame).expect("a socket can be read");
        if length == 0 {
            return;
        }
        let sender = sender.as_pathname().map(Path::to_owned);
        for port in ports.iter().filter(|port| Some(*port) != sender.as_ref()) {
            // A machine without power takes nothing.
            let _ = socket.send_to(&frame[..length], port);
        }
        ports.extend(sender);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let ended = UnixDatagram::unbound().and_then(|socket| socket.send_to(&[], &self.path));
        if ended.is_ok()
            && let Some(forwarder) = self.forwarder.take()
        {
            forwarder.join().expect("the switch does not panic");
        }
    }
}
