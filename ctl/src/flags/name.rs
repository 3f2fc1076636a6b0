//! Names for services that were given none: an adjective and a tool.

const ADJECTIVES: [&str; 48] = [
    "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cosy", "crisp", "eager",
    "early", "fair", "fine", "fond", "frank", "fresh", "gentle", "glad", "grand", "green", "happy", "hardy",
    "honest", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble", "noble",
    "patient", "plain", "proud", "quick", "quiet", "ready", "sharp", "silver", "smart", "solid", "steady",
    "sunny", "swift", "warm",
];
const TOOLS: [&str; 48] = [
    "anchor", "anvil", "awl", "axle", "barrel", "basket", "beacon", "bellows", "bobbin", "brush", "buoy",
    "caliper", "chisel", "clamp", "compass", "crane", "drill", "easel", "ferry", "file", "forge", "gear",
    "hammer", "helm", "hinge", "kettle", "kiln", "ladder", "lantern", "lathe", "level", "lever", "loom",
    "mallet", "needle", "oar", "pivot", "plane", "plough", "pulley", "rudder", "sail", "sickle", "spade",
    "spindle", "trowel", "wedge", "wheel",
];

/// The name that belongs to a number.
pub(crate) fn name(random: u64) -> String {
    let pick = |list: &[&'static str; 48], n: u64| list[usize::try_from(n % 48).expect("below 48")];
    format!("{}_{}", pick(&ADJECTIVES, random), pick(&TOOLS, random / 48))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_is_valid() {
        for n in 0..48 * 48 {
            let name = super::name(n);
            assert!(swarm_types::valid::service_name(&name).is_ok(), "{name}");
        }
        assert_eq!(super::name(0), "amber_anchor");
        assert_ne!(super::name(1), super::name(48));
    }
}
