//! DNS for pods: the name of the authorization server, and nothing else. Pods query as in any cluster, with
//! the search domains of their namespace first.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
};

use anyhow::{Context, Result};

use super::{ADDRESS, AUTHORITY, machine};

const PORT: u16 = 53;
/// A query without extensions fits into this (RFC 1035 section 4.2.1).
const LONGEST: usize = 512;
const HEADER: usize = 12;
/// The type of a query for an address of version 4.
const ADDRESS_RECORD: [u8; 2] = [0, 1];

/// Answers queries for the life of this process. Programs outside the node get the same name from their hosts file.
pub(super) async fn serve(directory: &Path) -> Result<()> {
    machine::cover("/etc/hosts", &directory.join("hosts"), &format!("127.0.0.1 localhost\n{ADDRESS} {AUTHORITY}\n"))
        .await?;
    let address: Ipv4Addr = ADDRESS.parse()?;
    let socket = UdpSocket::bind((address, PORT)).context("names cannot be served")?;
    std::thread::spawn(move || {
        let mut query = [0; LONGEST];
        while let Ok((length, asker)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length], address) {
                // the client repeats its query
                let _ = socket.send_to(&answer, asker);
            }
        }
    });
    Ok(())
}

/// The answer to a query; none if it is not a query.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    // type and class
    let question = query.get(HEADER..at + 4)?;
    let is_ours = name.join(".") == AUTHORITY;
    let has_answer = is_ours && question[question.len() - 4..question.len() - 2] == ADDRESS_RECORD;
    let mut answer = query[..2].to_vec();
    // an answer, recursion was desired and is available; 3 is a name that does not exist
    answer.extend([0x81, if is_ours { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
    answer.extend(question);
    if has_answer {
        // the name of the question, type, class, 60 s, four bytes
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut query = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap_or_default());
            query.extend(label.bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        query
    }

    #[test]
    fn authority_has_an_address_and_nothing_else_exists() {
        let address = Ipv4Addr::new(10, 88, 0, 1);
        let found = answer(&query(AUTHORITY, 1), address).unwrap_or_default();
        assert_eq!(found[..8], [7, 8, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(found.ends_with(&address.octets()));
        let version_6 = answer(&query(AUTHORITY, 28), address).unwrap_or_default();
        assert_eq!(version_6[3..8], [0x80, 0, 1, 0, 0], "it exists and has none");
        let other = answer(&query("ims.testbed.test.team.svc.cluster.local", 1), address).unwrap_or_default();
        assert_eq!(other[3] & 0x0f, 3, "no such name");
        assert_eq!(answer(&[1, 2, 3], address), None);
    }
}
