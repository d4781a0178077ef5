//! See `src/texts.rs`, which tests of the workspace run too.
#![no_main]

use itwin_credential_operator_fuzz::texts::run;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| run(data));
