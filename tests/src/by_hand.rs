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
use crate::stillpoint::Copies;
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
        let mut holder = server.connect().await?;
        let began_ns = now_ns();
        if steps.lock {
            holder.query_drop("FLUSH TABLES WITH READ LOCK").await?;
        }
        let position = position(&mut holder).await?;
        if steps.lock {
            holder.query_drop("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await?;
        }
        let cloned = clone_first(lab, ["data", "binlog"], steps);
        if steps.lock {
            holder.query_drop("UNLOCK TABLES").await?;
        }
        let ended_ns = now_ns();
        let cloned = clone_rest(cloned?, steps).await?;
        holder.disconnect().await?;
        let [data, binlog] = cloned.attached()?;
        Ok(Self {
            claim: Claim { hold: Interval { began_ns, ended_ns }, position },
            copies: RestoredServer { data, binlog },
            window: cloned.window,
            clone: cloned.clone,
            images: cloned.images,
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

/// Two file systems of the lab, cloned by hand.
#[derive(Debug)]
pub struct Clones {
    systems: [FileSystem; 2],
    images: Vec<PathBuf>,
    window: std::time::Duration,
    clone: std::time::Duration,
    ended_ns: u64,
}

impl Clones {
    /// From `began_ns` to when the clones that were made together were done.
    #[must_use]
    pub fn frozen(&self, began_ns: u64) -> Interval {
        Interval { began_ns, ended_ns: self.ended_ns }
    }

    /// Attaches them.
    ///
    /// # Errors
    /// If one cannot be attached.
    pub fn copies(&self) -> Result<Copies> {
        let copies = self.attached()?;
        let images = self.systems.iter().map(|system| system.image.display().to_string());
        Ok(Copies::of_images(images.zip(copies.map(|copy| copy.device)).collect()))
    }

    /// Detaches and deletes them.
    ///
    /// # Errors
    /// If one is still in use.
    pub fn discard(self, lab: &Lab, copies: &Copies) -> Result<()> {
        for system in &self.systems {
            let device = copies.of(lab, &system.name)?.device;
            run("losetup", [std::path::Path::new("-d"), &device])?;
        }
        for image in &self.images {
            std::fs::remove_file(image)?;
        }
        Ok(())
    }

    fn attached(&self) -> Result<[Restored; 2]> {
        let [first, second] = &self.systems;
        let [first_image, second_image] = self.images.as_slice() else {
            anyhow::bail!("not two clones");
        };
        Ok([attached(first_image, first.fs_type)?, attached(second_image, second.fs_type)?])
    }
}

/// Clones two file systems of the lab. What is done to the application is the caller's.
///
/// # Errors
/// If a step fails; everything is thawed by then.
pub async fn clones(lab: &Lab, names: [&str; 2], steps: Steps) -> Result<Clones> {
    clone_rest(clone_first(lab, names, steps)?, steps).await
}

fn clone_first(lab: &Lab, names: [&str; 2], steps: Steps) -> Result<Clones> {
    let find = |name: &str| -> Result<FileSystem> {
        let found = lab.file_systems().iter().find(|fs| fs.name == name).cloned();
        found.with_context(|| format!("no file system `{name}`"))
    };
    let [first, second] = names;
    let systems = [find(first)?, find(second)?];
    let together = if steps.both { systems.as_slice() } else { &systems[..1] };
    let cloned = clone_frozen(together, steps.freeze)?;
    Ok(Clones {
        systems,
        images: cloned.images,
        window: cloned.window,
        clone: cloned.clone,
        ended_ns: now_ns(),
    })
}

/// What [`Steps::both`] left out, when all is over.
async fn clone_rest(mut clones: Clones, steps: Steps) -> Result<Clones> {
    if !steps.both {
        // Long enough for the clients to commit in between.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let later = clone_frozen(&clones.systems[1..], steps.freeze)?;
        clones.images.extend(later.images);
    }
    Ok(clones)
}

#[derive(Debug)]
struct Cloned {
    images: Vec<PathBuf>,
    window: std::time::Duration,
    clone: std::time::Duration,
}

fn clone_frozen(systems: &[FileSystem], freeze: bool) -> Result<Cloned> {
    let mut frozen = Frozen { systems: Vec::new() };
    let began = Instant::now();
    if freeze {
        for system in systems {
            run("fsfreeze", [std::path::Path::new("-f"), &system.mount])?;
            frozen.systems.push(system.clone());
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
