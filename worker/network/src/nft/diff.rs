//! Differences of tables.

use std::collections::BTreeSet;

use super::number::flag;
use super::wire::is_whole;
use super::{LowData, LowHook, LowKey, LowRule, LowSet, LowTable, LowTables};

/// What is to become of a table, in this order.
#[derive(Debug)]
pub(crate) struct TableChange<'a> {
    pub(crate) family: u8,
    pub(crate) table: &'a str,
    pub(crate) changes: Vec<Change<'a>>,
}

/// One step.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    NewTable,
    DeleteTable,
    NewSet(&'a str, &'a LowSet),
    DeleteSet(&'a str),
    NewChain(&'a str, Option<&'a LowHook>),
    Policy(&'a str, u32),
    DeleteChain(&'a str),
    /// All rules of a chain go.
    Flush(&'a str),
    Rules(&'a str, &'a [LowRule]),
    /// New rules before those that are there, which then go in a transaction of their own
    /// ([`super::wire::finish`]).
    Insert(&'a str, &'a [LowRule]),
    /// All elements of a set go.
    Empty(&'a str),
    DeleteElements(&'a str, Vec<(&'a LowKey, &'a LowData)>),
    NewElements(&'a str, Vec<(&'a LowKey, &'a LowData)>),
}

/// The way from `have` to `want`. Tables that cannot be changed in place are replaced, in the same
/// transaction.
pub(crate) fn tables<'a>(have: &'a LowTables, want: &'a LowTables) -> Vec<TableChange<'a>> {
    let mut all = Vec::new();
    for ((family, table), wanted) in want {
        let present = have.get(&(*family, table.clone()));
        let changes = match present {
            Some(present) if !can_change(present, wanted) => {
                let mut changes = vec![Change::DeleteTable, Change::NewTable];
                changes.extend(within(&EMPTY, wanted));
                changes
            }
            Some(present) => within(present, wanted),
            None => {
                let mut changes = vec![Change::NewTable];
                changes.extend(within(&EMPTY, wanted));
                changes
            }
        };
        if !changes.is_empty() {
            all.push(TableChange { family: *family, table, changes });
        }
    }
    for (family, table) in have.keys().filter(|key| !want.contains_key(*key)) {
        all.push(TableChange { family: *family, table, changes: vec![Change::DeleteTable] });
    }
    all
}

static EMPTY: LowTable =
    LowTable { sets: std::collections::BTreeMap::new(), chains: std::collections::BTreeMap::new() };

/// Whether one table can become the other in place.
pub(crate) fn can_change(have: &LowTable, want: &LowTable) -> bool {
    let place = |hook: &Option<LowHook>| {
        hook.as_ref().map(|h| (h.kind.clone(), h.point, h.priority, h.device.clone()))
    };
    let sets = want.sets.iter().all(|(name, set)| have.sets.get(name).is_none_or(|h| h.same_kind(set)));
    let chain = |(name, chain): (&String, &super::LowChain)| {
        have.chains.get(name).is_none_or(|h| place(&h.hook) == place(&chain.hook))
    };
    sets && want.chains.iter().all(chain)
}

fn within<'a>(have: &'a LowTable, want: &'a LowTable) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for (name, set) in &want.sets {
        if !have.sets.contains_key(name) {
            changes.push(Change::NewSet(name, set));
        }
    }
    for (name, chain) in &want.chains {
        match (have.chains.get(name).map(|c| &c.hook), &chain.hook) {
            (None, hook) => changes.push(Change::NewChain(name, hook.as_ref())),
            (Some(Some(before)), Some(hook)) if before.policy != hook.policy => {
                changes.push(Change::Policy(name, hook.policy));
            }
            _ => {}
        }
    }
    let gone: Vec<&String> = have.chains.keys().filter(|name| !want.chains.contains_key(*name)).collect();
    changes.extend(gone.iter().map(|name| Change::Flush(name)));
    for (name, chain) in &want.chains {
        let before = have.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        let mut all = before.iter().chain(&chain.rules).flat_map(|rule| &rule.expressions);
        let has_own_sets = all.any(|expression| expression.set.is_some());
        if before != chain.rules && !before.is_empty() && !chain.rules.is_empty() && has_own_sets {
            changes.push(Change::Insert(name, &chain.rules));
        } else if before != chain.rules {
            changes.extend((!before.is_empty()).then_some(Change::Flush(name)));
            changes.extend((!chain.rules.is_empty()).then_some(Change::Rules(name, &chain.rules)));
        }
    }
    for (name, set) in &want.sets {
        elements(name, have.sets.get(name), set, &mut changes);
    }
    // maps that go must go first: their elements lead to chains
    let sets_gone = have.sets.keys().filter(|name| !want.sets.contains_key(*name));
    changes.extend(sets_gone.map(|name| Change::DeleteSet(name)));
    changes.extend(gone.iter().map(|name| Change::DeleteChain(name)));
    changes
}

fn elements<'a>(name: &'a str, have: Option<&'a LowSet>, want: &'a LowSet, changes: &mut Vec<Change<'a>>) {
    let Some(have) = have else {
        if !want.elements.is_empty() {
            changes.push(Change::NewElements(name, want.elements.iter().collect()));
        }
        return;
    };
    if have.elements == want.elements {
        return;
    }
    if is_whole(want) {
        changes.push(Change::Empty(name));
        if !want.elements.is_empty() {
            changes.push(Change::NewElements(name, want.elements.iter().collect()));
        }
        return;
    }
    let gone = have.elements.iter().filter(|(key, data)| want.elements.get(*key) != Some(*data));
    let gone: Vec<_> = gone.collect();
    let new = want.elements.iter().filter(|(key, data)| have.elements.get(*key) != Some(*data));
    let new: Vec<_> = new.collect();
    changes.extend((!gone.is_empty()).then_some(Change::DeleteElements(name, gone)));
    changes.extend((!new.is_empty()).then_some(Change::NewElements(name, new)));
}

/// What differs, for people: what it is, and how.
pub(crate) fn differences(have: &LowTables, want: &LowTables) -> Vec<(String, String)> {
    let mut found = BTreeSet::new();
    for change in tables(have, want) {
        let key = (change.family, change.table.to_owned());
        let table = format!("table {} {}", family_name(change.family), change.table);
        let mut add = |what: String, how: &str| {
            found.insert((what, how.to_owned()));
        };
        match (have.get(&key), want.get(&key)) {
            (None, _) => add(table, "missing"),
            (_, None) => add(table, "unexpected"),
            (Some(have), Some(want)) => {
                of_chains(&table, have, want, &mut add);
                of_sets(&table, have, want, &mut add);
            }
        }
    }
    found.into_iter().collect()
}

fn of_chains(table: &str, have: &LowTable, want: &LowTable, add: &mut impl FnMut(String, &str)) {
    for name in have.chains.keys().chain(want.chains.keys()) {
        let chain = format!("{table} chain {name}");
        match (have.chains.get(name), want.chains.get(name)) {
            (None, _) => add(chain, "missing"),
            (_, None) => add(chain, "unexpected"),
            (Some(have), Some(want)) => {
                if have.hook != want.hook {
                    add(chain.clone(), "enters packets elsewhere, or has another policy");
                }
                for rule in want.rules.iter().filter(|rule| !have.rules.contains(rule)) {
                    add(format!("{chain}: {}", super::text::rule(rule)), "missing");
                }
                for rule in have.rules.iter().filter(|rule| !want.rules.contains(rule)) {
                    add(format!("{chain}: {}", super::text::rule(rule)), "unexpected");
                }
                let is_moved = have.rules != want.rules && have.rules.len() == want.rules.len();
                if is_moved && want.rules.iter().all(|rule| have.rules.contains(rule)) {
                    add(chain, "has its rules in another order");
                }
            }
        }
    }
}

fn of_sets(table: &str, have: &LowTable, want: &LowTable, add: &mut impl FnMut(String, &str)) {
    for name in have.sets.keys().chain(want.sets.keys()) {
        let any = have.sets.get(name).or(want.sets.get(name));
        let word = if any.is_some_and(|set| set.flags & flag::MAP != 0) { "map" } else { "set" };
        let set = format!("{table} {word} {name}");
        match (have.sets.get(name), want.sets.get(name)) {
            (None, _) => add(set, "missing"),
            (_, None) => add(set, "unexpected"),
            (Some(have), Some(want)) => {
                if !have.same_kind(want) {
                    add(set.clone(), "is of another type");
                }
                for (key, data) in &want.elements {
                    match have.elements.get(key) {
                        None => add(format!("{set} element {}", super::text::key(want, key)), "missing"),
                        Some(other) if other != data => {
                            let how = format!(
                                "is {} instead of {}",
                                super::text::data(want, other),
                                super::text::data(want, data)
                            );
                            add(format!("{set} element {}", super::text::key(want, key)), &how);
                        }
                        _ => {}
                    }
                }
                for key in have.elements.keys().filter(|key| !want.elements.contains_key(*key)) {
                    add(format!("{set} element {}", super::text::key(have, key)), "unexpected");
                }
            }
        }
    }
}

/// nft's word for a family.
pub(crate) fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}
