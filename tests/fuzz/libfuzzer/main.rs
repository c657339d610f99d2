//! The program of each cargo-fuzz target: it runs the target that has the program's name.
#![no_main]
#![forbid(unsafe_op_in_unsafe_fn)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let targets = mimus_fuzz::targets();
    let target = targets.iter().find(|target| target.name == env!("CARGO_BIN_NAME"));
    target.expect("the manifest names targets").run(bytes);
});
