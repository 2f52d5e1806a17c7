//! qemu's process, and what its guest says on its console.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::vm_folder;

/// The command that boots the kernel from `root`, with its console on standard output. What the guest writes to `root` is
/// gone with it.
pub(crate) fn command(root: &Path, parameters: &str) -> Command {
    let vm = vm_folder();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-serial", "stdio"])
        .arg("-kernel")
        .arg(vm.join("vmlinuz"))
        .arg("-initrd")
        .arg(vm.join("initramfs"))
        // On a busy machine an emulated timer may be late for the kernel's check, which would give up.
        .args([
            "-append",
            &format!("console=ttyS0 quiet panic=-1 no_timer_check {parameters}"),
        ])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=none,id=root,snapshot=on,cache=unsafe",
            root.display()
        ))
        .args(["-device", "virtio-blk-pci,drive=root"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu
}

/// A running qemu, which ends with this value.
pub(crate) struct Qemu(Child);

impl Qemu {
    /// Starts it; the second value is what its guest says.
    pub(crate) fn start(command: &mut Command) -> (Self, ChildStdout) {
        let mut child = command.spawn().expect("qemu-system-x86_64 can be run");
        let console = child.stdout.take().expect("it has a console");
        (Self(child), console)
    }

    /// Takes its power; what it has still sent is there to be read once [`Self::wait`] has returned.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
    }

    pub(crate) fn wait(&mut self) {
        self.0.wait().ok();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}

/// Hands each line over until there are no more, or they are not wanted.
pub(crate) fn read_lines(console: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut lines = BufReader::new(console).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        if !take(String::from_utf8_lossy(&line).trim_end().to_owned()) {
            break;
        }
    }
}
