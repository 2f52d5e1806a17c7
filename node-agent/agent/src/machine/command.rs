//! Runs a command in a container to its end.

use std::io;
use std::time::Duration;

use flotilla_runtime::{Exec, ExecSpec, Pod};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{CommandError, CommandOutput};

/// Bytes of what a command says that are kept; as kubelet's probes keep them. The rest is read and forgotten.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// Runs `args` in the container; kills what takes longer than `limit`.
pub(super) async fn run(
    pod: &Pod,
    id: &str,
    args: Vec<String>,
    limit: Duration,
) -> Result<CommandOutput, CommandError> {
    let spec = ExecSpec {
        container: id.to_owned(),
        args,
        stdout: true,
        stderr: true,
        ..ExecSpec::default()
    };
    let mut exec = pod.exec(spec).await?;
    match tokio::time::timeout(limit, finish(&mut exec)).await {
        Ok(finished) => finished,
        Err(_) => {
            exec.kill();
            Err(CommandError::TimedOut)
        }
    }
}

async fn finish(exec: &mut Exec) -> Result<CommandOutput, CommandError> {
    let (mut out, mut errors) = (exec.stdout.take(), exec.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    // All three at once: a command blocks while nobody reads one of its streams.
    let (read, read_errors, exit) = tokio::join!(
        drain(out.as_mut(), &mut said),
        drain(errors.as_mut(), &mut complained),
        exec.wait()
    );
    read.and(read_errors).map_err(CommandError::Read)?;
    said.append(&mut complained);
    Ok(CommandOutput {
        code: exit?.code,
        output: said,
    })
}

async fn drain(from: Option<&mut (impl AsyncRead + Unpin)>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..read.min(room)]);
    }
}
