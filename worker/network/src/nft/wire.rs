//! Wire: a difference of tables as one transaction.
//!
//! In the order that the kernel needs: sets before the rules that look into them, chains before the map
//! elements that lead to them, and everything new before anything goes (the last NAT table of a namespace
//! takes the translation of all its connections with it).

use super::diff::{Change, TableChange};
use super::expression;
use super::number::{BATCH_BEGIN, BATCH_END, SUBSYSTEM, flag, message};
use super::{LowData, LowExpression, LowHook, LowKey, LowRule, LowSet, set};
use crate::netlink::{APPEND, Buffer, CREATE, Writer};

/// An attribute has at most 64 KiB: elements go in portions.
const PORTION: usize = 400;

/// Messages of a transaction, and what each is about.
pub(crate) struct Batch {
    pub(crate) requests: Buffer,
    pub(crate) subjects: Vec<String>,
    next_set: u32,
}

/// Starts a transaction. With a `generation`, it is refused if anybody has changed anything since then.
fn begin(generation: Option<u32>) -> Batch {
    let mut batch = Batch { requests: Buffer::default(), subjects: Vec::new(), next_set: 1 };
    batch.add(BATCH_BEGIN, 0, 0, String::new, |w| {
        if let Some(generation) = generation {
            w.be32(1, generation);
        }
    });
    batch
}

/// The transaction for a difference.
pub(crate) fn batch(changes: &[TableChange<'_>], generation: Option<u32>) -> Batch {
    let mut batch = begin(generation);
    let is_removal = |change: &&TableChange<'_>| matches!(change.changes[..], [Change::DeleteTable]);
    for change in changes.iter().filter(|c| !is_removal(c)).chain(changes.iter().filter(is_removal)) {
        let to = Target { family: change.family, table: change.table };
        change.changes.iter().for_each(|each| batch.change(to, each));
    }
    batch.add(BATCH_END, 0, 0, String::new, |_| {});
    batch
}

/// The transaction that ends what others began: of chains with new rules in front, the old ones go.
///
/// A packet takes the rules of the generation that it starts in, but the elements of the one that it looks
/// them up in (`nft_do_chain`, `nft_genmask_cur`). If rules went together with a set of their own, a packet
/// in between would find the set empty and go on without its translation: one connection in ten thousand
/// under load. So the old rules stay until nobody starts with them first.
pub(crate) fn finish(old: &[(u8, &str, &str, Vec<u64>)], generation: Option<u32>) -> Batch {
    let mut batch = begin(generation);
    for (family, table, chain, handles) in old {
        for handle in handles {
            let what = format!("old rules of chain {chain}");
            batch.to(Target { family: *family, table }, (message::DELETE_RULE, 0), &what, |w| {
                w.text(2, chain);
                w.bytes(3, &handle.to_be_bytes());
            });
        }
    }
    batch.add(BATCH_END, 0, 0, String::new, |_| {});
    batch
}

/// The fixed part of all messages of netfilter.
pub(crate) fn head(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

#[derive(Clone, Copy)]
struct Target<'a> {
    family: u8,
    table: &'a str,
}

impl Batch {
    fn add(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        subject: impl FnOnce() -> String,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let resource = if kind < SUBSYSTEM { SUBSYSTEM >> 8 } else { 0 };
        self.requests.message(kind, flags, |w| {
            w.fixed(&head(family, resource));
            fill(w);
        });
        self.subjects.push(subject());
    }

    fn to(
        &mut self,
        to: Target<'_>,
        (kind, flags): (u16, u16),
        what: &str,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let subject = || {
            if what.is_empty() {
                format!("table {}", to.table)
            } else {
                format!("{what} of table {}", to.table)
            }
        };
        self.add(kind, flags, to.family, subject, |w| {
            w.text(1, to.table);
            fill(w);
        });
    }

    fn change(&mut self, to: Target<'_>, change: &Change<'_>) {
        match change {
            Change::NewTable => self.to(to, (message::NEW_TABLE, CREATE), "", |_| {}),
            Change::DeleteTable => self.to(to, (message::DELETE_TABLE, 0), "", |_| {}),
            Change::NewSet(name, set) => self.new_set(to, name, set, None),
            Change::DeleteSet(name) => {
                self.to(to, (message::DELETE_SET, 0), &format!("set {name}"), |w| w.text(2, name));
            }
            Change::NewChain(name, hook) => self.new_chain(to, name, *hook),
            Change::Policy(name, policy) => {
                self.to(to, (message::NEW_CHAIN, 0), &format!("policy of chain {name}"), |w| {
                    w.text(3, name);
                    w.be32(5, *policy);
                });
            }
            Change::DeleteChain(name) => {
                self.to(to, (message::DELETE_CHAIN, 0), &format!("chain {name}"), |w| w.text(3, name));
            }
            Change::Flush(name) => {
                let what = format!("rules of chain {name}");
                self.to(to, (message::DELETE_RULE, 0), &what, |w| w.text(2, name));
            }
            Change::Rules(name, rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    self.new_rule(to, name, index, rule, APPEND);
                }
            }
            // each goes to the front
            Change::Insert(name, rules) => {
                for (index, rule) in rules.iter().enumerate().rev() {
                    self.new_rule(to, name, index, rule, 0);
                }
            }
            Change::Empty(name) => {
                let what = format!("elements of set {name}");
                self.to(to, (message::DELETE_ELEMENT, 0), &what, |w| w.text(2, name));
            }
            Change::DeleteElements(name, elements) => {
                self.elements(to, (message::DELETE_ELEMENT, 0), name, None, elements);
            }
            Change::NewElements(name, elements) => {
                self.elements(to, (message::NEW_ELEMENT, CREATE), name, None, elements);
            }
        }
    }

    fn new_set(&mut self, to: Target<'_>, name: &str, set: &LowSet, id: Option<u32>) {
        let number = id.unwrap_or_else(|| self.take_set());
        self.to(to, (message::NEW_SET, CREATE), &format!("set {name}"), |w| {
            w.text(2, name);
            set::describe(w, set);
            w.be32(10, number);
            w.bytes(13, &set.notes);
        });
    }

    fn take_set(&mut self) -> u32 {
        self.next_set += 1;
        self.next_set - 1
    }

    fn new_chain(&mut self, to: Target<'_>, name: &str, hook: Option<&LowHook>) {
        self.to(to, (message::NEW_CHAIN, CREATE), &format!("chain {name}"), |w| {
            w.text(3, name);
            let Some(hook) = hook else { return };
            w.nest(4, |w| {
                w.be32(1, hook.point);
                w.be32(2, hook.priority.cast_unsigned());
                if let Some(device) = &hook.device {
                    w.text(3, device);
                }
            });
            w.be32(5, hook.policy);
            w.text(7, &hook.kind);
        });
    }

    /// The sets that only this rule looks into come first, under numbers of this transaction.
    fn new_rule(&mut self, to: Target<'_>, chain: &str, index: usize, rule: &LowRule, flags: u16) {
        const NAMELESS: &str = "__map%d";
        let mut numbers = Vec::new();
        for set in rule.expressions.iter().filter_map(|expression| expression.set.as_deref()) {
            let number = self.take_set();
            self.new_set(to, NAMELESS, set, Some(number));
            let elements: Vec<_> = set.elements.iter().collect();
            self.elements(to, (message::NEW_ELEMENT, CREATE), NAMELESS, Some(number), &elements);
            numbers.push(number);
        }
        let mut numbers = numbers.into_iter();
        let what = format!("rule {} of chain {chain}", index + 1);
        self.to(to, (message::NEW_RULE, CREATE | flags), &what, |w| {
            w.text(2, chain);
            w.nest(4, |w| {
                for each in &rule.expressions {
                    let set = each.set.as_ref().and_then(|_| numbers.next());
                    w.nest(1, |w| expression(w, each, set.map(|number| (NAMELESS, number))));
                }
            });
            if !rule.comment.is_empty() {
                let mut note = vec![0, u8::try_from(rule.comment.len() + 1).unwrap_or(u8::MAX)];
                note.extend(rule.comment.as_bytes());
                note.push(0);
                w.bytes(7, &note);
            }
        });
    }

    fn elements(
        &mut self,
        to: Target<'_>,
        how: (u16, u16),
        name: &str,
        number: Option<u32>,
        elements: &[(&LowKey, &LowData)],
    ) {
        let with_data = how.0 == message::NEW_ELEMENT;
        for portion in elements.chunks(PORTION) {
            self.to(to, how, &format!("elements of set {name}"), |w| {
                w.text(2, name);
                w.nest(3, |w| portion.iter().for_each(|(key, data)| element(w, key, data, with_data)));
                if let Some(number) = number {
                    w.be32(4, number);
                }
            });
        }
    }
}

fn expression(w: &mut Writer<'_>, each: &LowExpression, set: Option<(&str, u32)>) {
    w.text(1, &each.name);
    w.nest(2, |w| {
        if let Some((name, number)) = set {
            w.text(1, name);
            w.be32(4, number);
        }
        w.raw(&each.attributes);
    });
}

fn element(w: &mut Writer<'_>, key: &LowKey, data: &LowData, with_data: bool) {
    w.nest(1, |w| {
        w.nest(1, |w| w.bytes(1, &key.key));
        if with_data && *data != LowData::Nothing {
            expression::data(w, 2, data);
        }
        if key.is_end {
            w.be32(3, 1);
        }
        if let Some(last) = &key.last {
            w.nest(10, |w| w.bytes(1, last));
        }
    });
}

/// Whether a set may only be filled as a whole.
pub(crate) fn is_whole(set: &LowSet) -> bool {
    set.flags & flag::INTERVAL != 0
}
