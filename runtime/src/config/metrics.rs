//! `[metrics]`.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error};

/// `[metrics]`: for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MetricsConfig {
    /// The file that node_exporter's textfile collector reads. None: no metrics.
    #[serde(deserialize_with = "prom_file")]
    pub textfile: Option<PathBuf>,
}

/// The collector reads `*.prom` and nothing else.
fn prom_file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() && path.extension().is_some_and(|extension| extension == "prom") {
        return Ok(Some(path));
    }
    Err(D::Error::custom(format!(
        "{} is not an absolute path that ends in .prom, and node_exporter reads no other",
        path.display()
    )))
}
