//! What daemon and helper say to each other.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{KEY_LEN, KeyPair};
use crate::netlink::Prefix;
use crate::peer::Peer;
use crate::tunnel::PeerStatus;

/// Grows when a daemon and a helper of different versions could misunderstand each other. A field that may be
/// missing is no reason.
pub const PROTOCOL: u32 = 1;

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The same in all versions.
    Hello {
        version: u32,
    },
    /// To end. The same in all versions.
    Stop,
    /// To carry packets. Comes with the device and the socket.
    Start(Start),
    SetOwnKeys(Vec<Secret>),
    SetPeers(Vec<Peer>),
    Peers,
}

/// From the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// `version` is the same in all versions.
    Hello(About),
    Done,
    Peers(Vec<PeerStatus>),
    /// Nothing was done, and why.
    Refused(String),
}

/// What a tunnel is started with, besides the device and the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// For people.
    pub(crate) device: String,
    /// Whether the device takes several UDP packets in one.
    pub(crate) joins_udp: bool,
    pub(crate) addresses: Vec<Prefix>,
    pub(crate) own: Vec<Secret>,
}

/// Who the helper is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) version: u32,
    /// The version of the program, for people.
    #[serde(default)]
    pub(crate) program: String,
    /// None: it was not told to start one.
    #[serde(default)]
    pub(crate) tunnel: Option<Running>,
}

/// The tunnel that a helper carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) device: String,
    pub(crate) listen: SocketAddr,
    pub(crate) addresses: Vec<Prefix>,
}

/// The secret half of a key on its way; wiped when it is dropped.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(#[serde(with = "octets")] Zeroizing<[u8; KEY_LEN]>);

impl Secret {
    pub(crate) fn of(pair: &KeyPair) -> Self {
        Secret(pair.secret())
    }

    pub(crate) fn pair(&self) -> KeyPair {
        KeyPair::from_secret(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

mod octets {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    use crate::key::KEY_LEN;

    pub(super) fn serialize<S: Serializer>(
        octets: &Zeroizing<[u8; KEY_LEN]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        octets.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, D::Error> {
        <[u8; KEY_LEN]>::deserialize(from).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_arrives_and_is_never_shown() {
        let pair = KeyPair::from_secret(&[0xab; KEY_LEN]);
        let request = Request::SetOwnKeys(vec![Secret::of(&pair)]);
        assert_eq!(format!("{request:?}"), "SetOwnKeys([Secret])");
        let text = serde_json::to_vec(&request).unwrap();
        let Request::SetOwnKeys(back) = serde_json::from_slice(&text).unwrap() else {
            panic!("another request")
        };
        assert_eq!(back[0].pair().public(), pair.public());
    }

    #[test]
    fn what_all_versions_have_in_common_is_as_it_was() {
        let text = |value: &dyn erased::Text| value.text();
        assert_eq!(text(&Request::Hello { version: 1 }), r#"{"hello":{"version":1}}"#);
        assert_eq!(text(&Request::Stop), r#""stop""#);
        // an answer of a later version, with fields that we do not know
        let later = r#"{"hello":{"version":9,"colour":"green"}}"#;
        let Reply::Hello(about) = serde_json::from_str(later).unwrap() else { panic!("another answer") };
        assert_eq!((about.version, about.tunnel), (9, None));
    }

    mod erased {
        pub(super) trait Text {
            fn text(&self) -> String;
        }
        impl<T: serde::Serialize> Text for T {
            fn text(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }
}
