//! `stillpoint plan`.

use stillpoint::consistency::level_after;
use stillpoint::exit_code::ExitCode;
use stillpoint::output::human;
use stillpoint::output::json::{PlanDocument, SCHEMA_VERSION};
use stillpoint::paths::Paths;
use stillpoint::plugin::HookChoice;
use stillpoint::sequence::{self, Request};

use super::args::{Global, Scope};
use super::{CommandError, Outcome, hooks, print, print_json, setup};

/// Says what a snapshot would do, and touches nothing.
pub fn run(global: &Global, paths: &Paths, args: &Scope) -> Outcome {
    let config = setup::config(paths)?;
    setup::block_on(async {
        let mut request = Request::new("plan", setup::provider(&config, paths)?);
        request.scope = setup::scope(&config, args);
        request.run_dir = paths.run();
        let loaded = hooks::load(paths, &config, &request, HookChoice::Auto).await?;
        let names: Vec<_> = loaded.hooks.iter().map(hooks::describe).collect();
        let mut plan = sequence::plan_only(&request).await.map_err(|cause| {
            let hint = cause.hint();
            CommandError::new(cause.exit_code(sequence::Step::Plan), cause).hint(hint)
        })?;
        plan.reasons.extend(loaded.reasons);
        let level = level_after(&plan.reasons);
        if global.json {
            let document =
                PlanDocument { schema_version: SCHEMA_VERSION, level, plan, hooks: names };
            print_json(&document);
        } else {
            print(&human::plan(&plan, &names, level));
        }
        Ok(ExitCode::Ok)
    })?
}
