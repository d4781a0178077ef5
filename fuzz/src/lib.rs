//! What all targets share: a stack as small as threads have it anywhere, so that recursion shows.

/// The stack of each run, in bytes; the operator's threads have 2 MiB.
const STACK: usize = 256 * 1024;
/// The longest message, in bytes: it goes into conditions, events and logs.
pub const MESSAGE_MAX: usize = 700;

/// Runs `work` on a small stack. A panic in it ends the process, as libFuzzer wants it.
pub fn on_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("no panic");
    });
}

/// Fails for a message that is longer than a condition should be: then part of the input is in it.
pub fn is_bounded(message: &str) {
    assert!(!message.is_empty() && message.len() <= MESSAGE_MAX, "{message}");
}
