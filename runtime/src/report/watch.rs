//! Looks on while a run goes, for what only its events tell.

use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::Plan;
use crate::sequence::{Event, Failure, Observer, Report, Request};

use super::record::{Attempt, RunRecord, SCHEMA_VERSION, host};

/// Looks on while a run goes.
#[derive(Debug)]
pub struct Watch {
    record: RunRecord,
    hooks: Vec<String>,
    plan: Arc<PlanKeeper>,
}

impl Watch {
    /// Before `request` is run: its observer is told of everything as before.
    #[must_use]
    pub fn over(request: &mut Request) -> Self {
        let plan = Arc::new(PlanKeeper { told: request.observer.clone(), plan: Mutex::default() });
        request.observer = plan.clone();
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
            host: host(),
            run_id: request.context.run_id.clone(),
            name: request.name.clone(),
            provider: request.provider.name().to_owned(),
            started: jiff::Timestamp::now().to_string(),
            ended: String::new(),
            exit_code: 0,
            state: String::new(),
            maybe_frozen: Vec::new(),
            not_released: Vec::new(),
            error: None,
            problems: Vec::new(),
            manifest: None,
            attempt: None,
        };
        let hooks = request.hooks.iter().map(|planned| planned.hook.name().to_owned()).collect();
        Self { record, hooks, plan }
    }

    /// After it: what came of it.
    #[must_use]
    pub fn record(self, result: &Result<Report, Failure>) -> RunRecord {
        let Self { mut record, hooks, plan } = self;
        record.ended = jiff::Timestamp::now().to_string();
        match result {
            Ok(report) => record.of_report(report),
            Err(failure) => {
                let plan = plan.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
                let plan = plan.map(Arc::unwrap_or_clone).unwrap_or_default();
                let (planned, skipped) = (plan.file_systems, plan.skipped);
                record
                    .of_failure(failure, Attempt { hooks, planned, skipped, ..Attempt::default() });
            }
        }
        record
    }
}

/// Keeps the plan, and tells whoever was to be told.
#[derive(Debug)]
struct PlanKeeper {
    told: Arc<dyn Observer>,
    plan: Mutex<Option<Arc<Plan>>>,
}

impl Observer for PlanKeeper {
    fn event(&self, event: Event) {
        if let Event::Planned(plan) = &event {
            *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan.clone());
        }
        self.told.event(event);
    }
}
