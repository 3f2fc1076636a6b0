//! Table: an ordered map whose copies share what is equal; the base of every view.
//!
//! Reads:   nothing but itself.
//! Writes:  itself; parts that another copy shares are copied first, parts that none shares are not.
//! Never:   depends on anything but the order of its keys.
//! Start:   [`Table`].
//!
//! A B+ tree of reference-counted nodes. Against a binary tree: a search touches a few runs of
//! neighbouring keys, not twenty scattered nodes, and one write allocates little.

use std::fmt;
use std::slice;
use std::sync::Arc;

/// Most entries of a node. A copied leaf touches each of its values' counters, so leaves are small.
const MAX: usize = 32;
/// A node with fewer is merged with a neighbour, if both fit into one.
const MIN: usize = MAX / 4;
/// Room that a copied node gets for what is about to be put into it.
const SPARE: usize = 4;

/// An ordered map; cloning it costs nothing.
pub(super) struct Table<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    /// Each child with a bound: no key in it is less, but in the first child, whose bound is not
    /// looked at.
    Branch(Vec<Child<K, V>>),
}

/// A new right neighbour of a node that was full.
type Split<K, V> = Option<Child<K, V>>;

/// A node under its bound: no key in it is less.
type Child<K, V> = (K, Arc<Node<K, V>>);

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &entries[at].1),
                Node::Branch(children) => node = &children[child_of(children, key)].1,
            }
        }
    }
    /// The value of a key, to be changed in place. Copies what is shared on the way to it.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get(key)?;
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &mut entries[at].1),
                Node::Branch(children) => {
                    let at = child_of(children, key);
                    node = Arc::make_mut(&mut children[at].1);
                }
            }
        }
    }
    /// Files a value; gives back the one that the key had.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let first = match &*self.root {
            Node::Branch(children) => children.first().map(|(bound, _)| bound.clone()),
            Node::Leaf(entries) => entries.first().map(|(key, _)| key.clone()),
        };
        let (old, split) = insert(&mut self.root, key, value);
        if let (Some(right), Some(first)) = (split, first) {
            let left = self.root.clone();
            self.root = Arc::new(Node::Branch(vec![(first, left), right]));
        }
        self.len += usize::from(old.is_none());
        old
    }
    /// Drops a key; gives back the value that it had.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        // What is not there must not cost a copy.
        self.get(key)?;
        let old = remove(&mut self.root, key);
        while let Node::Branch(children) = &*self.root {
            match children.as_slice() {
                [] => self.root = Arc::default(),
                [(_, only)] => self.root = only.clone(),
                _ => break,
            }
        }
        self.len -= usize::from(old.is_some());
        old
    }
    /// All entries, by key.
    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        self.walk(|_| 0, |_| 0)
    }
    /// The entries from a key on, by key.
    pub(super) fn range_from(&self, from: &K) -> Iter<'_, K, V> {
        self.walk(|children| child_of(children, from), |entries| find(entries, from).unwrap_or_else(|at| at))
    }
    /// All keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> + use<'_, K, V> {
        self.iter().map(|(key, _)| key)
    }
    /// All values, by key.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> + use<'_, K, V> {
        self.iter().map(|(_, value)| value)
    }

    fn walk(
        &self,
        child: impl Fn(&[Child<K, V>]) -> usize,
        entry: impl Fn(&[(K, V)]) -> usize,
    ) -> Iter<'_, K, V> {
        let mut above = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return Iter { above, entries: entries[entry(entries)..].iter() },
                Node::Branch(children) => {
                    let mut right = children[child(children)..].iter();
                    let Some((_, next)) = right.next() else {
                        return Iter { above, entries: [].iter() };
                    };
                    above.push(right);
                    node = next;
                }
            }
        }
    }
}

fn find<K: Ord, V>(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
    entries.binary_search_by(|(k, _)| k.cmp(key))
}

fn child_of<K: Ord, V>(children: &[Child<K, V>], key: &K) -> usize {
    children.partition_point(|(bound, _)| bound <= key).saturating_sub(1)
}

fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: V,
) -> (Option<V>, Split<K, V>) {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => match find(entries, &key) {
            Ok(at) => (Some(std::mem::replace(&mut entries[at].1, value)), None),
            Err(at) => (None, add(entries, at, (key, value)).map(|right| bounded(right, Node::Leaf))),
        },
        Node::Branch(children) => {
            let at = child_of(children, &key);
            let (old, split) = insert(&mut children[at].1, key, value);
            let right = split.and_then(|child| add(children, at + 1, child));
            (old, right.map(|right| bounded(right, Node::Branch)))
        }
    }
}

fn bounded<K: Clone, V, E>(right: Vec<(K, E)>, node: impl FnOnce(Vec<(K, E)>) -> Node<K, V>) -> Child<K, V> {
    let bound = right.first().expect("the right half of a split has an entry").0.clone();
    (bound, Arc::new(node(right)))
}

/// Adds an entry; gives back the right half if there were too many. What grows at its end is not
/// halved: keys that come in order leave full nodes behind.
fn add<T>(entries: &mut Vec<T>, at: usize, entry: T) -> Option<Vec<T>> {
    if entries.len() < MAX {
        entries.insert(at, entry);
        return None;
    }
    if at == entries.len() {
        return Some(vec![entry]);
    }
    let mut right = entries.split_off(MAX / 2);
    match at.checked_sub(MAX / 2) {
        Some(at) => right.insert(at, entry),
        None => entries.insert(at, entry),
    }
    Some(right)
}

fn remove<K: Ord + Clone, V: Clone>(node: &mut Arc<Node<K, V>>, key: &K) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => find(entries, key).ok().map(|at| entries.remove(at).1),
        Node::Branch(children) => {
            let at = child_of(children, key);
            let old = remove(&mut children[at].1, key);
            match children[at].1.len() {
                0 => {
                    children.remove(at);
                }
                len if len < MIN => merge(children, at),
                _ => {}
            }
            old
        }
    }
}

/// Joins a small child with a neighbour, if they fit into one.
fn merge<K: Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    let fits =
        |left: usize| left + 1 < children.len() && children[left].1.len() + children[left + 1].1.len() <= MAX;
    let Some(left) = [Some(at), at.checked_sub(1)].into_iter().flatten().find(|&left| fits(left)) else {
        return;
    };
    let (bound, right) = children.remove(left + 1);
    match (Arc::make_mut(&mut children[left].1), Arc::unwrap_or_clone(right)) {
        (Node::Leaf(left), Node::Leaf(mut right)) => left.append(&mut right),
        (Node::Branch(left), Node::Branch(mut right)) => {
            // As a first child's, this bound was not kept true.
            right[0].0 = bound;
            left.append(&mut right);
        }
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {
            unreachable!("neighbours are of one height")
        }
    }
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Branch(children) => children.len(),
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Node::Leaf(Vec::new())
    }
}

impl<K: Clone, V: Clone> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Node::Leaf(entries) => Node::Leaf(with_room(entries)),
            Node::Branch(children) => Node::Branch(with_room(children)),
        }
    }
}

fn with_room<T: Clone>(entries: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity((entries.len() + SPARE).min(MAX));
    copy.extend_from_slice(entries);
    copy
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { root: Arc::default(), len: 0 }
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table { root: self.root.clone(), len: self.len }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.root, &other.root) || self.iter().eq(other.iter()))
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// See [`Table::iter`].
pub(super) struct Iter<'a, K, V> {
    /// What is left of the branches above, outermost first.
    above: Vec<slice::Iter<'a, Child<K, V>>>,
    entries: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            let (_, node) = loop {
                match self.above.last_mut()?.next() {
                    Some(child) => break child,
                    None => drop(self.above.pop()),
                }
            };
            match &**node {
                Node::Leaf(entries) => self.entries = entries.iter(),
                Node::Branch(children) => self.above.push(children.iter()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
