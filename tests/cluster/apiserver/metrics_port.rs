//! The operator while a client holds connections to the port of metrics and probes. `src/runtime/connections` has the
//! other tests of that server.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::fixture::{Fixture, PATIENCE};

/// Connections of which each sends an unfinished header. With the defaults of the HTTP library they took 160 MiB.
const WITH_HEADER: usize = 400;
const HEADER: usize = 390_000;
/// Connections that send nothing.
const IDLE: usize = 300;
/// What both may cost, in bytes of memory and in open files.
const ALLOWED_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
const ALLOWED_FILES: usize = 48;
/// The contract gives this to a process that is stopped.
const END: Duration = Duration::from_secs(10);

/// A connection from another address than that of the probes.
async fn connect(fixture: &Fixture) -> Result<TcpStream> {
    let address: SocketAddr = fixture.operator.address().parse()?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    timeout(PATIENCE, socket.connect(address)).await?.context("a connection")
}

fn open_files(fixture: &Fixture) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", fixture.operator.process.id()))?.count())
}

#[tokio::test]
async fn connections_that_are_held_cost_little_and_neither_fail_probes_nor_delay_the_end() -> Result<()> {
    let mut fixture = Fixture::bare("held-connections").await?;
    let (memory, files) = (fixture.metric("process_resident_memory_bytes").await?, open_files(&fixture)?);
    let header = [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; HEADER]].concat();
    let mut held = Vec::new();
    for _ in 0..WITH_HEADER {
        let mut stream = connect(&fixture).await?;
        // an error means that the operator has closed it
        let _ = timeout(PATIENCE, stream.write_all(&header)).await?;
        held.push(stream);
    }
    assert_eq!(fixture.operator.get("/healthz").await?, "ok\n");
    let after = fixture.metric("process_resident_memory_bytes").await?;
    assert!(after - memory < ALLOWED_BYTES, "{memory} bytes before and {after} with unfinished headers");
    // this process may have 1,024 open files
    held.clear();
    for _ in 0..IDLE {
        held.push(connect(&fixture).await?);
    }
    // connections are accepted in order: those before the probe were
    assert_eq!(fixture.operator.get("/readyz").await?, "ok\n");
    let open = open_files(&fixture)?;
    assert!(open < files + ALLOWED_FILES, "{files} open files before and {open} with {IDLE} idle connections");
    fixture.operator.process.signal(Signal::SIGTERM);
    assert_eq!(fixture.operator.process.wait(END), Some(0));
    Ok(())
}
