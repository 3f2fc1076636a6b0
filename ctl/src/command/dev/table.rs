//! What `dev ls` prints: Name Address Role State.

use std::io::{self, Write};

use swarm_deploy_dev::HostRow;

pub(crate) fn table(rows: &[HostRow], out: &mut dyn Write) -> io::Result<()> {
    let name = rows.iter().map(|row| row.host.name.len()).chain([4]).max().unwrap_or(4) + 3;
    let address = rows.iter().map(|row| row.host.address.to_string().len()).chain([7]).max().unwrap_or(7) + 3;
    writeln!(out, "{:<name$}{:<address$}{:<10}STATE", "NAME", "ADDRESS", "ROLE")?;
    for HostRow { host, state } in rows {
        writeln!(out, "{:<name$}{:<address$}{:<10}{state}", host.name, host.address.to_string(), host.role)?;
    }
    Ok(())
}

/// One object a line.
pub(crate) fn json(rows: &[HostRow], out: &mut dyn Write) -> io::Result<()> {
    for HostRow { host, state } in rows {
        let line = serde_json::json!({
            "Name": host.name,
            "Address": host.address,
            "Role": host.role.to_string(),
            "State": state.to_string(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use swarm_deploy_dev::{HostRecord, HostState, Role};

    use super::*;

    fn rows() -> Vec<HostRow> {
        let host = |name: &str, role| HostRecord {
            name: name.to_owned(),
            role,
            address: [172, 28, 1, 11].into(),
            address6: std::net::Ipv6Addr::LOCALHOST,
        };
        vec![
            HostRow { host: host("m1", Role::Manager), state: HostState::Running },
            HostRow { host: host("client", Role::Client), state: HostState::Cut },
        ]
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        table(&rows(), &mut out).unwrap();
        expect_test::expect![[r#"
            NAME     ADDRESS       ROLE      STATE
            m1       172.28.1.11   manager   running
            client   172.28.1.11   client    cut
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn one_object_a_line() {
        let mut out = Vec::new();
        json(&rows(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"Name":"m1","Address":"172.28.1.11","Role":"manager","State":"running"}"#
        );
        assert_eq!(text.lines().count(), 2);
    }
}
