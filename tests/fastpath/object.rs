//! The object that is committed is what the source gives.

use std::process::Command;

#[test]
fn the_committed_object_is_what_the_source_gives() {
    let root = env!("CARGO_MANIFEST_DIR");
    let out = Command::new("deploy/build-bpf").arg("--check").current_dir(root).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
}
