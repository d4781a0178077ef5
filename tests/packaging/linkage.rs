//! The programs of image and release are static: each of them is refused if it needs a loader or a library.

use std::{path::Path, process::Command};

use crate::{project, read};

const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");
/// The kinds of the program headers of an ELF file: what is loaded, what its linker is to do, and its loader.
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
/// The tag of a library that is needed, and of another entry of the dynamic section.
const NEEDED: u64 = 1;
const DEBUG: u64 = 21;

/// Whether `scripts/linked-statically` accepts a program.
fn is_accepted(program: &Path) -> bool {
    let mut command = Command::new("scripts/linked-statically");
    command.current_dir(project()).arg(program).output().expect("bash").status.success()
}

/// An ELF file for 64 bits, with one program header and its content.
fn elf(kind: u32, content: &[u8]) -> Vec<u8> {
    const HEADER: u16 = 64;
    const PROGRAM_HEADER: u16 = 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // a shared object for x86-64, of version 1
    file.extend([3_u8, 0, 62, 0, 1, 0, 0, 0]);
    // entry, and where program headers and section headers are
    [0, u64::from(HEADER), 0].iter().for_each(|number| file.extend(number.to_le_bytes()));
    file.extend([0_u8; 4]);
    [HEADER, PROGRAM_HEADER, 1, 64, 0, 0].iter().for_each(|number| file.extend(number.to_le_bytes()));
    file.extend(kind.to_le_bytes());
    // it can be read
    file.extend(4_u32.to_le_bytes());
    let (place, length) = (u64::from(HEADER + PROGRAM_HEADER), content.len() as u64);
    [place, place, place, length, length, 1].iter().for_each(|number| file.extend(number.to_le_bytes()));
    file.extend(content);
    file
}

/// A dynamic section with one entry.
fn dynamic(tag: u64) -> Vec<u8> {
    [tag, 1, 0, 0].iter().flat_map(|number: &u64| number.to_le_bytes()).collect()
}

#[test]
fn program_that_needs_a_loader_or_a_library_is_in_no_image_and_no_release() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let check = |name: &str, content: &[u8]| {
        let file = folder.join(format!("linkage-{name}"));
        std::fs::write(&file, content).expect("written");
        is_accepted(&file)
    };
    assert!(check("static", &elf(LOAD, b"content")));
    assert!(check("position-independent", &elf(DYNAMIC, &dynamic(DEBUG))), "it relocates itself");
    assert!(!check("library", &elf(DYNAMIC, &dynamic(NEEDED))));
    assert!(!check("loader", &elf(INTERPRETER, b"/lib64/ld-linux-x86-64.so.2\0")));
    assert!(!check("text", b"this is no program"));
    assert!(!is_accepted(&folder.join("linkage-missing")));

    // each way to build what is shipped checks it; tests/packaging/release.rs shows the commands of a release
    assert!(read(project().join("scripts/image")).contains("\n  scripts/linked-statically target/image/context/out/"));
    assert!(read(project().join("Dockerfile")).contains("readelf --program-headers /out/itwin-credential-operator"));
}

/// `make` builds it as the image does.
#[test]
fn operator_that_the_tests_run_is_static_if_they_are() {
    if cfg!(target_os = "linux") {
        assert_eq!(is_accepted(Path::new(PROGRAM)), cfg!(target_feature = "crt-static"));
    }
}
