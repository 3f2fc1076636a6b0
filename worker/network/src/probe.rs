//! The probe for firewalls of others that are in the way: an accept in our tables cannot override a drop
//! in another's.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use swarm_types::network_set::NetworkProblem;

use crate::namespace::enter;
use crate::netlink::{Writer, find};
use crate::nft::diff::family_name;
use crate::nft::number::{DROP, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, message};
use crate::nft::wire::head;
use crate::nft::{LowRule, dump};
use crate::room::Room;
use crate::socket::Refusal;
use crate::sys;

const FORWARD: u32 = 2;

/// Chains of others in the host's namespace that drop what is forwarded and know nothing of us.
pub(crate) fn firewall(room: &mut Room, home: &fs::File) -> io::Result<Vec<NetworkProblem>> {
    let mut problems = Vec::new();
    for (family, table, chain) in dropping(room)? {
        let family = family_name(family);
        problems.push(problem(
            &format!("chain {chain} of table {family} {table} drops what this node forwards (policy drop)"),
            &format!(
                "nft insert rule {family} {table} {chain} iifname \"sw-*\" accept; \
                      nft insert rule {family} {table} {chain} oifname \"sw-*\" accept"
            ),
        ));
    }
    enter(&room.file)?;
    let legacy = legacy_drops();
    enter(home)?;
    if legacy {
        problems.push(problem(
            "the chain FORWARD of iptables (legacy) drops what this node forwards (policy DROP)",
            "iptables-legacy -I FORWARD -i sw-+ -j ACCEPT; iptables-legacy -I FORWARD -o sw-+ -j ACCEPT",
        ));
    }
    Ok(problems)
}

fn problem(what: &str, remedy: &str) -> NetworkProblem {
    let text = format!(
        "{what}: published ports and the way out of tasks do not work through it; let ours pass ({remedy}), or \
         set its policy to accept"
    );
    NetworkProblem { subject: "firewall".into(), text }
}

/// Family, table and name of chains at `forward` whose policy is drop, in tables in which no rule knows
/// our devices.
fn dropping(room: &mut Room) -> Result<Vec<(u8, String, String)>, Refusal> {
    let read = |body: &[u8]| {
        let family = *body.first()?;
        let (table, chain, hook) = dump::chain(body)?;
        Some((family, table, chain, hook?))
    };
    let chains = room.nft.dump(message::GET_CHAIN, |w| w.fixed(&head(0, 0)), read)?;
    let mut found = Vec::new();
    for (family, table, chain, hook) in chains {
        let is_ip = [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6].contains(&family);
        if !is_ip || hook.point != FORWARD || hook.policy != DROP || room.is_our_table(&table) {
            continue;
        }
        let ask = |w: &mut Writer<'_>| {
            w.fixed(&head(family, 0));
            w.text(1, &table);
        };
        let rules = room.nft.dump(message::GET_RULE, ask, dump::rule)?;
        if !rules.iter().any(|(_, rule)| knows_us(rule)) {
            found.push((family, table, chain));
        }
    }
    Ok(found)
}

/// Whether a rule looks for devices of ours: it compares something with `sw-…`.
fn knows_us(rule: &LowRule) -> bool {
    rule.expressions.iter().any(|expression| {
        let compared = find(&expression.attributes, 3).and_then(|data| find(data, 1));
        expression.name == "cmp" && compared.is_some_and(|name| name.starts_with(b"sw-"))
    })
}

/// Whether the policy of the filter table's FORWARD chain of the old iptables is drop. Only asked if that
/// table is there: asking would load it.
fn legacy_drops() -> bool {
    const INFO: libc::c_int = 64;
    const ENTRIES: libc::c_int = 65;
    const NAME: usize = 32;
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if !names.lines().any(|name| name == "filter") {
        return false;
    }
    let read = || -> io::Result<bool> {
        // a raw socket would need a protocol: without one the kernel refuses it
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // struct ipt_getinfo: name, hooks, their starts, their policies' places, count, size
        let mut info = [0; NAME + 13 * 4];
        info[..6].copy_from_slice(b"filter");
        sys::socket_option_bytes(socket.as_fd(), libc::SOL_IP, INFO, &mut info)?;
        let number =
            |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes")) as usize;
        let (policy, size) = (number(NAME + 4 * (6 + FORWARD as usize)), number(NAME + 4 * 12));
        // struct ipt_get_entries: name, size, and, eight bytes aligned, the entries
        let mut entries = vec![0; NAME + 8 + size];
        entries[..6].copy_from_slice(b"filter");
        entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or_default().to_ne_bytes());
        sys::socket_option_bytes(socket.as_fd(), libc::SOL_IP, ENTRIES, &mut entries)?;
        Ok(policy_is_drop(&entries[NAME + 8..], policy))
    };
    read().unwrap_or(false)
}

/// The rule at `at` is a chain's policy: its target's verdict is -1 for drop.
fn policy_is_drop(entries: &[u8], at: usize) -> bool {
    /// In struct ipt_entry, behind struct ipt_ip and a mark.
    const TARGET_OFFSET: usize = 84 + 4;
    const TARGET_HEAD: usize = 32;
    let verdict = || {
        let offset = entries.get(at + TARGET_OFFSET..at + TARGET_OFFSET + 2)?;
        let start = at + usize::from(u16::from_ne_bytes(offset.try_into().ok()?)) + TARGET_HEAD;
        Some(i32::from_ne_bytes(entries.get(start..start + 4)?.try_into().ok()?))
    };
    verdict() == Some(-1)
}
