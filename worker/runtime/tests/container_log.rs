//! Logs of real containers: read, limited, rotated and followed.

mod support;

use std::time::Duration;

use futures::StreamExt;
use support::{Place, within};
use swarm_types::time::Timestamp;
use swarm_worker_runtime::container::config::LogSettings;
use swarm_worker_runtime::container::{ContainerConfig, LogOptions, LogStream};

#[tokio::test]
async fn streams_tail_and_since_choose_lines() {
    let place = Place::new();
    let script = "for i in 1 2 3 4 5; do echo out$i; done; echo err >&2; printf rest";
    place.run("c", place.shell(script)).await;
    let texts = |lines: Vec<swarm_worker_runtime::container::LogLine>| -> Vec<String> {
        lines.iter().map(|l| String::from_utf8_lossy(&l.content).into_owned()).collect()
    };
    let all = LogOptions::default();
    let out = place.lines("c", LogOptions { stderr: false, ..all }).await;
    assert_eq!(texts(out), ["out1", "out2", "out3", "out4", "out5", "rest"]);
    let err = place.lines("c", LogOptions { stdout: false, ..all }).await;
    assert!(err.iter().all(|l| l.stream == LogStream::Stderr));
    assert_eq!(texts(err), ["err"]);
    let tail = place.lines("c", LogOptions { tail: Some(2), stderr: false, ..all }).await;
    assert_eq!(texts(tail), ["out5", "rest"]);
    assert_eq!(place.lines("c", LogOptions { tail: Some(0), ..all }).await, []);
    assert_eq!(place.lines("c", LogOptions { since: Some(Timestamp::MAX), ..all }).await, []);
    assert_eq!(place.lines("c", LogOptions { since: Some(Timestamp(1)), ..all }).await.len(), 7);
}

#[tokio::test]
async fn a_follower_gets_every_line_and_an_end() {
    let place = Place::new();
    let script =
        "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); [ $((i%50)) = 0 ] && sleep 0.05; done; true";
    place.begin("c", place.shell(script)).await.expect("start");
    let lines = place.lines("c", LogOptions { follow: true, ..LogOptions::default() }).await;
    let texts: Vec<String> = lines.iter().map(|l| String::from_utf8_lossy(&l.content).into_owned()).collect();
    assert_eq!(texts, (0..200).map(|i| format!("line {i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_follower_survives_rotation() {
    let place = Place::new();
    let script = "read x < /go; i=0; while [ $i -lt 3000 ]; do echo line number $i; i=$((i+1)); done";
    let log = LogSettings { max_size: 8 << 10, max_files: 40 };
    let config =
        ContainerConfig { log, ..place.shell(&format!("mkfifo /go; (sleep 0.1; echo > /go) & {script}")) };
    place.begin("c", config).await.expect("start");
    let lines = place.lines("c", LogOptions { follow: true, ..LogOptions::default() }).await;
    assert_eq!(lines.len(), 3000, "nothing lost, nothing twice");
    assert_eq!(&lines[2999].content[..], b"line number 2999");
}

#[tokio::test]
async fn the_log_is_bounded() {
    let place = Place::new();
    let log = LogSettings { max_size: 100 << 10, max_files: 2 };
    let flood = place.shell("yes 0123456789012345678901234567890123456789 | head -n 50000");
    let (exit, _) = place.run("c", ContainerConfig { log, ..flood }).await;
    assert_eq!(exit.code, 0);
    let dir = place.path("containers/c/log");
    let sizes: Vec<u64> = std::fs::read_dir(dir)
        .expect("log")
        .map(|e| e.expect("entry").metadata().expect("metadata").len())
        .collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|s| *s <= 101 << 10), "{sizes:?}");
}

#[tokio::test]
async fn a_removed_container_ends_its_followers() {
    let place = Place::new();
    place.begin("c", place.shell("echo up; sleep 1000")).await.expect("start");
    let stream = place.containers.logs("c", LogOptions { follow: true, ..LogOptions::default() }).await;
    let mut stream = Box::pin(stream.expect("log"));
    let first = within(stream.next()).await.expect("a line").expect("readable");
    assert_eq!(&first.content[..], b"up");
    let quiet = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
    assert!(quiet.is_err(), "nothing more yet");
    place.containers.remove("c").await.expect("remove");
    assert!(within(stream.next()).await.is_none());
}

#[tokio::test]
async fn odd_output_is_kept_as_it_is() {
    let place = Place::new();
    let script = "printf 'a\\000b\\377\\n\\n'; head -c 40000 /dev/zero | tr '\\0' x";
    place.run("c", place.shell(script)).await;
    let lines = place.lines("c", LogOptions::default()).await;
    assert_eq!(&lines[0].content[..], b"a\0b\xff");
    assert_eq!(&lines[1].content[..], b"");
    let long: usize = lines[2..].iter().map(|l| l.content.len()).sum();
    assert_eq!(long, 40000);
    let (last, before) = lines[2..].split_last().expect("parts");
    assert!(before.iter().all(|l| l.partial) && !last.partial);
}
