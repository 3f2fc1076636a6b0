use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u8),
    Append(u8),
    Change(u16),
    Remove(u16),
    /// Drops a run of keys, so that leaves and branches become small.
    RemoveRun(u16, u16),
    /// Keeps a copy of now, which no later step may change.
    Keep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        8 => (0..2000u16, any::<u8>()).prop_map(|(k, v)| Step::Insert(k, v)),
        8 => any::<u8>().prop_map(Step::Append),
        2 => (0..2000u16).prop_map(Step::Change),
        4 => (0..2000u16).prop_map(Step::Remove),
        1 => (0..2000u16, 0..400u16).prop_map(|(k, n)| Step::RemoveRun(k, n)),
        1 => Just(Step::Keep),
    ];
    proptest::collection::vec(one, 0..1500)
}

/// All leaves at one depth, no empty node but a root, keys within their bounds, none too big.
fn check_shape(node: &Node<u16, u8>, is_root: bool, from: Option<u16>, to: Option<u16>) -> usize {
    assert!(node.len() <= MAX && (is_root || node.len() > 0));
    match node {
        Node::Leaf(entries) => {
            let within = |k: u16| from.is_none_or(|from| from <= k) && to.is_none_or(|to| k < to);
            assert!(entries.iter().all(|(k, _)| within(*k)));
            0
        }
        Node::Branch(children) => {
            assert!(!is_root || children.len() > 1);
            let depths = children.iter().enumerate().map(|(i, (bound, child))| {
                let from = if i == 0 { from } else { Some(*bound) };
                let to = children.get(i + 1).map(|(bound, _)| *bound).or(to);
                check_shape(child, false, from, to)
            });
            let depths: Vec<usize> = depths.collect();
            assert!(depths.windows(2).all(|two| two[0] == two[1]));
            depths[0] + 1
        }
    }
}

fn same(table: &Table<u16, u8>, model: &BTreeMap<u16, u8>) {
    assert_eq!(table.len(), model.len());
    assert_eq!(table.is_empty(), model.is_empty());
    assert!(table.iter().eq(model.iter()));
    assert!(table.keys().eq(model.keys()));
    assert!(table.values().eq(model.values()));
    for key in (0..2100).step_by(37) {
        assert_eq!(table.get(&key), model.get(&key));
        assert!(table.range_from(&key).eq(model.range(key..)));
    }
    check_shape(&table.root, true, None, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn is_a_map_and_copies_stay_as_they_were(steps in steps()) {
        let (mut table, mut model) = (Table::default(), BTreeMap::new());
        let mut kept = Vec::new();
        for step in steps {
            match step {
                Step::Insert(k, v) => prop_assert_eq!(table.insert(k, v), model.insert(k, v)),
                Step::Append(v) => {
                    let k = model.last_key_value().map_or(0, |(k, _)| k + 1);
                    prop_assert_eq!(table.insert(k, v), model.insert(k, v));
                }
                Step::Change(k) => {
                    let (mine, other) = (table.get_mut(&k), model.get_mut(&k));
                    prop_assert_eq!(&mine, &other);
                    for value in [mine, other].into_iter().flatten() {
                        *value = value.wrapping_add(1);
                    }
                }
                Step::Remove(k) => prop_assert_eq!(table.remove(&k), model.remove(&k)),
                Step::RemoveRun(k, n) => for k in k..k + n {
                    prop_assert_eq!(table.remove(&k), model.remove(&k));
                },
                Step::Keep => kept.push((table.clone(), model.clone())),
            }
        }
        same(&table, &model);
        kept.iter().for_each(|(table, model)| same(table, model));
        let again: Vec<(u16, u8)> = model.iter().rev().map(|(k, v)| (*k, *v)).collect();
        let mut other = Table::default();
        for (k, v) in again {
            other.insert(k, v);
        }
        prop_assert_eq!(&other, &table, "equal whatever the order of writes");
        if let Some(key) = model.keys().next() {
            other.remove(key);
            prop_assert_ne!(&other, &table);
        }
    }

    #[test]
    fn nothing_is_left_of_what_is_removed(keys in proptest::collection::vec(any::<u16>(), 0..3000)) {
        let mut table = Table::default();
        for &key in &keys {
            table.insert(key, 0u8);
        }
        for key in &keys {
            table.remove(key);
        }
        prop_assert!(table.is_empty());
        prop_assert_eq!(table.root.len(), 0);
        check_shape(&table.root, true, None, None);
    }
}
