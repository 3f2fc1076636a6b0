//! The generated code is committed, so that building needs no generator. This test makes it anew
//! and compares; `cargo xtask gen` (which sets UPDATE_GENERATED=1) writes it.

use std::path::Path;

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["control", "node", "dispatcher", "ca", "raft", "store"].map(|f| format!("{f}.proto"));
    let descriptors = protox::compile(&files, [root.join("proto")]).expect("the .proto files compile");
    let out = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code is generated");
    let made = std::fs::read_to_string(out.path().join("swarm.v1.rs")).expect("generated file");
    let kept = root.join("src/gen/swarm.v1.rs");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(root.join("src/gen")).expect("make src/gen");
        std::fs::write(&kept, made).expect("write generated code");
        return;
    }
    let committed = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(made == committed, "src/gen/swarm.v1.rs is out of date: run `cargo xtask gen`");
}
