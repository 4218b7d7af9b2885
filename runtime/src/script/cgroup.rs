//! The cgroups of the two scripts, by their names.

use crate::cgroup;
pub(super) use crate::cgroup::Cgroup;

/// What cgroups of scripts are for; then come the agent's process id and start time, a number, and
/// the part.
const PURPOSE: &str = "script";

/// Whose script a cgroup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Pre,
    Post,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Pre => "pre",
            Part::Post => "post",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Part::Pre, Part::Post].into_iter().find(|known| known.name() == name)
    }
}

/// A name that no other agent uses.
pub(super) fn name_for(part: Part) -> String {
    format!("{}-{}", cgroup::name_for(PURPOSE), part.name())
}

/// Cgroups of scripts whose agent has died.
pub(super) fn remains() -> Vec<(Part, Cgroup)> {
    cgroup::remains(PURPOSE)
        .into_iter()
        .filter_map(|(part, cgroup)| Some((Part::named(&part)?, cgroup)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{PURPOSE, Part, name_for};
    use crate::cgroup::of_dead;

    fn part_of_dead(name: &str) -> Option<Part> {
        Part::named(&of_dead(name, PURPOSE)?)
    }

    #[test]
    fn only_the_cgroup_of_an_agent_that_is_gone_is_a_remain() {
        let ours = name_for(Part::Pre);
        assert_eq!(part_of_dead(&ours), None);
        // The same process id, but another start: its process id was given out again.
        let pid = std::process::id();
        assert_eq!(part_of_dead(&format!("stillpoint-script-{pid}-1-0-pre")), Some(Part::Pre));
        assert_eq!(part_of_dead("stillpoint-script-0-1-0-post"), Some(Part::Post));
        assert_eq!(part_of_dead("stillpoint-sentinel-0"), None);
        assert_eq!(part_of_dead("stillpoint-program-0-1-0"), None);
        assert_eq!(part_of_dead("stillpoint-script-x"), None);
    }
}
