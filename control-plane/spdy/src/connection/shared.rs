//! What the tasks of one connection share: its streams, their windows, and what is to be sent out of turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{Incoming, Reset};
use crate::frame::{Frame, ResetCode, StreamId};
use crate::headers::Headers;
use crate::window::{Window, Windows};

/// Streams of one connection at once. A forwarded connection needs two.
const STREAMS_MAX: usize = 2048;
/// Data frames of one stream that wait to be taken; then the connection is not read on.
const EVENTS_MAX: usize = 16;
/// What was taken is granted again in portions of at least this.
const GRANT_BYTES: u32 = 16 << 10;

/// What comes in on a stream.
#[derive(Debug)]
pub(super) enum Event {
    Data(Bytes),
    End,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// `None` once nothing more may be sent.
    outgoing: Mutex<Option<mpsc::Sender<Frame>>>,
    state: Mutex<State>,
    /// There is something to be sent out of turn.
    pub(super) urgent: Notify,
    /// A window has grown, or a stream has ended.
    windows_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<StreamId, Stream>,
    windows: Windows,
    last_stream: StreamId,
    replies: Vec<StreamId>,
    resets: Vec<(StreamId, ResetCode)>,
    pong: Option<u32>,
    /// Taken and not yet granted again; the connection's own is stream 0.
    taken: BTreeMap<StreamId, u32>,
}

#[derive(Debug)]
struct Stream {
    /// `None` once the client has said that it sends no more.
    events: Option<mpsc::Sender<Event>>,
    window: Window,
    is_finished: bool,
}

/// What is to be sent before the data that waits.
pub(super) enum Urgent {
    Reply(StreamId),
    Frame(Frame),
}

impl Shared {
    pub(super) fn new(outgoing: mpsc::Sender<Frame>) -> Self {
        Self {
            outgoing: Mutex::new(Some(outgoing)),
            state: Mutex::default(),
            urgent: Notify::new(),
            windows_changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream begins; `None` when it may not, which the client is told.
    pub(super) fn open(self: &Arc<Self>, stream: StreamId, fin: bool, headers: Headers) -> Option<Incoming> {
        let mut state = self.state();
        let is_in_order = stream % 2 == 1 && stream > state.last_stream;
        if !is_in_order || state.streams.len() >= STREAMS_MAX {
            let code = match is_in_order {
                true => ResetCode::RefusedStream,
                false => ResetCode::ProtocolError,
            };
            state.resets.push((stream, code));
            self.urgent.notify_one();
            return None;
        }
        state.last_stream = stream;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        if fin {
            // The channel is new and has room.
            let _ = sender.try_send(Event::End);
        }
        let window = state.windows.open();
        let entry = Stream {
            events: (!fin).then_some(sender),
            window,
            is_finished: false,
        };
        state.streams.insert(stream, entry);
        Some(Incoming {
            headers,
            stream,
            events,
            shared: self.clone(),
        })
    }

    /// Where the data of a stream goes, if it is still wanted.
    pub(super) fn events(&self, stream: StreamId) -> Option<mpsc::Sender<Event>> {
        self.state().streams.get(&stream)?.events.clone()
    }

    /// The client sends nothing more on a stream.
    pub(super) fn client_finished(&self, stream: StreamId) {
        let mut state = self.state();
        if let Some(entry) = state.streams.get_mut(&stream) {
            entry.events = None;
            if entry.is_finished {
                state.streams.remove(&stream);
            }
        }
    }

    /// The client has ended a stream.
    pub(super) fn client_reset(&self, stream: StreamId) {
        self.state().streams.remove(&stream);
        self.windows_changed.notify_waiters();
    }

    pub(super) fn settings(&self, initial_window: Option<u32>) {
        if let Some(initial) = initial_window {
            let state = &mut *self.state();
            let open = state.streams.values_mut().map(|stream| &mut stream.window);
            state.windows.set_initial(initial, open);
            self.windows_changed.notify_waiters();
        }
    }

    pub(super) fn window_update(&self, stream: StreamId, delta: u32) {
        let state = &mut *self.state();
        match stream {
            0 => state.windows.grant(delta),
            _ => {
                if let Some(entry) = state.streams.get_mut(&stream) {
                    state.windows.grant_stream(&mut entry.window, delta);
                }
            }
        }
        self.windows_changed.notify_waiters();
    }

    /// Answers a ping of the client. Of several that wait only the last is answered.
    pub(super) fn pong(&self, id: u32) {
        if id % 2 == 1 {
            self.state().pong = Some(id);
            self.urgent.notify_one();
        }
    }

    pub(super) fn reply(&self, stream: StreamId) {
        self.state().replies.push(stream);
        self.urgent.notify_one();
    }

    pub(super) fn reset(&self, stream: StreamId, code: ResetCode) {
        let mut state = self.state();
        if state.streams.remove(&stream).is_some() {
            state.resets.push((stream, code));
            self.urgent.notify_one();
            self.windows_changed.notify_waiters();
        }
    }

    /// What was taken of a stream's data may be sent again.
    pub(super) fn grant(&self, stream: StreamId, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut state = self.state();
        let mut is_due = false;
        for id in [0, stream] {
            let taken = state.taken.entry(id).or_default();
            *taken = taken.saturating_add(count);
            is_due |= *taken >= GRANT_BYTES;
        }
        if is_due {
            self.urgent.notify_one();
        }
    }

    /// Waits until something may be sent on a stream, and takes it out of the windows.
    pub(super) async fn take_window(&self, stream: StreamId, wanted: usize) -> Result<usize, Reset> {
        loop {
            let changed = self.windows_changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let state = &mut *self.state();
                let entry = state.streams.get_mut(&stream).ok_or(Reset)?;
                let allowed = state.windows.take(&mut entry.window, wanted);
                if allowed > 0 {
                    return Ok(allowed);
                }
            }
            changed.await;
        }
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), Reset> {
        let outgoing = self.outgoing().clone().ok_or(Reset)?;
        outgoing.send(frame).await.map_err(|_| Reset)
    }

    /// We send nothing more on a stream.
    pub(super) fn finish_sending(&self, stream: StreamId) {
        let mut state = self.state();
        if let Some(entry) = state.streams.get_mut(&stream) {
            entry.is_finished = true;
            if entry.events.is_none() {
                state.streams.remove(&stream);
            }
        }
    }

    /// What is due to be sent out of turn.
    pub(super) fn take_urgent(&self) -> Vec<Urgent> {
        let state = &mut *self.state();
        let mut urgent: Vec<Urgent> = state.replies.drain(..).map(Urgent::Reply).collect();
        let resets = state.resets.drain(..).map(|(stream, code)| Frame::Reset {
            stream,
            code: code as u32,
        });
        urgent.extend(resets.map(Urgent::Frame));
        urgent.extend(state.pong.take().map(|id| Urgent::Frame(Frame::Ping { id })));
        let streams = &state.streams;
        // A stream that is gone needs no grant.
        state
            .taken
            .retain(|stream, _| *stream == 0 || streams.contains_key(stream));
        for (stream, taken) in state.taken.iter_mut().filter(|(_, taken)| **taken >= GRANT_BYTES) {
            let (stream, delta) = (*stream, std::mem::take(taken));
            urgent.push(Urgent::Frame(Frame::WindowUpdate { stream, delta }));
        }
        urgent
    }

    /// The last stream that the client has opened.
    pub(super) fn last_stream(&self) -> StreamId {
        self.state().last_stream
    }

    /// Nothing more is sent, but what waits is.
    pub(super) fn finish(&self) {
        self.outgoing().take();
        // The events' receivers are gone with the program; what still comes is dropped.
        self.state().streams.clear();
    }

    /// The connection is gone.
    pub(super) fn close(&self) {
        self.finish();
        self.windows_changed.notify_waiters();
    }

    fn outgoing(&self) -> MutexGuard<'_, Option<mpsc::Sender<Frame>>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
