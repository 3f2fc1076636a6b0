//! User: who the container's first process is, by the container's own `/etc/passwd` and `/etc/group`.
//!
//! Docker's rules: a number needs no entry; a name does. Without a group the user's own group from
//! `passwd` counts (0 if there is no entry), and the groups that list the user are added.

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?);
        Some(PasswdEntry { name: f[0], uid, gid, home: f.get(5).copied().unwrap_or_default() })
    })
}

fn group_entries(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    group.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        let gid = f.get(2)?.parse().ok()?;
        let members = f.get(3).map(|m| m.split(',').filter(|m| !m.is_empty()).collect()).unwrap_or_default();
        Some(GroupEntry { name: f[0], gid, members })
    })
}

/// Resolves `user[:group]` and additional groups.
///
/// # Errors
/// A name without an entry, in Docker's words.
pub(crate) fn resolve(spec: &str, extra: &[String], passwd: &str, group: &str) -> Result<User, String> {
    let (user, own_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd_entries(passwd).find(|e| e.name == user || Some(e.uid) == number);
    if entry.is_none() && number.is_none() {
        return Err(format!("unable to find user {user}: no matching entries in passwd file"));
    }
    let uid = entry.as_ref().map_or(number.unwrap_or_default(), |e| e.uid);
    let mut groups = Vec::new();
    let gid = match own_group {
        Some(name) => find_group(name, group)?,
        None => {
            if let Some(entry) = &entry {
                let listed = group_entries(group).filter(|g| g.members.contains(&entry.name));
                groups.extend(listed.map(|g| g.gid));
            }
            entry.as_ref().map_or(0, |e| e.gid)
        }
    };
    for name in extra {
        groups.push(find_group(name, group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|e| e.home).filter(|h| !h.is_empty()).unwrap_or("/").to_owned();
    Ok(User { uid, gid, groups, home })
}

fn find_group(name: &str, group: &str) -> Result<u32, String> {
    let number = name.parse::<u32>().ok();
    group_entries(group)
        .find(|g| g.name == name)
        .map(|g| g.gid)
        .or(number)
        .ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# junk\nweb:x:33:34:w:/srv/web:/bin/sh\nbad:x:y:z\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:40:web,other\nadm:x:41:root\n";

    fn get(spec: &str, extra: &[&str]) -> Result<User, String> {
        let extra: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
        resolve(spec, &extra, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_meet_in_the_same_entry() {
        let web = User { uid: 33, gid: 34, groups: vec![40], home: "/srv/web".into() };
        assert_eq!(get("web", &[]), Ok(web.clone()));
        assert_eq!(get("33", &[]), Ok(web));
    }

    #[test]
    fn a_number_needs_no_entry() {
        let nobody = User { uid: 4711, gid: 0, groups: vec![], home: "/".into() };
        assert_eq!(get("4711", &[]), Ok(nobody));
        assert_eq!(get("4711:4712", &["40"]).map(|u| (u.gid, u.groups)), Ok((4712, vec![40])));
    }

    #[test]
    fn an_explicit_group_drops_the_listed_ones() {
        assert_eq!(get("web:adm", &["logs"]).map(|u| (u.gid, u.groups)), Ok((41, vec![40])));
        assert_eq!(get(":adm", &[]).map(|u| (u.uid, u.gid)), Ok((0, 41)));
    }

    #[test]
    fn empty_is_root() {
        assert_eq!(get("", &[]).map(|u| (u.uid, u.gid, u.home)), Ok((0, 0, "/root".into())));
    }

    #[test]
    fn unknown_names_are_said_in_dockers_words() {
        assert_eq!(
            get("ghost", &[]),
            Err("unable to find user ghost: no matching entries in passwd file".into())
        );
        assert_eq!(
            get("web:ghosts", &[]),
            Err("unable to find group ghosts: no matching entries in group file".into())
        );
    }
}
