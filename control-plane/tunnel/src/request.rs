//! What a server asks of a node, and what the channels of such a stream carry.

use serde::{Deserialize, Serialize};

/// Runs a command in a container: [`ExecRequest`].
pub const EXEC: &str = "exec";
/// Joins the input and output of a container's own process: [`AttachRequest`].
pub const ATTACH: &str = "attach";
/// Connects to a port inside a pod, one stream per connection: [`PortForwardRequest`].
pub const PORT_FORWARD: &str = "portforward";

/// Lists the pods that are gone and whose logs are kept: [`GonePodsRequest`], answered with [`GonePod`]s as JSON.
pub const GONE_PODS: &str = "gonepods";
/// Reads a log of such a pod: [`GoneLogRequest`].
pub const GONE_LOG: &str = "gonelog";
/// Something of an image for another node: [`BlobRequest`].
pub const BLOB: &str = "blob";

/// The channels of `exec` and `attach`; Kubernetes' own numbers.
pub mod channel {
    /// Client to process.
    pub const STDIN: u8 = 0;
    /// Process to client.
    pub const STDOUT: u8 = 1;
    /// Process to client; unused with a terminal.
    pub const STDERR: u8 = 2;
    /// Node to server: an [`Outcome`](super::Outcome) as JSON, the last frame of all.
    pub const OUTCOME: u8 = 3;
    /// Client to process: a [`Size`](super::Size) as JSON in each frame.
    pub const RESIZE: u8 = 4;
}

/// The one channel of `portforward`, in both directions.
pub const CONNECTION: u8 = 0;
/// The one channel of `gonepods` and `gonelog`, from the node.
pub const PIECES: u8 = 0;
/// The one channel of `blob`, from the node. Its close says that the data is whole.
pub const DATA: u8 = 0;

/// The pod that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid: a pod of the same name that came later is another.
    pub uid: String,
}

/// Which of a process's streams are wanted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The client has input.
    pub stdin: bool,
    /// The client wants the output.
    pub stdout: bool,
    /// The client wants the errors.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Where.
    pub target: Target,
    /// In which container, by its name in the pod.
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What of it is wanted.
    pub streams: Streams,
}

/// A container whose own process is to be joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Where.
    pub target: Target,
    /// Which container, by its name in the pod.
    pub container: String,
    /// What of it is wanted.
    pub streams: Streams,
}

/// A port inside a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwardRequest {
    /// Where.
    pub target: Target,
    /// The port.
    pub port: u16,
}

/// A namespace whose gone pods are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GonePodsRequest {
    /// The namespace.
    pub namespace: String,
}

/// A pod that is gone and whose logs are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GonePod {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// When nothing was left of it, in milliseconds since 1970.
    pub gone_at_unix_millis: i64,
    /// The containers that have run, main ones first.
    pub containers: Vec<String>,
}

/// Which part of a gone pod's log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneLogRequest {
    /// The pod.
    pub uid: String,
    /// The container.
    pub container: String,
    /// Of the run before the last.
    pub previous: bool,
    /// With the time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines from this moment on.
    pub since_unix_nanos: Option<i64>,
}

/// Something of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlobRequest {
    /// The description of the image with this reference.
    Image(String),
    /// The compressed bytes of the layer whose tar stream has this digest.
    Layer(String),
}

/// The size of a terminal, spelled as Kubernetes' clients send it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a command, or the watching of a container, ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The command ended with this code; a container that was attached to gives 0.
    Exited(i32),
    /// It could not be run, or its end is not known.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubectl_sends_them() {
        let size: Size = serde_json::from_str(r#"{"Width":120,"Height":40}"#).unwrap();
        assert_eq!((size.width, size.height), (120, 40));
    }
}
