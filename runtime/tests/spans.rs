//! The spans of a run, as a program that embeds the library sees them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stillpoint::consistency::Level;
use stillpoint::manifest::Manifest;
use stillpoint::plan::DevId;
use stillpoint::provider::{
    CreatedGroup, Disk, GroupRequest, Member, PreparedGroup, Provider, ProviderError,
};
use stillpoint::sequence::{self, Request};
use stillpoint::time::Deadline;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

type Answer<T> = Result<T, ProviderError>;

/// A disk that nothing is mounted from: nothing is to be frozen.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Provider for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }
    async fn disks(&self) -> Answer<Vec<Disk>> {
        let device = DevId { major: 251, minor: 9_998 };
        Ok(vec![Disk { id: "d".into(), device, node: "/dev/fake".into(), warnings: vec![] }])
    }
    async fn prepare(&self, _: GroupRequest, _: Deadline) -> Answer<Box<dyn PreparedGroup>> {
        Ok(Box::new(Nothing))
    }
}

#[async_trait]
impl PreparedGroup for Nothing {
    async fn create(&mut self, _: Deadline) -> Answer<CreatedGroup> {
        Ok(CreatedGroup { id: "group-1".into(), point_in_time_fixed: true })
    }
    async fn settle(&mut self, _: Deadline) -> Answer<Vec<Member>> {
        Ok(Vec::new())
    }
    async fn record(&mut self, _: &Manifest) -> Answer<()> {
        Ok(())
    }
    async fn discard(&mut self) -> Answer<()> {
        Ok(())
    }
}

/// One span: its name, its fields, whether it has ended.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    parent: Option<u64>,
    fields: BTreeMap<String, String>,
    ended: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Seen>>>);

impl<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S>
    for Spans
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut seen = Seen {
            name: attributes.metadata().name().to_owned(),
            parent: attributes.parent().map(Id::into_u64),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.0.lock().unwrap().insert(id.into_u64(), seen);
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut all = self.0.lock().unwrap();
        if let Some(seen) = all.remove(&id.into_u64()) {
            // The registry uses numbers again: what has ended goes where none of them is.
            let ended = all.values().filter(|seen| seen.ended).count() as u64;
            all.insert(u64::MAX - ended, Seen { ended: true, ..seen });
        }
    }
}

impl Spans {
    fn watch() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        (spans, tracing::subscriber::set_default(subscriber))
    }

    fn called(&self, name: &str) -> Vec<Seen> {
        self.0.lock().unwrap().values().filter(|seen| seen.name == name).cloned().collect()
    }
}

fn request(run_dir: &tempfile::TempDir) -> Request {
    let mut request = Request::new("nightly", Arc::new(Nothing));
    request.run_dir = run_dir.path().join("run");
    request
}

#[tokio::test]
async fn a_run_is_one_span_with_a_span_for_each_step() {
    let (spans, _guard) = Spans::watch();
    let run_dir = tempfile::tempdir().unwrap();
    sequence::run(request(&run_dir)).await.unwrap();
    let runs = spans.called("stillpoint.run");
    assert_eq!(runs.len(), 1, "{runs:#?}");
    for (field, value) in [
        ("otel.name", "stillpoint snapshot"),
        ("otel.status_code", "OK"),
        ("stillpoint.run.name", "nightly"),
        ("stillpoint.provider", "nothing"),
        ("stillpoint.snapshot.id", "group-1"),
        ("stillpoint.level", "file-system"),
    ] {
        assert_eq!(
            runs[0].fields.get(field).map(String::as_str),
            Some(value),
            "{field}: {runs:#?}"
        );
    }
    let steps = spans.called("stillpoint.step");
    let mut names: Vec<&str> = steps.iter().map(|step| step.fields["otel.name"].as_str()).collect();
    names.sort_unstable();
    for name in ["confirm", "plan", "prepare", "quiesce", "release", "settle", "snapshot"] {
        assert_eq!(names.iter().filter(|found| **found == name).count(), 1, "{name}: {names:?}");
    }
    assert!(steps.iter().all(|step| step.parent.is_some() && step.ended), "{steps:#?}");
    assert!(steps.iter().all(|step| step.fields.contains_key("stillpoint.duration_ns")));
    assert!(runs[0].ended, "{runs:#?}");
}

#[tokio::test]
async fn a_run_that_fails_says_why_in_its_span() {
    let (spans, _guard) = Spans::watch();
    let run_dir = tempfile::tempdir().unwrap();
    let mut request = request(&run_dir);
    request.require = Some(Level::Application);
    sequence::run(request).await.unwrap_err();
    let runs = spans.called("stillpoint.run");
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(runs[0].fields["otel.status_code"], "ERROR", "{runs:#?}");
    assert_eq!(runs[0].fields["error.type"], "precondition", "{runs:#?}");
    assert!(runs[0].fields["otel.status_description"].contains("application"), "{runs:#?}");
    assert!(!runs[0].fields.contains_key("stillpoint.level"), "{runs:#?}");
}
