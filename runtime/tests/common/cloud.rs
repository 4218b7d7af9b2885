//! The run whose group the tests of the provider `alibaba` make, and its manifest.

use stillpoint::consistency::Level;
use stillpoint::manifest::{DiskRecord, Manifest, SCHEMA_VERSION};
use stillpoint::provider::Member;

pub const RUN: &str = "8d6b1a52-0a35-4c39-9f0e-7e2d7e1f4f10";

/// What is recorded of a group with these members.
pub fn manifest(group: &str, level: Level, members: &[Member]) -> Manifest {
    let disks = members.iter().map(|member| DiskRecord {
        id: member.disk.clone(),
        node: format!("/dev/{}", member.disk).into(),
        level,
        member: Some(member.clone()),
    });
    Manifest {
        schema_version: SCHEMA_VERSION,
        stillpoint: "0.1.0".into(),
        run_id: RUN.into(),
        name: "LinuxApp1".into(),
        description: String::new(),
        started: "2026-11-20T09:30:00Z".into(),
        provider: "alibaba".into(),
        group: group.into(),
        level,
        reasons: Vec::new(),
        disks: disks.collect(),
        file_systems: Vec::new(),
        skipped: Vec::new(),
        hooks: Vec::new(),
        steps: Vec::new(),
        timings: Default::default(),
        output_dropped_bytes: 0,
        warnings: Vec::new(),
        verified: None,
    }
}
