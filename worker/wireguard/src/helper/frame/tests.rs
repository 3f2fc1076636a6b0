//! What comes over the socket may be anything.

use std::io::Cursor;
use std::os::fd::AsFd;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::message::{Reply, Request};
use super::*;

fn framed(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_le_bytes(), text].concat()
}

fn parsed<T: DeserializeOwned>(octets: &[u8]) -> Result<T, FrameError> {
    parse(&read(&mut Cursor::new(octets))?)
}

#[test]
fn a_message_arrives_with_its_files_and_the_next_one_without() {
    let (one, two) = UnixStream::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    send(&one, &Request::Stop, &[file.as_fd(), file.as_fd()]).unwrap();
    send(&one, &Request::Peers, &[]).unwrap();
    let (request, files) = receive::<Request>(&two).unwrap();
    assert!(matches!(request, Request::Stop) && files.len() == 2, "{request:?} {files:?}");
    let (request, files) = receive::<Request>(&two).unwrap();
    assert!(matches!(request, Request::Peers) && files.is_empty(), "{request:?} {files:?}");
    drop(one);
    assert!(matches!(receive::<Request>(&two), Err(FrameError::Gone)));
}

#[test]
fn a_message_may_be_larger_than_the_socket_holds() {
    let (one, two) = UnixStream::pair().unwrap();
    let long = "x".repeat(3 << 20);
    let sender = std::thread::spawn({
        let reply = Reply::Refused(long.clone());
        move || send(&one, &reply, &[]).unwrap()
    });
    let Reply::Refused(got) = receive::<Reply>(&two).unwrap().0 else { panic!("another reply") };
    assert!(got == long);
    sender.join().unwrap();
}

#[test]
fn what_is_too_long_is_refused_before_it_is_there() {
    for length in [LONGEST + 1, u32::MAX as usize] {
        let head = u32::try_from(length).unwrap().to_le_bytes();
        assert!(matches!(parsed::<Request>(&head), Err(FrameError::TooLong(l)) if l == length));
    }
    let (one, _two) = UnixStream::pair().unwrap();
    let reply = Reply::Refused("x".repeat(LONGEST));
    assert!(matches!(send(&one, &reply, &[]), Err(FrameError::TooLong(_))));
}

#[test]
fn what_is_cut_short_is_the_end() {
    let whole = framed(br#"{"hello":{"version":1}}"#);
    for end in 0..whole.len() {
        assert!(matches!(parsed::<Request>(&whole[..end]), Err(FrameError::Gone)), "{end}");
    }
    parsed::<Request>(&whole).unwrap();
}

#[test]
fn nonsense_is_unreadable_and_its_words_are_not_repeated() {
    let deep = "[".repeat(100_000);
    let short_secret = r#"{"set_own_keys":[[1,2,3]]}"#;
    let texts =
        ["", "null", "{}", r#"{"set_own_keys":["hunter2"]}"#, short_secret, r#""dance""#, "\u{0}", &deep];
    for text in texts {
        let err = parsed::<Request>(&framed(text.as_bytes())).unwrap_err();
        assert!(matches!(err, FrameError::Unreadable(_)), "{text:.40}: {err}");
        assert_eq!(err.to_string(), "a message cannot be read");
    }
}

proptest! {
    #[test]
    fn any_octets_are_an_error_at_worst(octets in vec(any::<u8>(), 0..300)) {
        drop(parsed::<Request>(&octets));
        drop(parsed::<Reply>(&octets));
        prop_assert!(parsed::<Request>(&framed(&octets)).is_err());
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message(at in any::<prop::sample::Index>(), octet: u8) {
        let text = br#"{"start":{"device":"sw-wg0","joins_udp":true,"addresses":[["100.127.0.1",16]],"own":[]}}"#;
        parsed::<Request>(&framed(text)).unwrap();
        let mut octets = framed(text);
        let at = at.index(octets.len());
        octets[at] = octet;
        drop(parsed::<Request>(&octets));
    }
}
