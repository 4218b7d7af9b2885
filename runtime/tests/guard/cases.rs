//! The laws.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::agent::{Agent, Order};
use crate::lab::{Lab, Writer};
use crate::measure;

/// After whatever fault: [I1], with the watching agent's own scheduling in it.
const SOON: Duration = Duration::from_millis(250);

pub fn all() -> Vec<Trial> {
    vec![
        case("a_frozen_file_system_blocks_writers_until_the_thaw", || {
            for types in [vec!["ext4"], vec!["ext4", "xfs", "btrfs", "ext4"], vec!["ext4"; 16]] {
                round_trip(&types);
            }
        }),
        case("measure_windows", measure::windows).with_ignored_flag(true),
    ]
}

fn case(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok::<(), Failed>(())
    })
}

fn round_trip(types: &[&str]) {
    let lab = Lab::with(types);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Sync);
    agent.ok(Order::Rehearse);
    agent.ok(Order::Freeze);
    let writers: Vec<_> =
        lab.file_systems.iter().map(|fs| Writer::start(&fs.mount_point)).collect();
    writers.iter().for_each(Writer::assert_is_blocked);
    let thaw = agent.ok(Order::Thaw);
    for writer in &writers {
        assert!(writer.wrote_within(SOON));
    }
    assert_eq!(thaw.thawed_by_us, vec![true; types.len()]);
    assert_eq!(thaw.turned_read_only, vec![false; types.len()]);
    assert_eq!(thaw.broken, None);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}
