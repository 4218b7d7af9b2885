use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use super::*;

/// Copies a program: in a process of its own, because another thread's fork may hold a copy of a
/// writing descriptor for a moment, and the check would find it.
pub(crate) fn install(from: &str, to: &Path) {
    let installed =
        std::process::Command::new("install").args(["-m", "0755", from]).arg(to).status().unwrap();
    assert!(installed.success());
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        install("/usr/bin/true", &place.program());
        place
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("program")
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.program(), Permissions::from_mode(mode)).unwrap();
    }

    fn unfit(&self) -> Unfit {
        let unfit = ProgramFile::open(&self.program()).unwrap_err();
        assert!(!unfit.hint(&self.program()).is_empty());
        unfit
    }
}

#[test]
fn a_program_of_roots_that_nobody_else_may_write_is_accepted() {
    let place = Place::new();
    for mode in [0o755, 0o500, 0o711, 0o100] {
        place.set_mode(mode);
        assert!(ProgramFile::open(&place.program()).unwrap().is_some(), "{mode:o}");
    }
}

#[test]
fn one_that_is_not_there_is_none() {
    let place = Place::new();
    assert!(ProgramFile::open(&place.0.path().join("absent")).unwrap().is_none());
}

#[test]
fn one_that_changes_its_user_is_refused() {
    let place = Place::new();
    for mode in [0o4755, 0o2755, 0o6755] {
        place.set_mode(mode);
        assert!(matches!(place.unfit(), Unfit::SetId(found) if found == mode));
    }
}

#[test]
fn one_that_others_may_write_or_that_nobody_may_execute_is_refused() {
    let place = Place::new();
    for mode in [0o775, 0o757, 0o777] {
        place.set_mode(mode);
        assert!(matches!(place.unfit(), Unfit::Writable(found) if found == mode));
    }
    place.set_mode(0o644);
    assert!(matches!(place.unfit(), Unfit::NotExecutable(0o644)));
}

#[test]
fn one_of_somebody_else_is_refused() {
    let place = Place::new();
    chown(place.program(), Some(65534), None).unwrap();
    assert!(matches!(place.unfit(), Unfit::Owner(65534)));
}

#[test]
fn one_behind_a_link_is_refused_with_the_path_to_write() {
    let place = Place::new();
    let link = place.0.path().join("link");
    symlink(place.program(), &link).unwrap();
    let unfit = ProgramFile::open(&link).unwrap_err();
    assert!(matches!(&unfit, Unfit::Path(WalkError::Symlink { component }) if *component == link));
    let real = fs::canonicalize(&link).unwrap();
    assert_eq!(unfit.hint(&link), format!("write path = \"{}\"", real.display()));

    let directory = tempfile::tempdir().unwrap();
    symlink(place.0.path(), directory.path().join("d")).unwrap();
    let unfit = ProgramFile::open(&directory.path().join("d/program")).unwrap_err();
    assert!(matches!(unfit, Unfit::Path(WalkError::Symlink { .. })));
    let magic = Path::new("/proc/self/exe");
    assert!(ProgramFile::open(magic).is_err());
}

#[test]
fn one_in_a_directory_in_which_others_may_replace_it_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(place.unfit(), Unfit::Path(WalkError::Directory { .. })));
    // Sticky: others may not replace what is root's.
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(ProgramFile::open(&place.program()).unwrap().is_some());
    chown(place.0.path(), Some(65534), None).unwrap();
    assert!(matches!(place.unfit(), Unfit::Path(WalkError::Directory { .. })));
}

#[test]
fn what_is_no_program_is_refused_and_does_not_block() {
    let place = Place::new();
    fs::write(place.program(), "#!/bin/sh\n").unwrap();
    assert!(matches!(place.unfit(), Unfit::Script));
    fs::write(place.program(), "MZ\x7fELF").unwrap();
    assert!(matches!(place.unfit(), Unfit::NotElf));
    fs::write(place.program(), "").unwrap();
    assert!(matches!(place.unfit(), Unfit::NotElf));
    fs::remove_file(place.program()).unwrap();
    nix::unistd::mkfifo(&place.program(), Mode::S_IRWXU).unwrap();
    assert!(matches!(place.unfit(), Unfit::NotRegular("a FIFO")));
    fs::remove_file(place.program()).unwrap();
    fs::create_dir(place.program()).unwrap();
    assert!(matches!(place.unfit(), Unfit::NotRegular("a directory")));
}

#[test]
fn one_that_somebody_has_open_for_writing_is_refused() {
    let place = Place::new();
    let writer = File::options().append(true).open(place.program()).unwrap();
    assert!(matches!(place.unfit(), Unfit::OpenWriter));
    drop(writer);
    // A child that another test forks at this moment may hold a copy until it executes.
    let accepted = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        ProgramFile::open(&place.program()).is_ok()
    });
    assert!(accepted);
}

#[test]
fn the_digest_is_of_the_inode_that_is_held() {
    let place = Place::new();
    let file = ProgramFile::open(&place.program()).unwrap().unwrap();
    let digest = crate::hook::Digest::of(&fs::read(place.program()).unwrap());
    fs::remove_file(place.program()).unwrap();
    install("/usr/bin/false", &place.program());
    file.check_digest(&digest).unwrap();
    let other = ProgramFile::open(&place.program()).unwrap().unwrap();
    assert!(matches!(other.check_digest(&digest), Err(Unfit::Digest(_))));
}
