//! All scripts of `tests/scenarios`: what they print is what stands below their line `----`.
//! `UPDATE_EXPECT=1` writes it anew.

use std::path::Path;

use swarm_tests::scenario::play;

#[test]
fn scenarios_print_what_they_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let only = std::env::var("SCENARIO").ok();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut wrong = Vec::new();
    let mut played = 0;
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        played += 1;
        let text = std::fs::read_to_string(&file).unwrap();
        let (script, expected) = text.split_once("----\n").unwrap_or((&text, ""));
        let printed =
            play(script, false).unwrap_or_else(|why| format!("{}\n", why.lines().next().unwrap_or_default()));
        if printed == expected {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, format!("{}\n----\n{printed}", script.trim_end())).unwrap();
        } else {
            wrong.push(format!("{name}:\n--- expected\n{expected}--- printed\n{printed}"));
        }
    }
    assert!(played > 0, "no scenario found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
