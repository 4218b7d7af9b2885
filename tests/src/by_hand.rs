//! The snapshot that a shell takes: the reference that the bench compares with, and, with a step
//! left out, what the oracle must catch.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::command::run;
use crate::lab::{FileSystem, FsType, Lab, attach};
use crate::mariadb::MariaDb;
use crate::oracle::{BinlogPosition, Claim, Restored, RestoredServer};
use crate::writers::{Interval, now_ns};

/// Which steps of the snapshot are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// `FLUSH TABLES WITH READ LOCK` around it. Without, the position is read all the same.
    pub lock: bool,
    /// `fsfreeze` around the copies.
    pub freeze: bool,
    /// Both file systems; else the binary log's is copied when all is over.
    pub both: bool,
}

impl Steps {
    /// None left out.
    pub const ALL: Self = Self { lock: true, freeze: true, both: true };
}

/// A snapshot by hand.
#[derive(Debug)]
pub struct ByHand {
    /// What it claims.
    pub claim: Claim,
    /// The clones, attached.
    pub copies: RestoredServer,
    /// First `fsfreeze -f` to last `fsfreeze -u`.
    pub window: std::time::Duration,
    /// Of it, the clones.
    pub clone: std::time::Duration,
    images: Vec<PathBuf>,
}

impl ByHand {
    /// Takes it of the lab's file systems `data` and `binlog`.
    ///
    /// # Errors
    /// If a step fails; everything is thawed and unlocked by then.
    pub async fn take(lab: &Lab, server: &MariaDb, steps: Steps) -> Result<Self> {
        let [data, binlog] = ["data", "binlog"]
            .map(|name| lab.file_systems().iter().find(|fs| fs.name == name).cloned());
        let (data, binlog) =
            (data.context("no file system `data`")?, binlog.context("no file system `binlog`")?);
        let mut holder = server.connect().await?;
        let began_ns = now_ns();
        if steps.lock {
            holder.query_drop("FLUSH TABLES WITH READ LOCK").await?;
        }
        let position = position(&mut holder).await?;
        if steps.lock {
            holder.query_drop("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await?;
        }
        let cloned = if steps.both {
            clone_frozen(&[&data, &binlog], steps.freeze)
        } else {
            clone_frozen(&[&data], steps.freeze)
        };
        if steps.lock {
            holder.query_drop("UNLOCK TABLES").await?;
        }
        let ended_ns = now_ns();
        let mut cloned = cloned?;
        if !steps.both {
            // Long enough for the clients to commit in between.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let later = clone_frozen(&[&binlog], steps.freeze)?;
            cloned.images.extend(later.images);
        }
        holder.disconnect().await?;
        let [data_image, binlog_image] = cloned.images.as_slice() else {
            anyhow::bail!("not two clones");
        };
        Ok(Self {
            claim: Claim { hold: Interval { began_ns, ended_ns }, position },
            copies: RestoredServer {
                data: attached(data_image, data.fs_type)?,
                binlog: attached(binlog_image, binlog.fs_type)?,
            },
            window: cloned.window,
            clone: cloned.clone,
            images: cloned.images.clone(),
        })
    }

    /// Detaches the clones and deletes them.
    ///
    /// # Errors
    /// If one is still in use.
    pub fn discard(self) -> Result<()> {
        for restored in [&self.copies.data, &self.copies.binlog] {
            run("losetup", [std::path::Path::new("-d"), &restored.device])?;
        }
        for image in &self.images {
            std::fs::remove_file(image)?;
        }
        Ok(())
    }
}

async fn position(connection: &mut Conn) -> Result<BinlogPosition> {
    let row: Option<mysql_async::Row> = connection.query_first("SHOW MASTER STATUS").await?;
    let row = row.context("the binary log is off")?;
    Ok(BinlogPosition {
        file: row.get("File").context("no column File")?,
        offset: row.get("Position").context("no column Position")?,
    })
}

fn attached(image: &std::path::Path, fs_type: FsType) -> Result<Restored> {
    Ok(Restored { device: attach(image, false)?, fs_type })
}

#[derive(Debug)]
struct Cloned {
    images: Vec<PathBuf>,
    window: std::time::Duration,
    clone: std::time::Duration,
}

fn clone_frozen(systems: &[&FileSystem], freeze: bool) -> Result<Cloned> {
    let mut frozen = Frozen { systems: Vec::new() };
    let began = Instant::now();
    if freeze {
        for system in systems {
            run("fsfreeze", [std::path::Path::new("-f"), &system.mount])?;
            frozen.systems.push((*system).clone());
        }
    }
    let clone_began = Instant::now();
    let mut images = Vec::new();
    for system in systems {
        let image = system.image.with_extension("by-hand");
        run("cp", [std::path::Path::new("--reflink=always"), &system.image, &image])?;
        images.push(image);
    }
    let clone = clone_began.elapsed();
    drop(frozen);
    Ok(Cloned { images, window: began.elapsed(), clone })
}

struct Frozen {
    systems: Vec<FileSystem>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for system in self.systems.iter().rev() {
            if let Err(error) = run("fsfreeze", [std::path::Path::new("-u"), &system.mount]) {
                eprintln!("{error:#}");
            }
        }
    }
}
