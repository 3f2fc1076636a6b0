//! Images on the nodes: from files and from a registry; and control from afar.

use std::path::Path;
use std::process::{Child, Stdio};

use swarm_tests::hosts::{Hosts, Said, until};

#[test]
fn images_from_files() {
    let hosts = Hosts::bare(1, 1);
    hosts.init("m1", "");
    hosts.ok("w1", &format!("join --token {} {}", hosts.token("m1", "worker"), hosts.address("m1")));
    hosts.until_node("m1", "w1", "Status", "Ready");
    broken_archives_are_refused(&hosts);
    hosts.load();
    loaded_images_are_on_every_node(&hosts);
    images_are_removed(&hosts);
    hosts.end();
}

fn nodes_of(h: &Hosts, repository: &str) -> Option<String> {
    let rows = h.rows("m1", "image ls");
    let row = rows.iter().find(|row| row["Repository"] == repository)?;
    row["Nodes"].as_str().map(str::to_owned)
}

fn loaded_images_are_on_every_node(h: &Hosts) {
    assert_eq!(nodes_of(h, "demo").as_deref(), Some("m1,w1"));
    let file = h.image_file("local/two:3");
    let said = h.ok("m1", &format!("image load --node w1 -i {}", file.display()));
    assert!(said.contains("Loaded image: local/two:3"), "{said}");
    assert_eq!(nodes_of(h, "local/two").as_deref(), Some("w1"));
    let said = h.sh(
        "m1",
        &format!(
            "{} --host unix://{} image load < {}",
            ctl(),
            h.cluster.socket("m1").display(),
            file.display()
        ),
    );
    assert_eq!(said.code, 0, "from standard input: {said}");
    assert_eq!(nodes_of(h, "local/two").as_deref(), Some("m1,w1"));
}

fn broken_archives_are_refused(h: &Hosts) {
    let whole = std::fs::read(h.image_file("broken:1")).unwrap();
    let broken = h.scratch().join("broken.tar");
    let mut flipped = whole.clone();
    // in the middle of the layer: its digest is not what the configuration says
    flipped[whole.len() / 2] ^= 1;
    for (what, bytes) in
        [("cut off", &whole[..whole.len() / 2]), ("text", b"no archive".as_slice()), ("flipped", &flipped)]
    {
        std::fs::write(&broken, bytes).unwrap();
        let said = h.ctl("m1", &format!("image load -i {}", broken.display()));
        assert!(said.code == 1 && said.err.contains("Error"), "{what}: {said}");
    }
    assert_eq!(nodes_of(h, "broken"), None);
    h.refused("m1", "image load -i /no/such/file", "/no/such/file");
    // nothing half unpacked stays
    for host in ["m1", "w1"] {
        let tmp = h.cluster.state_dir(host).join("images/tmp");
        until("no file is left over", || std::fs::read_dir(&tmp).unwrap().count() == 0);
    }
}

fn images_are_removed(h: &Hosts) {
    h.ok("m1", "image rm --node m1 local/two:3");
    assert_eq!(nodes_of(h, "local/two").as_deref(), Some("w1"));
    h.ok("m1", "image rm --node w1 local/two:3");
    assert_eq!(nodes_of(h, "local/two"), None);
    h.refused("m1", "image rm nope:1", "nope:1");
    h.ok("m1", "service create -d --name user --mode global demo:1");
    h.until_running("m1", "user", 2);
    h.refused("m1", "image rm demo:1", "is using");
    h.ok("m1", "service rm user");
    h.until_no_containers();
    h.ok("m1", "image rm demo:1");
    assert!(h.rows("m1", "image ls").is_empty());
    for host in ["m1", "w1"] {
        let layers = h.cluster.state_dir(host).join("images/layers");
        until("its layers are gone", || std::fs::read_dir(&layers).unwrap().count() == 0);
    }
}

/// Debian's registry on the loopback of a host.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn registry(h: &Hosts, host: &str) -> Registry {
    let config = h.scratch().join("registry.yml");
    let data = h.scratch().join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:5000}}\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let argv = ["docker-registry", "serve", &config.display().to_string()].map(Into::into);
    let mut command = h.cluster.command(host, &argv).unwrap();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let registry = Registry(child);
    until("the registry answers", || curl(h, host, "-f http://127.0.0.1:5000/v2/").code == 0);
    registry
}

fn curl(h: &Hosts, host: &str, args: &str) -> Said {
    h.sh(host, &format!("curl -sS --max-time 20 {args}"))
}

fn digest(file: &Path) -> String {
    let out = std::process::Command::new("sha256sum").arg(file).output().unwrap();
    format!("sha256:{}", &String::from_utf8(out.stdout).unwrap()[..64])
}

fn push_blob(h: &Hosts, host: &str, file: &Path) -> (String, u64) {
    let digest = digest(file);
    let said = curl(h, host, "-D - -o /dev/null -X POST http://127.0.0.1:5000/v2/demo/blobs/uploads/");
    let place = said.out.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
    let with = if place.contains('?') { '&' } else { '?' };
    let put = format!(
        "-f -X PUT -H 'Content-Type: application/octet-stream' --data-binary @{} '{place}{with}digest={digest}'",
        file.display()
    );
    let said = curl(h, host, &put);
    assert_eq!(said.code, 0, "{said}");
    (digest, std::fs::metadata(file).unwrap().len())
}

/// Puts the demo image into the registry as demo:1; the manifest's digest.
fn push(h: &Hosts, host: &str) -> String {
    let dir = h.scratch().join("unpacked");
    std::fs::create_dir(&dir).unwrap();
    let tar = format!("tar -xf {} -C {}", h.image_file("demo:1").display(), dir.display());
    assert_eq!(h.sh(host, &tar).code, 0);
    let text = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let part = |value: &serde_json::Value| dir.join(value.as_str().unwrap());
    let config = push_blob(h, host, &part(&manifest[0]["Config"]));
    let layer = push_blob(h, host, &part(&manifest[0]["Layers"][0]));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1}],
    });
    let file = dir.join("pushed.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let put = format!(
        "-f -X PUT -H 'Content-Type: {kind}' --data-binary @{} http://127.0.0.1:5000/v2/demo/manifests/1",
        file.display()
    );
    let said = curl(h, host, &put);
    assert_eq!(said.code, 0, "{said}");
    digest(&file)
}

#[test]
fn images_from_a_registry() {
    let mut hosts = Hosts::bare(1, 0);
    hosts.init("m1", "");
    let registry = registry(&hosts, "m1");
    let digest = push(&hosts, "m1");
    pulled_by_tag_and_by_digest(&hosts, &digest);
    c40_image_that_cannot_be_pulled(&mut hosts);
    drop(registry);
    c40_registry_that_is_gone(&mut hosts);
    hosts.end();
}

fn pulled_by_tag_and_by_digest(h: &Hosts, digest: &str) {
    h.ok("m1", "service create -d --name tag 127.0.0.1:5000/demo:1");
    h.until_running("m1", "tag", 1);
    let rows = h.rows("m1", "image ls");
    assert_eq!(rows[0]["Repository"], "127.0.0.1:5000/demo");
    assert_eq!(rows[0]["Digest"], digest);
    h.ok("m1", "service rm tag");
    h.until_no_containers();
    h.ok("m1", "image rm 127.0.0.1:5000/demo:1");
    h.ok("m1", &format!("service create -d --name dig 127.0.0.1:5000/demo@{digest}"));
    h.until_running("m1", "dig", 1);
    h.ok("m1", "service rm dig");
    h.until_no_containers();
    let said = h.ok("m1", "image pull 127.0.0.1:5000/demo:1");
    assert!(said.contains("127.0.0.1:5000/demo:1"), "{said}");
    let wrong = format!("sha256:{}", "0".repeat(64));
    h.refused("m1", &format!("image pull 127.0.0.1:5000/demo@{wrong}"), "Error");
}

fn c40_image_that_cannot_be_pulled(h: &mut Hosts) {
    h.expect_log(&["operation failed, trying again"]);
    h.ok("m1", "service create -d --name none --restart-delay 200ms 127.0.0.1:5000/nope:1");
    h.until_task("m1", "none", "Rejected", "No such image: 127.0.0.1:5000/nope:1");
    until("it is tried again", || h.tasks("m1", "none").len() >= 3);
    h.ok("m1", "service update -d -q --image 127.0.0.1:5000/demo:1 none");
    h.until_running("m1", "none", 1);
    h.ok("m1", "service rm none");
    h.refused("m1", "image pull 127.0.0.1:5000/nope:1", "nope");
}

fn c40_registry_that_is_gone(h: &mut Hosts) {
    h.until_no_containers();
    // what is there needs no registry
    h.ok("m1", "service create -d --name here 127.0.0.1:5000/demo:1");
    h.until_running("m1", "here", 1);
    h.ok("m1", "service create -d --name away 127.0.0.1:5000/demo:2");
    h.until_task("m1", "away", "Rejected", "refused");
    h.ok("m1", "service rm here away");
    h.until_no_containers();
}

fn ctl() -> String {
    Path::new(&std::env::var_os("SWARM_BIN_DIR").unwrap()).join("swarmctl").display().to_string()
}

#[test]
fn control_from_another_machine() {
    let hosts = Hosts::patient(2, 1);
    let file = hosts.scratch().join("alice.pem");
    hosts.ok("m1", &format!("admin-cert alice -o {}", file.display()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the key is nobody else's");
    let on_client = |line: &str| hosts.sh("client", &format!("{} {line}", ctl()));
    let said = on_client(&format!("--host tcp://{} node ls", hosts.address("m1")));
    assert!(said.code != 0 && said.err.contains("certificate"), "nobody gets in without: {said}");
    assert_eq!(on_client(&format!("context import prod {}", file.display())).code, 0);
    let said = on_client("--context prod node ls --format json");
    assert!(said.code == 0 && said.out.lines().count() == 3, "{said}");
    assert_eq!(on_client("context use prod").code, 0);
    let said = on_client("service create --name far --replicas 3 demo:1");
    assert!(said.code == 0 && said.out.contains("Service converged"), "{said}");
    assert_eq!(on_client("service logs far").code, 0);
    let file = hosts.image_file("far:1");
    let said = on_client(&format!("image load -i {}", file.display()));
    assert!(said.code == 0 && said.out.contains("Loaded image: far:1"), "{said}");
    // what only the machine itself may be told
    for line in ["leave --force", "init", &format!("join --token x {}", hosts.address("m2"))] {
        let said = on_client(line);
        assert!(said.code != 0, "{line}: {said}");
    }
    assert_eq!(hosts.state("m1"), "active");
    assert_eq!(on_client("service rm far").code, 0);
    hosts.end();
}
