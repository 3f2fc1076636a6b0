//! System call filter: Docker's default profile, compiled for the kernel.
//!
//! What is allowed is in [`profile`]; all else fails with EPERM, and `clone3` with ENOSYS, so that
//! the C library falls back to `clone`, whose flags a filter can see. Only calls of the machine's
//! own architecture are let through: a 32-bit program is killed.
//!
//! The program is a search tree over the numbers of the calls: ten steps where a list takes
//! hundreds. The kernel runs it once for every number when it is installed, so this shows at start.

mod profile;

use std::collections::BTreeMap;

use crate::capability::Set;

/// One instruction of the kernel's classic packet filter.
pub type Instruction = libc::sock_filter;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in what the filter sees of a call.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16; // its low half; both architectures are little-endian

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const FAIL: u32 = 0x0005_0000;
const EPERM: u32 = FAIL | libc::EPERM.cast_unsigned();
const ENOSYS: u32 = FAIL | libc::ENOSYS.cast_unsigned();

/// What is answered to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Always(u32),
    /// Allowed if the first argument is one of the [`profile::PERSONALITIES`].
    KnownPersonality,
    /// Allowed unless the first argument is [`profile::AF_VSOCK`].
    OtherSocket,
    /// Allowed if the first argument has none of [`profile::NAMESPACE_FLAGS`].
    NoNamespace,
}

/// The filter program for a container with these capabilities.
pub fn compile(capabilities: Set) -> Vec<Instruction> {
    whole(&answers(capabilities))
}

/// The filter program for a process that makes these calls only; it may start threads.
pub fn only(calls: &[i64]) -> Vec<Instruction> {
    let number = |call: &i64| u32::try_from(*call).expect("numbers of calls are small");
    let mut answers: BTreeMap<u32, Answer> =
        calls.iter().map(|call| (number(call), Answer::Always(ALLOW))).collect();
    answers.insert(number(&libc::SYS_clone), Answer::NoNamespace);
    answers.insert(number(&libc::SYS_clone3), Answer::Always(ENOSYS));
    whole(&answers)
}

fn whole(answers: &BTreeMap<u32, Answer>) -> Vec<Instruction> {
    let mut program =
        vec![op(LOAD, ARCHITECTURE), branch(IF_EQUAL, ARCH, 1, 0), op(RETURN, KILL), op(LOAD, NUMBER)];
    program.extend(tree(&ranges(answers)));
    program
}

fn answers(capabilities: Set) -> BTreeMap<u32, Answer> {
    let number = |call: i64| u32::try_from(call).expect("numbers of calls are small");
    let mut answers: BTreeMap<u32, Answer> =
        profile::ALLOWED.iter().map(|call| (number(*call), Answer::Always(ALLOW))).collect();
    answers.insert(number(libc::SYS_personality), Answer::KnownPersonality);
    answers.insert(number(libc::SYS_socket), Answer::OtherSocket);
    answers.insert(number(libc::SYS_clone), Answer::NoNamespace);
    answers.insert(number(libc::SYS_clone3), Answer::Always(ENOSYS));
    for (capability, calls) in profile::BY_CAPABILITY {
        if capabilities.has(capability) {
            answers.extend(calls.iter().map(|call| (number(*call), Answer::Always(ALLOW))));
        }
    }
    answers
}

/// Neighbours with the same answer as one range: where it begins, and the answer up to the next.
fn ranges(answers: &BTreeMap<u32, Answer>) -> Vec<(u32, Answer)> {
    let mut ranges = vec![(0, answers.get(&0).copied().unwrap_or(Answer::Always(EPERM)))];
    for number in answers.keys().flat_map(|n| [*n, n + 1]) {
        let answer = answers.get(&number).copied().unwrap_or(Answer::Always(EPERM));
        if ranges.last().is_some_and(|(_, last)| *last != answer) {
            ranges.push((number, answer));
        }
    }
    ranges
}

/// Halves the ranges until one is left.
fn tree(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    if let [(_, answer)] = ranges {
        return leaf(*answer);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (left, right) = (tree(low), tree(high));
    let begin = high[0].0;
    let over = u32::try_from(left.len()).expect("a program is short");
    let mut program = match u8::try_from(left.len()) {
        Ok(near) => vec![branch(IF_AT_LEAST, begin, near, 0)],
        Err(_) => vec![branch(IF_AT_LEAST, begin, 0, 1), op(JUMP, over)], // too far for a branch
    };
    program.extend(left);
    program.extend(right);
    program
}

fn leaf(answer: Answer) -> Vec<Instruction> {
    let mut program = vec![op(LOAD, FIRST_ARGUMENT)];
    match answer {
        Answer::Always(answer) => return vec![op(RETURN, answer)],
        Answer::KnownPersonality => {
            for personality in profile::PERSONALITIES {
                program.push(branch(IF_EQUAL, *personality, 0, 1));
                program.push(op(RETURN, ALLOW));
            }
            program.push(op(RETURN, EPERM));
        }
        Answer::OtherSocket => program.extend(unless(branch(IF_EQUAL, profile::AF_VSOCK, 0, 1))),
        Answer::NoNamespace => program.extend(unless(branch(IF_ANY_BIT, profile::NAMESPACE_FLAGS, 0, 1))),
    }
    program
}

fn unless(condition: Instruction) -> [Instruction; 3] {
    [condition, op(RETURN, EPERM), op(RETURN, ALLOW)]
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Skips `jt` instructions if the condition holds, else `jf`.
fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::DEFAULT;

    fn default() -> Vec<Instruction> {
        compile(Set::parse(DEFAULT).expect("known"))
    }

    /// What the kernel does with a program; also how many steps it takes.
    fn ask(program: &[Instruction], arch: u32, number: u32, argument: u32) -> (u32, usize) {
        let (mut at, mut accumulator) = (0, 0);
        for steps in 1.. {
            let i = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
            match i.code {
                LOAD if i.k == NUMBER => accumulator = number,
                LOAD if i.k == ARCHITECTURE => accumulator = arch,
                LOAD => accumulator = argument,
                JUMP => at += usize::try_from(i.k).expect("small"),
                IF_EQUAL => at += jump(accumulator == i.k),
                IF_AT_LEAST => at += jump(accumulator >= i.k),
                IF_ANY_BIT => at += jump(accumulator & i.k != 0),
                RETURN => return (i.k, steps),
                code => panic!("unknown instruction {code:#x}"),
            }
        }
        unreachable!("every program returns");
    }

    fn answer(program: &[Instruction], call: i64, argument: u32) -> u32 {
        ask(program, ARCH, u32::try_from(call).expect("small"), argument).0
    }

    #[test]
    fn the_tree_says_what_the_table_says() {
        for names in [DEFAULT, &["ALL"], &[]] {
            let capabilities = Set::parse(names).expect("known");
            let (program, table) = (compile(capabilities), answers(capabilities));
            assert!(program.len() < 4096);
            for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                let (answer, steps) = ask(&program, ARCH, number, 0);
                assert!(steps < 30, "{steps}");
                match table.get(&number) {
                    None => assert_eq!(answer, EPERM, "{number}"),
                    Some(Answer::Always(expected)) => assert_eq!(answer, *expected, "{number}"),
                    Some(_) => assert_eq!(answer, ALLOW, "{number} with argument 0"),
                }
            }
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let program = default();
        assert_eq!(answer(&program, libc::SYS_socket, 2), ALLOW);
        assert_eq!(answer(&program, libc::SYS_socket, profile::AF_VSOCK), EPERM);
        assert_eq!(answer(&program, libc::SYS_clone, 17), ALLOW);
        assert_eq!(answer(&program, libc::SYS_clone, libc::CLONE_NEWUSER.cast_unsigned()), EPERM);
        assert_eq!(answer(&program, libc::SYS_personality, 0xffff_ffff), ALLOW);
        assert_eq!(answer(&program, libc::SYS_personality, 0x0004_0000), EPERM);
        assert_eq!(answer(&program, libc::SYS_clone3, 0), ENOSYS);
    }

    #[test]
    fn a_short_list_is_all_that_is_allowed() {
        let program = only(&[libc::SYS_read, libc::SYS_exit]);
        for (call, argument, expected) in [
            (libc::SYS_read, 0, ALLOW),
            (libc::SYS_exit, 0, ALLOW),
            (libc::SYS_clone, 17, ALLOW),
            (libc::SYS_clone, libc::CLONE_NEWNET.cast_unsigned(), EPERM),
            (libc::SYS_clone3, 0, ENOSYS),
            (libc::SYS_openat, 0, EPERM),
            (libc::SYS_execve, 0, EPERM),
            (libc::SYS_ioctl, 0, EPERM),
        ] {
            assert_eq!(answer(&program, call, argument), expected, "{call}");
        }
    }

    #[test]
    fn other_architectures_are_killed() {
        assert_eq!(ask(&default(), 0x4000_0003, 0, 0).0, KILL);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let program = default();
        for call in [libc::SYS_mount, libc::SYS_bpf, libc::SYS_unshare, libc::SYS_setns, libc::SYS_reboot] {
            assert_eq!(answer(&program, call, 0), EPERM);
        }
        assert_eq!(answer(&program, libc::SYS_chroot, 0), ALLOW, "CAP_SYS_CHROOT is a default");
        let admin = compile(Set::parse(&["SYS_ADMIN"]).expect("known"));
        for call in [libc::SYS_mount, libc::SYS_bpf, libc::SYS_clone3] {
            assert_eq!(answer(&admin, call, 0), ALLOW);
        }
        assert_eq!(answer(&admin, libc::SYS_clone, libc::CLONE_NEWUSER.cast_unsigned()), ALLOW);
    }
}
