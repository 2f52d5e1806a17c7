//! `portforward` over WebSocket channels: every port is named beforehand, is connected once, and has two channels,
//! `2n` for its data and `2n + 1` for what went wrong.

use bytes::Bytes;
use flotilla_report::report;
use flotilla_tunnel::copy::send;
use flotilla_tunnel::request::CONNECTION;
use flotilla_tunnel::{Ends, Frame};
use futures::stream::{FuturesUnordered, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::Connection;
use super::forward::Forwarder;
use super::messages::{Said, Socket, goodbye, hang_up, socket};
use super::negotiate::Channels;

/// Messages of all ports that wait for the client.
const MESSAGES_MAX: usize = 8;

/// What is sent to a pod's port; an empty piece closes it.
type ToPort = mpsc::Sender<Bytes>;

/// Serves the ports until all are closed or the client hangs up.
pub(super) async fn run(connection: Connection, channels: Channels, ports: &[u16], forwarder: &Forwarder) {
    let (mut sink, stream) = socket(connection).await.split();
    let (messages, mut queue) = mpsc::channel::<Message>(MESSAGES_MAX);
    let mut to_ports = Vec::new();
    let mut open = FuturesUnordered::new();
    for (index, port) in ports.iter().enumerate() {
        let (to_port, from_client) = mpsc::channel(1);
        to_ports.push(to_port);
        // At most a hundred ports.
        let client = Client {
            messages: messages.clone(),
            channels,
            data: 2 * index as u8,
        };
        open.push(client.serve(*port, from_client, forwarder));
    }
    drop(messages);
    let send = async {
        while let Some(message) = queue.recv().await {
            sink.send(message).await?;
        }
        goodbye(&mut sink).await
    };
    let serve = async move { while open.next().await.is_some() {} };
    let mut reading = std::pin::pin!(from_client(stream, channels, &to_ports));
    // Once all ports are done, all that they said is sent. A client that has gone is not waited for.
    let sent = tokio::select! {
        (sent, ()) = async { tokio::join!(send, serve) } => sent,
        () = &mut reading => return,
    };
    match sent {
        Ok(()) => hang_up(reading).await,
        Err(error) => tracing::debug!(error = report(&error), "a client went away"),
    }
}

async fn from_client(mut stream: SplitStream<Socket>, channels: Channels, to_ports: &[ToPort]) {
    while let Some(Ok(message)) = stream.next().await {
        let (channel, data) = match channels.read(message) {
            Said::Data(channel, data) if !data.is_empty() => (channel, data),
            Said::Closed(channel) => (channel, Bytes::new()),
            Said::Data(..) | Said::Nothing => continue,
            Said::End => return,
        };
        if channel % 2 == 0
            && let Some(to_port) = to_ports.get(usize::from(channel / 2))
        {
            // A port that is closed takes nothing; the others go on.
            let _ = to_port.send(data).await;
        }
    }
}

/// The client's side of one port.
struct Client {
    messages: mpsc::Sender<Message>,
    channels: Channels,
    data: u8,
}

impl Client {
    async fn serve(self, port: u16, from_client: mpsc::Receiver<Bytes>, forwarder: &Forwarder) {
        // Both channels begin with the port's number.
        for channel in [self.data, self.data + 1] {
            self.say(channel, &port.to_le_bytes()).await;
        }
        let failure = match forwarder.connect(port).await {
            Ok(ends) => (!self.carry(from_client, ends).await).then(|| forwarder.lost(port)),
            Err(status) => Some(status.message),
        };
        if let Some(message) = failure {
            self.say(self.data + 1, message.as_bytes()).await;
        }
    }

    /// Sends a message; a client that has gone is found by who reads from it.
    async fn say(&self, channel: u8, data: &[u8]) {
        let _ = self.messages.send(self.channels.write(channel, data)).await;
    }

    /// Carries a connection until the pod closes it, which is the only end that old clients can see. False: it broke.
    async fn carry(&self, mut from_client: mpsc::Receiver<Bytes>, ends: Ends) -> bool {
        let Ends {
            outgoing,
            mut incoming,
        } = ends;
        let up = async {
            while let Some(data) = from_client.recv().await {
                let sent = match data.is_empty() {
                    true => outgoing.send(Frame::close(CONNECTION)).await.is_ok(),
                    false => send(&outgoing, CONNECTION, data).await.is_ok(),
                };
                if !sent {
                    break;
                }
            }
            // The pod may still answer.
            std::future::pending::<()>().await;
        };
        let down = async {
            loop {
                let Some(frame) = incoming.recv().await else {
                    return false;
                };
                if !frame.data.is_empty() {
                    self.say(self.data, &frame.data).await;
                }
                if frame.close {
                    if let Some(message) = self.channels.close(self.data) {
                        let _ = self.messages.send(message).await;
                    }
                    return true;
                }
            }
        };
        tokio::select! {
            whole = down => whole,
            () = up => false,
        }
    }
}
