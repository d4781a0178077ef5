//! The targets, and what they share: a stack as small as that of any thread, so that unbounded recursion shows.
//!
//! `tests/hostile` includes this file, so that the targets compile and run with their seeds in every test run; modules
//! name each other with `super`.

pub mod client_secret;
pub mod documents_and_claims;
pub mod objects;
pub mod template;
pub mod texts;
pub mod token_answer;

/// The stack of each run, in bytes; the operator's threads have 2 MiB.
const STACK: usize = 256 * 1024;
/// The longest message, in bytes: it becomes part of conditions, events and logs.
pub const MESSAGE_MAX: usize = 700;

/// Runs `work` on a small stack. A panic in it ends the process, as libFuzzer expects.
pub fn on_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("no panic");
    });
}

/// Fails for a message that is longer than a condition may be: it would contain part of the input.
pub fn is_bounded(message: &str) {
    assert!(!message.is_empty() && message.len() <= MESSAGE_MAX, "{message}");
}
