use std::process::Command;

use super::*;

fn bundle() -> Bundle {
    Bundle {
        module: b"\0asm module".to_vec(),
        signature: Some(b"untrusted comment: x\n".to_vec()),
        grant: "module = \"sha256:…\"\n".into(),
        readme: "# mysql\n".into(),
    }
}

fn problem(bytes: &[u8]) -> String {
    Bundle::parse(bytes).unwrap_err()
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Writer::default();
    for (name, content) in members {
        archive.add(name, content);
    }
    archive.finish()
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    for signature in [bundle().signature, None] {
        let own = Bundle { signature, ..bundle() };
        let bytes = own.to_bytes().unwrap();
        assert_eq!(Bundle::parse(&bytes).unwrap(), own);
        assert_eq!(bytes, own.to_bytes().unwrap(), "the same bytes every time");
    }
}

#[test]
fn tar_itself_reads_it_and_what_tar_makes_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mysql.bundle");
    std::fs::write(&path, bundle().to_bytes().unwrap()).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        let done = command.current_dir(directory.path()).args(arguments).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    };
    tar(&["-xf", "mysql.bundle"]);
    assert_eq!(std::fs::read(directory.path().join("hook.wasm")).unwrap(), bundle().module);
    let members = ["README.md", "grant.toml", "hook.wasm", "hook.wasm.minisig"];
    tar(&[&["--format=ustar", "-cf", "mysql.bundle"], members.as_slice()].concat());
    assert_eq!(Bundle::read(&path).unwrap(), bundle());
}

#[test]
fn what_does_not_belong_into_a_bundle_is_refused() {
    let [readme, grant, module] =
        [("README.md", b"r".as_slice()), ("grant.toml", b"g"), ("hook.wasm", b"m")];
    for (members, expected) in [
        (vec![readme, grant, module, ("extra", b"e")], "`extra` does not belong there"),
        (vec![readme, grant, module, ("../../etc/passwd", b"x")], "does not belong there"),
        (vec![readme, grant, ("/hook.wasm", b"x"), module], "does not belong there"),
        (vec![readme, grant, module, module], "`hook.wasm` does not belong there"),
        (vec![module, readme, grant], "`README.md` does not belong there"),
        (vec![readme, grant], "`hook.wasm` is missing"),
        (vec![readme, module], "`grant.toml` is missing"),
        (vec![("README.md", b"\xff"), grant, module], "`README.md` is not UTF-8"),
    ] {
        let problem = problem(&archive(&members));
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
    let long = vec![b' '; (1 << 20) + 1];
    let problem = problem(&archive(&[("README.md", &long), grant, module]));
    assert!(problem.contains("`README.md` is longer than 1048576 bytes"), "{problem}");
}

#[test]
fn links_extensions_and_what_is_hidden_between_the_files_are_refused() {
    let good = bundle().to_bytes().unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        // A checksum that fits again, so that it is not that which is found.
        let sum: usize = bytes[..512].iter().map(|&b| usize::from(b)).sum::<usize>()
            - bytes[148..156].iter().map(|&b| usize::from(b)).sum::<usize>()
            + 8 * 32;
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        problem(&bytes)
    };
    for kind in [b'1', b'2', b'3', b'5', b'6', b'x', b'g', b'L', b'S', 0] {
        assert!(changed(156, kind).contains("not a plain file"), "type {kind}");
    }
    assert!(changed(157, b'x').contains("not a plain file"), "a link's name");
    assert!(changed(345, b'x').contains("not a plain file"), "a prefix");
    assert!(changed(257, b'U').contains("not a POSIX tar archive"));
    assert!(changed(124, b'9').contains("a size in it is not a number"));
    assert!(changed(124, 0x80).contains("a size in it is not a number"), "a size in base 256");
    assert!(changed(125, b'7').contains("cut short"), "more than there is");
    assert!(changed(1, 0x1b).contains("a name in it is not text"));
    assert!(changed(50, b'x').contains("a name in it is not text"), "behind the name's end");
    let mut bytes = good.clone();
    bytes[512 + 100] = 1;
    assert!(problem(&bytes).contains("something behind `README.md`"));
    bytes = good.clone();
    bytes.push(1);
    assert!(problem(&bytes).contains("something behind its end"));
}

#[test]
fn a_bundle_that_is_cut_or_changed_anywhere_is_refused_or_says_something_else() {
    let good = bundle().to_bytes().unwrap();
    for length in 0..good.len() {
        assert!(Bundle::parse(&good[..length]).is_err(), "cut after {length}");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x21;
        // A change is found, or is in a file's own content.
        if let Ok(other) = Bundle::parse(&bytes) {
            assert_ne!(other, bundle(), "byte {at}");
        }
    }
}

#[test]
fn a_readme_says_how_to_check_and_install() {
    let description = Description {
        name: "mysql".into(),
        version: "1.2.0".into(),
        summary: "quiesces MySQL".into(),
        settings_schema: "{}".into(),
        needs: vec![Need::Kv { bytes: 9, reason: "to undo".into(), required: true }],
        freeze_budget_ms: 0,
    };
    let text = readme(&description, &Digest::of(b""), true, Some("Grants: none.\n"));
    for part in [
        "# mysql 1.2.0",
        "minisign -Vm hook.wasm",
        "stillpoint hook install mysql-1.2.0.bundle",
        "- 9 bytes of durable state (required): to undo",
        "## From its author\n\nGrants: none.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = readme(&description, &Digest::of(b""), false, None);
    assert!(text.contains("--allow-unsigned") && !text.contains("From its author"), "{text}");
}
