//! Image config: what an image says of the program in it, merged with what a task says.
//!
//! Reads:   a [`ContainerPlan`]; the image's own settings.
//! Writes:  nothing; gives a [`Process`].
//! Never:   reads an image.
//! Start:   [`merge`].

use swarm_types::meta::Labels;

use crate::container::ContainerPlan;

/// The search path of a container whose image and task name none (Docker's).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_STOP_SIGNAL: &str = "SIGTERM";

/// What an image says of the program in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub dir: String,
    pub user: String,
    pub labels: Labels,
    pub stop_signal: String,
}

/// The program that is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub dir: String,
    /// `user[:group]`; empty means root.
    pub user: String,
    /// Labels of image and task.
    pub labels: Labels,
    /// Stop signal by name.
    pub stop_signal: String,
}

/// Neither the image nor the task says what to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no command specified")]
pub struct NoCommand;

/// What is run for `plan` in an image with `image`'s settings. A given entrypoint drops the image's
/// command with its entrypoint (it would be arguments for another program); `[""]` means none at all.
pub fn merge(plan: &ContainerPlan, image: &ImageConfig) -> Result<Process, NoCommand> {
    let (entrypoint, default_args): (&[String], &[String]) = match plan.entrypoint.as_slice() {
        [] => (&image.entrypoint, &image.cmd),
        [one] if one.is_empty() => (&[], &[]),
        given => (given, &[]),
    };
    let args = if plan.args.is_empty() { default_args } else { &plan.args };
    let args: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    if args.first().is_none_or(|program| program.is_empty()) {
        return Err(NoCommand);
    }
    let or =
        |a: &str, b: &str, c: &str| [a, b, c].into_iter().find(|s| !s.is_empty()).unwrap_or("").to_owned();
    let mut labels = image.labels.clone();
    labels.extend(plan.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
    let dir = or(&plan.dir, &image.dir, "/");
    Ok(Process {
        args,
        env: environment(plan, image),
        dir: if dir.starts_with('/') { dir } else { format!("/{dir}") },
        user: or(&plan.user, &image.user, ""),
        labels,
        stop_signal: or(&plan.stop_signal, &image.stop_signal, DEFAULT_STOP_SIGNAL),
    })
}

/// Docker's order: its own defaults, the image's variables, the task's; later ones replace in place.
fn environment(plan: &ContainerPlan, image: &ImageConfig) -> Vec<String> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={}", plan.hostname)];
    for new in image.env.iter().chain(&plan.env) {
        let name = new.split_once('=').map_or(new.as_str(), |(name, _)| name);
        let same = |old: &String| old.split_once('=').is_some_and(|(n, _)| n == name);
        match (env.iter().position(same), new.contains('=')) {
            (Some(at), true) => env[at].clone_from(new),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(new.clone()),
            (None, false) => {}
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(|w| if w == "''" { String::new() } else { w.to_owned() }).collect()
    }

    #[test]
    fn entrypoint_and_command_as_docker_does() {
        // image entrypoint, image cmd, task entrypoint, task args -> what runs
        for (ie, ic, te, ta, want) in [
            ("", "/bin/sh", "", "", Some("/bin/sh")),
            ("/ep", "-a", "", "", Some("/ep -a")),
            ("/ep", "-a", "", "-b -c", Some("/ep -b -c")),
            ("/ep", "-a", "/mine", "", Some("/mine")),
            ("/ep", "-a", "/mine x", "-b", Some("/mine x -b")),
            ("/ep", "-a", "''", "/bin/ls", Some("/bin/ls")),
            ("/ep", "-a", "''", "", None),
            ("", "", "", "", None),
            ("", "", "", "top", Some("top")),
        ] {
            let image = ImageConfig { entrypoint: words(ie), cmd: words(ic), ..ImageConfig::default() };
            let plan = ContainerPlan { entrypoint: words(te), args: words(ta), ..ContainerPlan::default() };
            let got = merge(&plan, &image).map(|p| p.args.join(" "));
            assert_eq!(got.ok().as_deref(), want, "{ie}|{ic}|{te}|{ta}");
        }
    }

    #[test]
    fn environment_replaces_in_place() {
        let image = ImageConfig {
            cmd: words("sh"),
            env: words("PATH=/opt A=1 B=2 EMPTY="),
            dir: "srv".into(),
            user: "app".into(),
            ..ImageConfig::default()
        };
        let plan = ContainerPlan {
            env: words("B=3 C=4 A ABSENT"),
            hostname: "h".into(),
            ..ContainerPlan::default()
        };
        let process = merge(&plan, &image).unwrap();
        assert_eq!(process.env, words("PATH=/opt HOSTNAME=h B=3 EMPTY= C=4"));
        assert_eq!((process.dir.as_str(), process.user.as_str()), ("/srv", "app"));
        assert_eq!(process.stop_signal, "SIGTERM");
    }

    #[test]
    fn the_task_wins_over_the_image() {
        let image = ImageConfig {
            cmd: words("sh"),
            stop_signal: "SIGQUIT".into(),
            labels: [("a".into(), "image".into()), ("b".into(), "image".into())].into(),
            ..ImageConfig::default()
        };
        let mut plan = ContainerPlan { user: "0:0".into(), dir: "/d".into(), ..ContainerPlan::default() };
        plan.labels = [("a".into(), "task".into())].into();
        let process = merge(&plan, &image).unwrap();
        assert_eq!(process.stop_signal, "SIGQUIT");
        assert_eq!((process.user.as_str(), process.dir.as_str()), ("0:0", "/d"));
        assert_eq!(process.labels, [("a".into(), "task".into()), ("b".into(), "image".into())].into());
    }
}
