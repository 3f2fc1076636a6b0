//! What no compiler checks: who depends on whom, signs on doors, sizes, words, links, lints.
//!
//! Everything here reads the repository as text and as `cargo metadata`, and says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each room, and the rooms of ours that it may stand on. `tests` may stand on all.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("proto", &["types"]),
    ("identity", &["types"]),
    ("manager/core", &["types"]),
    ("manager/raft", &["types"]),
    ("manager/server", &["types", "proto", "identity", "manager/core", "manager/raft"]),
    ("worker/core", &["types"]),
    ("worker/agent", &["types", "proto", "worker/core"]),
    ("worker/network", &["types", "worker/core"]),
    (
        "worker/dataplane",
        &["types", "worker/core", "worker/agent", "worker/dns", "worker/network", "worker/wireguard"],
    ),
    ("worker/dns", &["types"]),
    ("worker/shim", &["worker/wireguard"]),
    ("worker/wireguard", &[]),
    ("worker/runtime", &["types", "worker/core", "worker/agent", "worker/shim"]),
    (
        "node",
        &[
            "types",
            "proto",
            "identity",
            "manager/server",
            "worker/agent",
            "worker/dataplane",
            "worker/runtime",
        ],
    ),
    ("deploy/dev", &[]),
    ("ctl", &["types", "proto", "identity", "deploy/dev"]),
    ("xtask", &[]),
];

/// Rooms that decide, and every crate of others that they may use: none that reaches outside.
const PURE: &[(&str, &[&str])] = &[
    ("types", &["ipnet", "thiserror"]),
    ("manager/core", &["ipnet", "rpds", "thiserror"]),
    ("worker/core", &["ipnet", "thiserror"]),
];

/// Lines before its tests at which a file is asked a question.
const LONG_FILE: usize = 400;
/// Lines at which a function is.
const LONG_FUNCTION: usize = 70;
/// Files and functions that were asked, and may stay.
const LONG_ONES: &str = "tests/tidy_long.txt";

const DOOR: [&str; 4] = ["Reads:", "Writes:", "Never:", "Start:"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").to_owned()
}

/// Every file of the repository with one of these endings, by its path from the root.
fn files(endings: &[&str]) -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped = name == "target" || name == "gen" || name.starts_with('.');
                if !skipped {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let own = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.insert(own, fs::read_to_string(&path).expect("text"));
            }
        }
    }
    assert!(found.len() > 5, "nothing to look at below {}", root.display());
    found
}

/// Rust files that are no tests: not in a folder of tests or examples, not a module under `cfg(test)`.
fn sources() -> BTreeMap<String, String> {
    let all = files(&[".rs"]);
    let mut tests = BTreeSet::new();
    for (path, text) in &all {
        let folder = module_folder(path);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let module = pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod ");
            if let Some(name) = module.and_then(|m| m.strip_suffix(';')) {
                tests.insert(format!("{folder}/{name}.rs"));
                tests.insert(format!("{folder}/{name}/mod.rs"));
            }
        }
    }
    let is_source =
        |path: &str| path.contains("/src/") && !tests.contains(path) && !path.starts_with("tests/");
    all.into_iter().filter(|(path, _)| is_source(path)).collect()
}

/// Where the modules that `path` declares lie.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    }
}

fn no_complaints(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n  {}\n", complaints.join("\n  "));
}

/// A package of the workspace: its folder, and what it depends on by kind (`""`, `dev`, `build`).
struct Package {
    folder: String,
    dependencies: Vec<(String, String)>,
    features: Vec<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let listed = metadata["packages"].as_array().expect("packages").iter().map(|package| {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().expect("in a folder").strip_prefix(root()).expect("ours");
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let package_of = Package {
            folder: folder.to_string_lossy().into_owned(),
            dependencies: dependencies.map(|d| (text(&d["name"]), text(&d["kind"]))).collect(),
            features: package["features"].as_object().expect("features").keys().cloned().collect(),
        };
        (text(&package["name"]), package_of)
    });
    listed.collect()
}

#[test]
fn rooms_stand_only_on_what_the_table_allows() {
    let packages = packages();
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut complaints = Vec::new();
    for (name, package) in packages.iter().filter(|(_, package)| package.folder != "tests") {
        let Some(allowed) = table.get(package.folder.as_str()) else {
            complaints.push(format!("{} has no line in ARROWS (tests/tests/tidy.rs)", package.folder));
            continue;
        };
        for (on, kind) in &package.dependencies {
            let Some(below) = packages.get(on) else { continue };
            // tests may use builders of `types`, and a crate its own fakes
            let for_tests = kind == "dev" && (on == name || below.folder == "types");
            if !for_tests && !allowed.contains(&below.folder.as_str()) {
                complaints.push(format!("{} may not depend on {}", package.folder, below.folder));
            }
        }
    }
    for (folder, _) in ARROWS.iter().filter(|(folder, _)| !packages.values().any(|p| p.folder == *folder)) {
        complaints.push(format!("ARROWS has a line for {folder}, which is no crate"));
    }
    no_complaints("arrows that need a decision (docs/adr) and a line here", &complaints);
}

#[test]
fn rooms_that_decide_cannot_reach_outside() {
    let packages = packages();
    let mut complaints = Vec::new();
    for (folder, allowed) in PURE {
        let package = packages.values().find(|p| p.folder == *folder).expect("a crate");
        for (on, kind) in &package.dependencies {
            if kind.is_empty() && !packages.contains_key(on) && !allowed.contains(&on.as_str()) {
                complaints.push(format!("{folder} may not use {on}"));
            }
        }
    }
    no_complaints("crates in a room that decides", &complaints);
}

#[test]
fn the_only_feature_is_testing() {
    let features = packages().into_iter().flat_map(|(name, package)| {
        let odd = package.features.into_iter().filter(|feature| feature != "testing");
        odd.map(move |feature| format!("{name} has the feature {feature}"))
    });
    no_complaints("behaviour is not chosen when compiling", &features.collect::<Vec<_>>());
}

#[test]
fn names_say_the_path_and_lints_are_the_workspaces() {
    let mut complaints = Vec::new();
    for (name, package) in packages() {
        if package.folder == "xtask" {
            continue; // prints, and has a list of lints of its own that says so
        }
        let expected = format!("swarm-{}", package.folder.replace('/', "-"));
        if name != expected {
            complaints.push(format!("{} is called {name}: call it {expected}", package.folder));
        }
        let manifest = fs::read_to_string(root().join(&package.folder).join("Cargo.toml")).expect("manifest");
        if !manifest.contains("\n[lints]\nworkspace = true\n") {
            complaints.push(format!("{}/Cargo.toml lacks `[lints] workspace = true`", package.folder));
        }
    }
    no_complaints("crates", &complaints);
}

#[test]
fn every_room_of_a_core_has_a_sign_on_its_door() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        let in_core = path.starts_with("manager/core/src/") || path.starts_with("worker/core/src/");
        if !in_core || path == "manager/core/src/lib.rs" || path == "worker/core/src/lib.rs" {
            continue;
        }
        seen += 1;
        let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        for word in DOOR.iter().filter(|word| !head.iter().any(|line| line.trim_start().starts_with(**word)))
        {
            complaints.push(format!("{path}: no `//! {word}` before the code"));
        }
    }
    assert!(seen > 30, "only {seen} files of the cores were found");
    no_complaints("signs", &complaints);
}

/// Names and lengths of the functions in formatted code.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words: Vec<&str> = code.split([' ', '(', '<']).collect();
        let Some(fn_at) = words.iter().position(|word| *word == "fn") else { continue };
        let before = ["pub", "crate)", "super)", "const", "async", "unsafe", "extern", "\"C\"", ""];
        if !words[..fn_at].iter().all(|word| before.contains(word)) {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        // formatted: the brace that ends a function stands alone, below its first letter
        let end = lines[at..].iter().position(|l| l.strip_prefix(indent) == Some("}"));
        let body = lines[at..].iter().position(|l| l.ends_with('{'));
        let declared =
            lines[at..].iter().position(|l| l.ends_with(';') || l.ends_with("; }") || l.ends_with("}"));
        if let (Some(end), Some(body)) = (end, body)
            && declared.is_none_or(|declared| body <= declared)
        {
            found.push((words[fn_at + 1].to_owned(), end + 1));
        }
    }
    found
}

/// The part of a file before its tests.
fn before_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..=at])
}

#[test]
fn nothing_grows_across_a_line() {
    let listed = fs::read_to_string(root().join(LONG_ONES)).expect("the list of long ones");
    let listed: BTreeSet<&str> = listed
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim())
        .filter(|l| !l.is_empty())
        .collect();
    let mut long = BTreeMap::new();
    for (path, text) in sources() {
        let own = before_tests(&text);
        let length = own.lines().count();
        if length > LONG_FILE {
            long.insert(path.clone(), length);
        }
        for (name, length) in functions(own).into_iter().filter(|(_, length)| *length > LONG_FUNCTION) {
            long.insert(format!("{path}::{name}"), length);
        }
    }
    let new = long.iter().filter(|(what, _)| !listed.contains(what.as_str()));
    let new = new.map(|(what, lines)| format!("{what} has {lines} lines: split it by noun, or list it"));
    let gone = listed.iter().filter(|what| !long.contains_key(**what));
    let gone = gone.map(|what| format!("{what} is not long any more: take it off the list"));
    no_complaints(LONG_ONES, &new.chain(gone).collect::<Vec<_>>());
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    pub(crate) async fn a(\n        x: u8,\n    ) -> u8 {\n        x\n    }\n\n    fn b() {}\n}\n\
                trait T {\n    fn c(&self);\n    fn d() -> u8;\n}\nfn e<T>() {\n    1\n}\n// fn f() {\n";
    assert_eq!(functions(text), [("a".to_owned(), 5), ("e".to_owned(), 3)]);
}

#[test]
fn words_that_mean_unfinished_are_not_there() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("d", "bg!(")];
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs"]) {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{path}:{}: {word}…)", number + 1));
            }
        }
    }
    no_complaints("unfinished", &complaints);
}

#[test]
fn unsafe_code_has_one_file_in_each_of_its_rooms() {
    let allowed = ["dataplane", "network", "runtime", "shim", "wireguard"]
        .map(|room| format!("worker/{room}/src/sys.rs"));
    let allows = concat!("allow(", "unsafe_code");
    let found = files(&[".rs"]).into_iter().filter(|(_, text)| text.contains(allows));
    let odd = found.map(|(path, _)| path).filter(|path| !allowed.contains(path));
    no_complaints("files that allow unsafe code", &odd.collect::<Vec<_>>());
}

/// Every `](target)` of a text, outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if !in_code {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(str::to_owned));
        }
    }
    found
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Words in backticks that name a file of the repository.
fn named_files(text: &str) -> Vec<String> {
    let rooms = [
        "types", "proto", "identity", "manager", "worker", "node", "ctl", "deploy", "tests", "docs", "xtask",
    ];
    let endings = [".rs", ".md", ".toml", ".proto", ".sh", ".service", ".txt"];
    let words = text.split('`').skip(1).step_by(2);
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let ours = words.filter(plain).filter(|word| {
        let (first, rest) = word.split_once('/').unwrap_or((word, ""));
        rooms.contains(&first) && endings.iter().any(|ending| rest.ends_with(ending))
    });
    ours.map(str::to_owned).collect()
}

#[test]
fn links_and_files_in_documents_are_there() {
    let texts = files(&[".md"]);
    let mut complaints = Vec::new();
    for (path, text) in &texts {
        let folder = Path::new(path).parent().expect("in a folder").to_owned();
        for link in links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { root().join(path) } else { root().join(&folder).join(file) };
            let has_part = part.is_empty()
                || fs::read_to_string(&target)
                    .unwrap_or_default()
                    .lines()
                    .any(|l| l.starts_with('#') && anchor(l) == part);
            if !target.exists() || !has_part {
                complaints.push(format!("{path}: the link {link} leads nowhere"));
            }
        }
        for named in named_files(text).into_iter().filter(|named| !root().join(named).exists()) {
            complaints.push(format!("{path}: there is no file {named}"));
        }
    }
    no_complaints("documents", &complaints);
}

#[test]
fn every_crate_is_described() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let missing = packages().into_values().map(|package| package.folder);
    let missing = missing.filter(|folder| !text.contains(&format!("| `{folder}` |")));
    no_complaints("docs/architecture.md has no line for", &missing.collect::<Vec<_>>());
}
