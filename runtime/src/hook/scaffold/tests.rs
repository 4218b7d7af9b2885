use super::*;

fn rust() -> &'static Language {
    language("rust").unwrap()
}

#[test]
fn a_project_of_each_language_has_what_its_author_needs_and_no_blank_is_left() {
    for language in LANGUAGES {
        let files = project(language, "my-hook");
        let text = |name: &str| {
            let found = files.iter().find(|(path, _)| path == Path::new(name));
            let (_, text) = found.unwrap_or_else(|| panic!("{}: no {name}", language.name));
            String::from_utf8(text.clone()).unwrap()
        };
        assert!(text("README.md").contains("stillpoint hook build"), "{}", language.name);
        assert!(text("grant.toml").contains("[[sql]]"), "{}", language.name);
        text(".gitignore");
        assert!(files.iter().any(|(path, _)| path.ends_with("hook.wit")), "{}", language.name);
        for (path, text) in &files {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("{{name"), "{}: {}", language.name, path.display());
        }
    }
}

#[test]
fn a_project_is_written_once_and_what_is_there_is_never_touched() {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("my-hook");
    let files = create(rust(), "my-hook", &project).unwrap();
    assert!(files.iter().all(|file| project.join(file).is_file()));
    let again = create(rust(), "my-hook", &project).unwrap_err();
    assert!(matches!(again, ScaffoldError::Exists { .. }), "{again}");
}

#[test]
fn names_that_are_none_everywhere_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["", "A", "1db", "-a", "a-", "a_b", "a/b", "../a", "a.b", &"a".repeat(65)] {
        let project = directory.path().join("project");
        let refused = create(rust(), name, &project).unwrap_err();
        assert!(matches!(refused, ScaffoldError::Name { .. }), "{name}");
        assert!(!project.exists());
    }
}

#[test]
fn an_unknown_language_is_answered_with_the_known_ones() {
    let refused = language("cobol").unwrap_err();
    assert!(refused.hint().contains("--lang rust (there are: rust, c"), "{}", refused.hint());
}
