//! What is kept of a run when it is over, whatever came of it.

use stillpoint::config::{Config, MetricsConfig};
use stillpoint::metrics;
use stillpoint::output::json::ErrorDocument;
use stillpoint::paths::Paths;
use stillpoint::report::{History, RunRecord, Watch};
use stillpoint::sequence::{self, Failure, Report, Request};

use super::CommandError;

/// A run, and the record that it leaves.
pub async fn run(
    paths: &Paths,
    config: &Config,
    mut request: Request,
) -> (Result<Report, Failure>, RunRecord) {
    let watch = Watch::over(&mut request);
    let result = sequence::run(request).await;
    let record = watch.record(&result);
    keep(paths, &config.metrics, &record);
    (result, record)
}

/// A run that failed before it began.
pub fn before_the_run(paths: &Paths, name: &str, error: &CommandError) {
    let document = ErrorDocument::new(error.error.as_ref(), error.hint.clone());
    // Where the configuration is what is wrong, it is not known where metrics would go.
    let metrics = Config::load(paths).map(|config| config.metrics).unwrap_or_default();
    keep(paths, &metrics, &RunRecord::before_the_run(name, error.exit_code, document));
}

/// A run is as good as it was, whether its record can be kept or not.
fn keep(paths: &Paths, metrics: &MetricsConfig, record: &RunRecord) {
    if let Err(error) = metrics::publish(paths, metrics, record) {
        tracing::warn!("the metrics do not know of this run: {:#}", anyhow::Error::new(error));
    }
    if let Err(error) = History::of(paths).keep(record) {
        let error = anyhow::Error::new(error);
        tracing::warn!("there will be no `stillpoint report` of this run: {error:#}");
    }
}
