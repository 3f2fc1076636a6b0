//! Dumps: the tables that a namespace has.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::expression::canonical;
use super::number::message;
use super::wire::head;
use super::{LowChain, LowData, LowExpression, LowHook, LowKey, LowRule, LowSet, LowTable, LowTables};
use crate::netlink::{self, attributes, attributes_after, be32, find, text};
use crate::socket::{Refusal, Socket};

/// The number of the last change that anybody made to any table.
pub(crate) fn generation(socket: &mut Socket) -> Result<u32, Refusal> {
    let mut found = 0;
    socket.ask(
        message::GET_GENERATION,
        0,
        |w| w.fixed(&head(0, 0)),
        |message| {
            found =
                attributes_after(message.body, 4).find(|(kind, _)| *kind == 1).map_or(0, |(_, v)| be32(v));
        },
    )?;
    Ok(found)
}

/// Tables whose names are wanted, and the generation that they are of.
pub(crate) fn tables(
    socket: &mut Socket,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(LowTables, u32), Refusal> {
    const TRIES: usize = 20;
    let mut last = Refusal::from(Errno::EINTR);
    for _ in 0..TRIES {
        let before = generation(socket)?;
        match one_look(socket, &is_wanted) {
            Ok(tables) if generation(socket)? == before => return Ok((tables, before)),
            Ok(_) => {}
            // something went while we looked
            Err(why) if matches!(why.errno, Errno::ENOENT | Errno::EINTR) => last = why,
            Err(why) => return Err(why),
        }
    }
    Err(last)
}

fn one_look(socket: &mut Socket, is_wanted: &impl Fn(&str) -> bool) -> Result<LowTables, Refusal> {
    let names = socket.dump(
        message::GET_TABLE,
        |w| w.fixed(&head(0, 0)),
        |body| {
            let family = *body.first()?;
            attributes_after(body, 4).find(|(kind, _)| *kind == 1).map(|(_, name)| (family, text(name)))
        },
    )?;
    let mut tables = LowTables::new();
    for (family, name) in names.into_iter().filter(|(_, name)| is_wanted(name)) {
        let table = table(socket, family, &name)?;
        tables.insert((family, name), table);
    }
    Ok(tables)
}

fn table(socket: &mut Socket, family: u8, name: &str) -> Result<LowTable, Refusal> {
    let ask = |w: &mut netlink::Writer<'_>| {
        w.fixed(&head(family, 0));
        w.text(1, name);
    };
    let mut table = LowTable::default();
    // the kernel does not pick chains by table
    let chains = socket.dump(message::GET_CHAIN, |w| w.fixed(&head(family, 0)), chain)?;
    let own = chains.into_iter().filter(|(of, ..)| of == name);
    table.chains = own.map(|(_, chain, hook)| (chain, LowChain { hook, rules: Vec::new() })).collect();
    let mut nameless = BTreeMap::new();
    for (set_name, mut set) in socket.dump(message::GET_SET, ask, set)? {
        let ask = |w: &mut netlink::Writer<'_>| {
            ask(w);
            w.text(2, &set_name);
        };
        let portions = socket.dump(message::GET_ELEMENT, ask, |body| Some(elements(body)))?;
        set.elements = portions.into_iter().flatten().collect();
        match set_name.starts_with("__") {
            true => nameless.insert(set_name, set),
            false => table.sets.insert(set_name, set),
        };
    }
    for (chain, mut rule) in socket.dump(message::GET_RULE, ask, rule)? {
        for expression in &mut rule.expressions {
            name_set(expression, &nameless);
        }
        if let Some(chain) = table.chains.get_mut(&chain) {
            chain.rules.push(rule);
        }
    }
    Ok(table)
}

/// A rule that looks into a set without a name has that set, instead of the name that the kernel made up.
fn name_set(expression: &mut LowExpression, nameless: &BTreeMap<String, LowSet>) {
    const SET: u16 = 1;
    if !matches!(&expression.name[..], "lookup" | "dynset") {
        return;
    }
    let name = find(&expression.attributes, SET).map(text);
    if let Some(set) = name.and_then(|name| nameless.get(&name)) {
        expression.set = Some(Box::new(set.clone()));
        let mut bytes = Vec::new();
        let mut writer = netlink::Writer::new(&mut bytes);
        attributes(&expression.attributes)
            .filter(|(kind, _)| *kind != SET)
            .for_each(|(kind, value)| writer.bytes(kind, value));
        expression.attributes = bytes;
    }
}

/// Table, name and hook of a chain.
pub(crate) fn chain(body: &[u8]) -> Option<(String, String, Option<LowHook>)> {
    let (mut table, mut name, mut hook, mut policy) = (None, None, None, 1);
    let mut kind_of_chain = String::new();
    for (kind, value) in attributes_after(body, 4) {
        match kind {
            1 => table = Some(text(value)),
            3 => name = Some(text(value)),
            4 => hook = Some(self::hook(value)),
            5 => policy = be32(value),
            7 => kind_of_chain = text(value),
            _ => {}
        }
    }
    let hook = hook.map(|hook| LowHook { kind: kind_of_chain, policy, ..hook });
    Some((table?, name?, hook))
}

fn hook(bytes: &[u8]) -> LowHook {
    const DEVICES: u16 = 4;
    let mut hook = LowHook::default();
    for (kind, value) in attributes(bytes) {
        match kind {
            1 => hook.point = be32(value),
            2 => hook.priority = be32(value).cast_signed(),
            3 => hook.device = Some(text(value)),
            DEVICES if hook.device.is_none() => {
                hook.device = attributes(value).next().map(|(_, name)| text(name));
            }
            _ => {}
        }
    }
    hook
}

fn set(body: &[u8]) -> Option<(String, LowSet)> {
    let (mut name, mut set) = (None, LowSet::default());
    for (kind, value) in attributes_after(body, 4) {
        match kind {
            2 => name = Some(text(value)),
            3 => set.flags = be32(value),
            4 => set.key_type = be32(value),
            5 => set.key_length = be32(value),
            6 => set.data_type = be32(value),
            7 => set.data_length = be32(value),
            9 => set.parts = parts(value),
            13 => set.notes = value.to_vec(),
            _ => {}
        }
    }
    Some((name?, set))
}

fn parts(description: &[u8]) -> Vec<u32> {
    let concat = find(description, 2).unwrap_or_default();
    attributes(concat).filter_map(|(_, field)| find(field, 1)).map(be32).collect()
}

fn elements(body: &[u8]) -> Vec<(LowKey, LowData)> {
    let list = attributes_after(body, 4).find(|(kind, _)| *kind == 3).map(|(_, list)| list);
    attributes(list.unwrap_or_default()).filter_map(|(_, each)| element(each)).collect()
}

fn element(bytes: &[u8]) -> Option<(LowKey, LowData)> {
    let (mut key, mut data) = (LowKey::default(), LowData::Nothing);
    for (kind, value) in attributes(bytes) {
        match kind {
            1 => key.key = find(value, 1)?.to_vec(),
            2 => data = self::data(value),
            3 => key.is_end = be32(value) & 1 != 0,
            10 => key.last = find(value, 1).map(<[u8]>::to_vec),
            _ => {}
        }
    }
    Some((key, data))
}

fn data(bytes: &[u8]) -> LowData {
    if let Some(value) = find(bytes, 1) {
        return LowData::Value(value.to_vec());
    }
    let verdict = find(bytes, 2).unwrap_or_default();
    LowData::Verdict(find(verdict, 1).map_or(0, be32).cast_signed(), find(verdict, 2).map(text))
}

/// A rule and its chain.
pub(crate) fn rule(body: &[u8]) -> Option<(String, LowRule)> {
    let (mut chain, mut rule) = (None, LowRule::default());
    for (kind, value) in attributes_after(body, 4) {
        match kind {
            2 => chain = Some(text(value)),
            4 => rule.expressions = attributes(value).filter_map(|(_, each)| expression(each)).collect(),
            7 => rule.comment = comment(value),
            _ => {}
        }
    }
    Some((chain?, rule))
}

/// The kernel's numbers of a chain's rules, in order.
pub(crate) fn handles(
    socket: &mut Socket,
    family: u8,
    table: &str,
    chain: &str,
) -> Result<Vec<u64>, Refusal> {
    let ask = |w: &mut netlink::Writer<'_>| {
        w.fixed(&head(family, 0));
        w.text(1, table);
        w.text(2, chain);
    };
    socket.dump(message::GET_RULE, ask, |body| {
        let handle = attributes_after(body, 4).find(|(kind, _)| *kind == 3).map(|(_, handle)| handle)?;
        Some(u64::from_be_bytes(handle.try_into().ok()?))
    })
}

fn expression(bytes: &[u8]) -> Option<LowExpression> {
    let name = text(find(bytes, 1)?);
    let attributes = canonical(&name, find(bytes, 2).unwrap_or_default());
    Some(LowExpression { name, attributes, set: None })
}

/// Notes are kinds, lengths and values; a comment is of kind 0.
fn comment(mut notes: &[u8]) -> String {
    while let [kind, length, rest @ ..] = notes {
        let (value, after) = rest.split_at(rest.len().min(usize::from(*length)));
        if *kind == 0 {
            return text(value);
        }
        notes = after;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the kernel said, reading it does not panic.
        #[test]
        fn anything_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop((chain(&body), set(&body), elements(&body), rule(&body), element(&body), comment(&body)));
            for name in ["cmp", "immediate", "bitwise", "range", "lookup", "counter"] {
                let once = canonical(name, &body);
                prop_assert_eq!(canonical(name, &once), once);
            }
        }

        /// What nests as rules do is read whatever its innermost bytes are.
        #[test]
        fn nested_garbage_can_be_read(
            garbage in proptest::collection::vec(any::<u8>(), 0..100),
            kinds in proptest::collection::vec(0u16..15, 1..6),
        ) {
            let mut bytes = garbage;
            for kind in kinds {
                let inner = std::mem::take(&mut bytes);
                netlink::Writer::new(&mut bytes).bytes(kind, &inner);
            }
            let mut body = vec![2, 0, 0, 0];
            body.extend(bytes);
            drop((chain(&body), set(&body), elements(&body), rule(&body)));
        }
    }
}
