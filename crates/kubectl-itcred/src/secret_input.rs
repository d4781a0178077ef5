//! How a secret comes in: from a terminal, which does not show it, or from a pipe.

use std::io::{IsTerminal, Read, StdinLock};

use itwin_oauth::sensitive::Sensitive;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use crate::{output, problem::Problem, rotation::VALUE_MAX};

/// The signals by which a user ends a command. While this lives they end nothing, so that a terminal shows again what
/// is typed, and the last line says whether something was written.
pub struct Interruption([Signal; 3]);

impl Interruption {
    /// Takes the signals over from the system.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn new() -> Result<Self, Problem> {
        let taken = |kind| signal(kind).map_err(|error| Problem::new(format!("signals: {error}; nothing was written")));
        Ok(Self([taken(SignalKind::interrupt())?, taken(SignalKind::quit())?, taken(SignalKind::terminate())?]))
    }

    /// Waits for the first of them, also one that came before.
    pub async fn wait(&mut self) {
        let [interrupt, quit, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Reads the new value of a key: one line from a terminal; everything from a pipe.
///
/// # Errors
/// What is wrong with it, or that the user wants no more.
pub async fn read(key: &str, interruption: &mut Interruption) -> Result<Sensitive, Problem> {
    let is_terminal = std::io::stdin().is_terminal();
    // before the terminal is asked for the value: it may be there in the next moment
    let hidden = is_terminal.then(terminal::Hidden::new).transpose().map_err(|error| failed(&error))?;
    if is_terminal {
        output::progress(&format!("Paste the new {key}, which is not shown, and press Enter:"));
    }
    let read = tokio::task::spawn_blocking(move || bytes(&mut std::io::stdin().lock(), is_terminal));
    let bytes = tokio::select! {
        biased;
        () = interruption.wait() => return Err(failed(&"interrupted")),
        read = read => read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?,
    };
    drop(hidden);
    value(key, &bytes)
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(format!("standard input: {error}; nothing was written"))
}

fn bytes(input: &mut StdinLock<'_>, is_terminal: bool) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(VALUE_MAX + 1));
    if is_terminal {
        read_line(input, &mut bytes)?;
    } else {
        input.take(VALUE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The value without the end of its line.
fn value(key: &str, bytes: &[u8]) -> Result<Sensitive, Problem> {
    if bytes.len() > VALUE_MAX {
        return Err(failed(&format!("it has more than {VALUE_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8 text"))?;
    let text = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
    if text.is_empty() {
        return Err(failed(&format!("it is empty: write the new {key} there")));
    }
    Ok(Sensitive::new(text.to_owned()))
}

/// The end of a PEM file, until which a value of several lines is read.
const PEM_END: &[u8] = b"-----END";

/// A line; of a PEM file, all lines to its end.
fn read_line(input: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let mut byte = [0];
    while bytes.len() <= VALUE_MAX && input.read(&mut byte)? == 1 {
        bytes.push(byte[0]);
        let is_pem = bytes.starts_with(b"-----BEGIN");
        let has_end = bytes.windows(PEM_END.len()).any(|part| part == PEM_END);
        if byte[0] == b'\n' && (!is_pem || has_end) {
            break;
        }
    }
    Ok(())
}

/// A terminal that does not show what is typed.
mod terminal {
    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

    /// While this lives, nothing is shown. What was typed before is discarded.
    pub struct Hidden(Termios);

    impl Hidden {
        pub fn new() -> std::io::Result<Self> {
            let before = tcgetattr(std::io::stdin())?;
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden)?;
            Ok(Self(before))
        }
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_or_whole_pem_is_read_and_no_more() {
        let read = |mut text: &[u8]| {
            let mut bytes = Vec::new();
            read_line(&mut text, &mut bytes).expect("read");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(read(b"secret\nmore\n"), "secret\n");
        assert_eq!(read(b"secret"), "secret");
        let pem = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n";
        assert_eq!(read(format!("{pem}more").as_bytes()), pem);
        assert_eq!(read(&vec![b'x'; 100_000]).len(), VALUE_MAX + 1);
    }

    #[test]
    fn value_ends_before_the_end_of_its_line_and_is_not_empty() {
        let of = |bytes: &[u8]| value("client_secret", bytes).map_err(|problem| problem.to_string());
        for bytes in [&b"secret"[..], b"secret\n", b"secret\r\n"] {
            assert!(of(bytes).is_ok_and(|value| value == Sensitive::new("secret".to_owned())), "{bytes:?}");
        }
        for (bytes, why) in [
            (&b""[..], "it is empty: write the new client_secret there"),
            (b"\n", "it is empty"),
            (b"\xff", "it is not UTF-8 text"),
            (&[b'x'; VALUE_MAX + 1], "bytes"),
        ] {
            let said = of(bytes).err().expect("no value");
            assert!(said.contains(why) && said.ends_with("; nothing was written"), "{said}");
        }
    }
}
