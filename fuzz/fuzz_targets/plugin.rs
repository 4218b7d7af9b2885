//! The plug-in's parameters: what is accepted keeps its own rules, what is refused has an exit code of
//! the vendor's table and a next step.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::exit_code::ExitCode;
use stillpoint::plugin::params::parse;

fuzz_target!(|text: &str| {
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    match parse(words.clone()) {
        Ok(params) => {
            assert!(!params.role.is_empty() && params.name.chars().count() >= 2, "{params:?}");
            assert!(params.window() <= std::time::Duration::from_secs(30), "{params:?}");
            let absolute = [&params.root, &params.log_file];
            assert!(absolute.into_iter().flatten().all(|path| path.is_absolute()), "{params:?}");
            assert_eq!(parse(words).ok().as_ref(), Some(&params));
        }
        Err(error) => {
            let known = [ExitCode::Ok, ExitCode::Precondition, ExitCode::Parameters];
            assert!(known.contains(&error.exit_code()), "{error:?}");
            assert!(!error.to_string().is_empty() && !error.hint().is_empty(), "{error:?}");
        }
    }
});
