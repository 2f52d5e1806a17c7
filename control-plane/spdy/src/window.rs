//! How many bytes may be sent: one window for the connection, one for each stream. Pure.

/// What a peer takes before it has granted anything, as SPDY/3.1 has it.
pub(crate) const INITIAL: i64 = 64 << 10;

/// The window of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window(i64);

/// The connection's window and what new streams begin with.
#[derive(Debug)]
pub(crate) struct Windows {
    connection: i64,
    initial: i64,
    /// The peer has granted something or has said how much it takes: it keeps account.
    is_kept: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            connection: INITIAL,
            initial: INITIAL,
            is_kept: false,
        }
    }
}

impl Windows {
    /// For a new stream.
    pub(crate) fn open(&self) -> Window {
        Window(self.initial)
    }

    /// Takes up to `wanted` bytes out of both windows; returns how many may be sent now.
    pub(crate) fn take(&mut self, stream: &mut Window, wanted: usize) -> usize {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let allowed = match self.is_kept {
            true => wanted.min(stream.0).min(self.connection).max(0),
            false => wanted,
        };
        stream.0 -= allowed;
        self.connection -= allowed;
        usize::try_from(allowed).unwrap_or_default()
    }

    /// The peer grants more for the whole connection.
    pub(crate) fn grant(&mut self, delta: u32) {
        self.is_kept = true;
        self.connection = self.connection.saturating_add(delta.into());
    }

    /// The peer grants more for one stream.
    pub(crate) fn grant_stream(&mut self, stream: &mut Window, delta: u32) {
        self.is_kept = true;
        stream.0 = stream.0.saturating_add(delta.into());
    }

    /// The peer says with what streams begin; those that are open follow.
    pub(crate) fn set_initial<'a>(&mut self, initial: u32, open: impl Iterator<Item = &'a mut Window>) {
        self.is_kept = true;
        let change = i64::from(initial) - self.initial;
        self.initial = initial.into();
        open.for_each(|window| window.0 = window.0.saturating_add(change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_keeps_no_account_is_not_waited_for() {
        let mut windows = Windows::default();
        let mut stream = windows.open();
        assert_eq!(windows.take(&mut stream, 1 << 20), 1 << 20);
        assert_eq!(windows.take(&mut stream, 1 << 20), 1 << 20);
    }

    #[test]
    fn what_was_sent_before_the_first_grant_counts() {
        let mut windows = Windows::default();
        let mut stream = windows.open();
        windows.take(&mut stream, (64 << 10) + 100);
        windows.grant(1000);
        windows.grant_stream(&mut stream, 300);
        assert_eq!(windows.take(&mut stream, 1000), 200);
        assert_eq!(windows.take(&mut stream, 1000), 0);
        let mut other = windows.open();
        assert_eq!(
            windows.take(&mut other, 1000),
            700,
            "the connection has less than the stream"
        );
    }

    #[test]
    fn open_streams_follow_the_setting() {
        let mut windows = Windows::default();
        let mut stream = windows.open();
        windows.set_initial(10, std::iter::once(&mut stream));
        assert_eq!(windows.take(&mut stream, 100), 10);
        windows.set_initial(0, std::iter::once(&mut stream));
        assert_eq!(windows.take(&mut stream, 100), 0);
        windows.set_initial(20, std::iter::once(&mut stream));
        assert_eq!(windows.take(&mut stream, 100), 10);
    }
}
