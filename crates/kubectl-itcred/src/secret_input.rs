//! How a secret comes in: from a terminal, which does not show it, or from a pipe.

use std::io::{IsTerminal, Read, StdinLock};

use itwin_oauth::sensitive::Sensitive;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use crate::{output, problem::Problem, rotation::VALUE_MAX};

/// The signals by which a user, or a terminal that is closed, ends a command. While this lives they end nothing, so
/// that a terminal shows again what is typed, and the last line says whether something was written.
pub struct Interruption([Signal; 4]);

impl Interruption {
    /// Takes the signals over from the system.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn new() -> Result<Self, Problem> {
        let taken = |kind| signal(kind).map_err(|error| Problem::new(format!("signals: {error}; nothing was written")));
        Ok(Self([
            taken(SignalKind::interrupt())?,
            taken(SignalKind::quit())?,
            taken(SignalKind::terminate())?,
            taken(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the first of them, also one that came before.
    pub async fn wait(&mut self) {
        let [interrupt, quit, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
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

/// What terminals send to suspend a program: Ctrl-Z, and Ctrl-Y where there is a second such character. They suspend
/// nothing while a value is typed, and are no part of it.
const SUSPENDS: [u8; 2] = [0x1A, 0x19];

/// Begins the last line of a block of PEM.
const PEM_END: &[u8] = b"-----END ";
/// Ends the last line of a private key of any kind in PEM.
const PEM_END_OF_KEY: &[u8] = b"PRIVATE KEY-----";

/// Whether a private key ends with this line. The operator takes the first one, and other blocks may come before it:
/// the parameters of an EC key, as OpenSSL writes them, or certificates.
fn ends_private_key(line: &[u8]) -> bool {
    line.windows(PEM_END.len()).any(|part| part == PEM_END) && line.trim_ascii_end().ends_with(PEM_END_OF_KEY)
}

/// A line; of a PEM file, all lines to the end of its first private key.
fn read_line(input: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let (mut byte, mut line) = ([0], 0);
    while bytes.len() <= VALUE_MAX && input.read(&mut byte)? == 1 {
        if SUSPENDS.contains(&byte[0]) {
            continue;
        }
        bytes.push(byte[0]);
        if byte[0] == b'\n' {
            if !bytes.starts_with(b"-----BEGIN") || ends_private_key(&bytes[line..]) {
                break;
            }
            line = bytes.len();
        }
    }
    Ok(())
}

/// A terminal that does not show what is typed.
mod terminal {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

    /// `_POSIX_VDISABLE`: no character.
    const NONE: u8 = if cfg!(target_os = "linux") { 0 } else { 0xFF };

    /// While this lives, nothing is shown, and nothing that is typed suspends the program: a shell would show again
    /// what is typed, and go on to do so when it continues the program. What was typed before is discarded.
    pub struct Hidden(Termios);

    impl Hidden {
        pub fn new() -> std::io::Result<Self> {
            let before = tcgetattr(std::io::stdin())?;
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            hidden.special_codes[SpecialCodeIndex::VSUSP] = NONE;
            #[cfg(any(target_os = "macos", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
            {
                hidden.special_codes[SpecialCodeIndex::VDSUSP] = NONE;
            }
            tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden)?;
            Ok(Self(before))
        }
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            // without what was pasted after the value, which a shell would run
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
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
        assert_eq!(read(b"\x1asec\x19ret\n"), "secret\n", "what suspends a program elsewhere");
        for (before, label) in [("", "PRIVATE KEY"), ("", "RSA PRIVATE KEY"), ("EC PARAMETERS", "EC PRIVATE KEY")] {
            let block = |label: &str| format!("-----BEGIN {label}-----\nabc\n-----END {label}-----\n");
            let pem = if before.is_empty() { block(label) } else { block(before) + &block(label) };
            assert_eq!(read(format!("{pem}more\n{pem}").as_bytes()), pem);
        }
        let line = "-----BEGIN PRIVATE KEY----- abc -----END PRIVATE KEY-----\n";
        assert_eq!(read(format!("{line}more\n").as_bytes()), line);
        assert_eq!(read(&vec![b'x'; 100_000]).len(), VALUE_MAX + 1);
    }

    #[tokio::test]
    async fn each_signal_by_which_a_user_or_a_terminal_ends_a_command_interrupts() {
        for name in ["INT", "QUIT", "TERM", "HUP"] {
            let mut interruption = Interruption::new().expect("signals");
            // the parent of the shell is this process
            let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} $PPID")]).status();
            assert!(sent.is_ok_and(|status| status.success()), "{name} is not sent");
            let waited = tokio::time::timeout(std::time::Duration::from_secs(10), interruption.wait()).await;
            assert!(waited.is_ok(), "{name}");
        }
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
