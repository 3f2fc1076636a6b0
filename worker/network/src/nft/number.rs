//! Numbers of nftables (`linux/netfilter/nf_tables.h`, and nft's own types of data).

pub(crate) const SUBSYSTEM: u16 = 10 << 8;
pub(crate) const BATCH_BEGIN: u16 = 16;
pub(crate) const BATCH_END: u16 = 17;

pub(crate) mod message {
    use super::SUBSYSTEM;
    pub(crate) const NEW_TABLE: u16 = SUBSYSTEM;
    pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
    pub(crate) const DELETE_TABLE: u16 = SUBSYSTEM | 2;
    pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
    pub(crate) const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
    pub(crate) const NEW_RULE: u16 = SUBSYSTEM | 6;
    pub(crate) const GET_RULE: u16 = SUBSYSTEM | 7;
    pub(crate) const DELETE_RULE: u16 = SUBSYSTEM | 8;
    pub(crate) const NEW_SET: u16 = SUBSYSTEM | 9;
    pub(crate) const GET_SET: u16 = SUBSYSTEM | 10;
    pub(crate) const DELETE_SET: u16 = SUBSYSTEM | 11;
    pub(crate) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
    pub(crate) const GET_ELEMENT: u16 = SUBSYSTEM | 13;
    pub(crate) const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
    pub(crate) const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    pub(crate) const GET_GENERATION: u16 = SUBSYSTEM | 16;
}

pub(crate) mod flag {
    pub(crate) const ANONYMOUS: u32 = 1;
    pub(crate) const CONSTANT: u32 = 2;
    pub(crate) const INTERVAL: u32 = 4;
    pub(crate) const MAP: u32 = 8;
    pub(crate) const CONCAT: u32 = 0x80;
}

/// nft's types of data; the kernel keeps them for it.
pub(crate) mod kind {
    pub(crate) const VERDICT: u32 = 0xffff_ff00;
    pub(crate) const NFPROTO: u32 = 2;
    pub(crate) const INTEGER: u32 = 4;
    pub(crate) const IP: u32 = 7;
    pub(crate) const IP6: u32 = 8;
    pub(crate) const ETHER: u32 = 9;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    pub(crate) const ICMP_TYPE: u32 = 14;
    pub(crate) const TCP_FLAG: u32 = 15;
    pub(crate) const MARK: u32 = 19;
    pub(crate) const CT_STATE: u32 = 26;
    pub(crate) const CT_DIRECTION: u32 = 27;
    pub(crate) const CT_STATUS: u32 = 28;
    pub(crate) const ICMP6_TYPE: u32 = 29;
    pub(crate) const FIB_TYPE: u32 = 38;
    pub(crate) const NAME: u32 = 41;
    /// Types of several fields are put together, so many bits each.
    pub(crate) const BITS: u32 = 6;
}

/// `meta`.
pub(crate) mod meta {
    pub(crate) const PROTOCOL: u32 = 1;
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const IIFTYPE: u32 = 8;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
}

/// `ct`.
pub(crate) mod ct {
    pub(crate) const STATE: u32 = 0;
    pub(crate) const DIRECTION: u32 = 1;
    pub(crate) const STATUS: u32 = 2;
    pub(crate) const MARK: u32 = 3;
    pub(crate) const ZONE: u32 = 17;
}

/// Where in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;
pub(crate) const JUMP: i32 = -3;
pub(crate) const GOTO: i32 = -4;
pub(crate) const RETURN: i32 = -5;

pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_NETDEV: u8 = 5;
pub(crate) const NFPROTO_IPV6: u8 = 10;
