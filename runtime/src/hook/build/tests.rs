use super::*;

/// A core module as a tool might make it: these imports, and these exports of functions without anything.
fn module(imports: &[(&str, &str)], exports: &[&str]) -> Made {
    let mut text = String::from("(module");
    for (module, name) in imports {
        text.push_str(&format!("(import \"{module}\" \"{name}\" (func))"));
    }
    text.push_str("(func $f)");
    for name in exports {
        text.push_str(&format!("(export \"{name}\" (func $f))"));
    }
    text.push(')');
    let bytes = wat::parse_str(text).unwrap();
    Made { bytes, file: "core.wasm".into(), kind: Some(Kind::C), tools: Vec::new() }
}

fn refused(made: &Made) -> (String, String) {
    let error = component(made, false).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn a_module_that_wants_wasi_is_told_what_of_it_and_which_flag_helps() {
    let mut made = module(&[("wasi_snapshot_preview1", "fd_write")], &[]);
    let (text, hint) = refused(&made);
    assert!(text.contains("imports fd_write of WASI"), "{text}");
    assert!(
        hint.contains("printf") && hint.contains("stillpoint hook build --stub-wasi"),
        "{hint}"
    );
    made.kind = Some(Kind::Rust);
    assert!(refused(&made).1.contains("rustup target add wasm32-unknown-unknown"));
    made.kind = Some(Kind::Python);
    assert!(refused(&made).1.contains("componentize-py componentize --stub-wasi"));
    // What the stub does not have is still refused.
    let made = module(&[("wasi_snapshot_preview1", "sock_accept")], &[]);
    let error = component(&made, true).unwrap_err();
    assert!(matches!(&error, BuildError::Wasi { functions, .. } if *functions == ["sock_accept"]));
}

#[test]
fn a_module_without_the_lifecycle_is_told_which_functions_are_missing() {
    let (text, hint) = refused(&module(&[], &["stillpoint:hook/lifecycle@0.1.0#describe"]));
    assert!(text.contains("lifecycle@0.1.0#confirm"), "{text}");
    assert!(!text.contains("#describe"), "{text}");
    assert!(hint.contains("sdk/hook.c") && hint.contains("stillpoint hook build"), "{hint}");
}

#[test]
fn a_module_for_another_version_of_the_contract_is_told_both() {
    for made in [
        module(&[("stillpoint:hook/sql@0.0.9", "open")], &[]),
        module(&[], &["stillpoint:hook/lifecycle@0.0.9#describe"]),
    ] {
        let (text, hint) = refused(&made);
        assert!(text.contains("@0.0.9, and this stillpoint serves 0.1.0 to 0.1.1"), "{text}");
        assert!(hint.contains("stillpoint hook new sample --lang c"), "{hint}");
    }
}

#[test]
fn a_function_that_nobody_defines_is_named() {
    let (text, hint) = refused(&module(&[("env", "getpid")], &[]));
    assert!(text.contains("imports env getpid"), "{text}");
    assert!(hint.contains("define it or link what has it"), "{hint}");
}

#[test]
fn what_is_no_webassembly_or_damaged_is_told() {
    let made = |bytes: &[u8]| Made { bytes: bytes.to_vec(), ..module(&[], &[]) };
    assert!(refused(&made(b"\x7fELF....")).0.contains("is not WebAssembly"));
    assert!(refused(&made(b"\0asm\x01\0\0\0\x02\xff")).0.contains("is damaged"));
    assert!(refused(&made(b"")).0.contains("is not WebAssembly"));
}

#[test]
fn a_directory_without_a_build_file_is_no_project_and_one_with_two_is_the_more_telling_one() {
    let directory = tempfile::tempdir().unwrap();
    let error = Project::at(directory.path()).unwrap_err();
    assert!(error.hint().contains("stillpoint hook new my-hook --lang rust"), "{}", error.hint());
    for (file, kind) in [
        ("Makefile", Kind::C),
        ("package.json", Kind::JavaScript),
        ("pyproject.toml", Kind::Python),
        ("go.mod", Kind::Go),
        ("build.zig", Kind::Zig),
        ("Cargo.toml", Kind::Rust),
    ] {
        std::fs::write(directory.path().join(file), "").unwrap();
        assert_eq!(Project::at(directory.path()).unwrap().kind, kind);
    }
}

#[test]
fn a_makefile_beside_zig_is_a_project_in_zig() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("src")).unwrap();
    std::fs::write(directory.path().join("Makefile"), "").unwrap();
    std::fs::write(directory.path().join("src/hook.zig"), "").unwrap();
    assert_eq!(Project::at(directory.path()).unwrap().kind, Kind::Zig);
}

#[test]
fn a_tool_that_is_missing_is_named_with_what_installs_it() {
    let tool = tool::Tool::new("no-such-compiler", "apt-get install it").needed_for("a project");
    let error = tool.run::<&str>(Path::new("/"), &[], false).unwrap_err();
    assert_eq!(error.to_string(), "no-such-compiler is not installed, and a project needs it");
    assert_eq!(error.hint(), "apt-get install it");
}

#[test]
fn every_answer_of_the_stub_fits_what_tool_chains_import() {
    let stubbed = stub::functions();
    for function in ["fd_write", "clock_time_get", "random_get", "proc_exit", "poll_oneoff"] {
        assert!(stubbed.iter().any(|name| name == function), "{function}");
    }
}

#[test]
fn the_stub_is_what_its_text_says() {
    // Names are for people, and assemblers differ in them.
    let sections = |module: &[u8]| -> Vec<Vec<u8>> {
        let payloads = wasmparser::Parser::new(0).parse_all(module).map(Result::unwrap);
        let sections = payloads.filter_map(|payload| payload.as_section());
        let code = sections.filter(|(id, _)| *id != 0);
        code.map(|(_, range)| module[range].to_vec()).collect()
    };
    let assembled = wat::parse_str(include_str!("stub.wat")).unwrap();
    assert_eq!(sections(include_bytes!("stub.wasm")), sections(&assembled), "assemble it anew");
}
