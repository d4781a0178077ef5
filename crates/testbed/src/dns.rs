//! A name server that answers each kind of question as a test wants it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};

/// What it answers to a question for the addresses of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This address.
    Address(IpAddr),
    /// The name exists, and has no address of this kind.
    NoData,
    /// `NXDOMAIN`: there is no such name, although it has addresses of the other kind.
    NoSuchName,
    /// `SERVFAIL`.
    ServerFailure,
    /// Nothing at all.
    Silence,
}

/// How long it takes to notice that it is no longer needed.
const TICK: Duration = Duration::from_millis(200);
/// The size of a header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Seconds that an answer may be kept: none.
const TTL: [u8; 4] = [0; 4];

/// A name server. It stops when this is dropped.
pub struct Dns {
    address: Ipv4Addr,
    is_done: Arc<AtomicBool>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

impl Dns {
    /// Starts it at a loopback address of its own, at the port of name servers, for which root is needed. It answers
    /// questions for IPv4 addresses with `v4`, those for IPv6 addresses with `v6`, whatever the name is.
    ///
    /// # Errors
    /// Fails if no address is free.
    pub fn start(v4: Reply, v6: Reply) -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let process = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, process[2] | 1, process[3], NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = UdpSocket::bind((address, 53)).with_context(|| format!("a name server at {address}"))?;
        socket.set_read_timeout(Some(TICK))?;
        let is_done = Arc::new(AtomicBool::default());
        let ends = is_done.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut question) else { continue };
                reply(&socket, from, &question[..size], v4, v6);
            }
        });
        Ok(Self { address, is_done })
    }

    /// The content of a `resolv.conf` that names it alone.
    #[must_use]
    pub fn resolv_conf(&self, options: &str) -> String {
        format!("nameserver {}\noptions {options}\n", self.address)
    }
}

fn reply(socket: &UdpSocket, from: SocketAddr, question: &[u8], v4: Reply, v6: Reply) {
    let answer = question_end(question).and_then(|end| {
        let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
        let wanted = match kind {
            TYPE_A => v4,
            TYPE_AAAA => v6,
            _ => Reply::NoData,
        };
        answer(&question[..end], wanted)
    });
    if let Some(answer) = answer {
        let _ = socket.send_to(&answer, from);
    }
}

/// The end of the first question: a name, its type, its class.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    while *message.get(at)? != 0 {
        at += usize::from(message[at]) + 1;
    }
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

/// The answer to a message that ends with its question; `None` for silence.
fn answer(question: &[u8], reply: Reply) -> Option<Vec<u8>> {
    let (code, address) = match reply {
        Reply::Address(address) => (0, Some(address)),
        Reply::NoData => (0, None),
        Reply::NoSuchName => (3, None),
        Reply::ServerFailure => (2, None),
        Reply::Silence => return None,
    };
    let mut message = question.to_vec();
    // an answer, with recursion; one question, the addresses, and nothing else
    message[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    message[4..HEADER].copy_from_slice(&[0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    let data = match address {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
        None => return Some(message),
    };
    // the name of the question, its type and class
    message.extend([0xc0, HEADER as u8]);
    message.extend_from_slice(&question[question.len() - 4..]);
    message.extend(TTL);
    message.extend([0, data.len() as u8]);
    message.extend(data);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_repeats_the_question_and_has_the_address() {
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 0, 0, 1, 0, 1];
        let end = question_end(&question).expect("a question");
        assert_eq!(end, question.len());
        // what follows the question is not repeated
        question.extend([0, 0, 41]);
        let found = answer(&question[..end], Reply::Address(Ipv4Addr::LOCALHOST.into())).expect("an answer");
        assert_eq!(found[..HEADER], [7, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(found[end..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        assert_eq!(answer(&question[..end], Reply::NoSuchName).map(|answer| answer[3]), Some(0x83));
        assert_eq!(answer(&question[..end], Reply::Silence), None);
        assert_eq!(question_end(&[0; 5]), None);
    }
}
