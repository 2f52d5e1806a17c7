//! Panics of tasks, which their runtimes would swallow.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes note of panics from now on.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            LAST.set(Some(panic.to_string()));
            usual(panic);
        }));
    });
    LAST.set(None);
}

/// The last panic on this thread.
pub(crate) fn take() -> Option<String> {
    LAST.take()
}
