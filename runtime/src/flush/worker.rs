//! The child: finds dirty files, writes them out step by step, and says how far it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::open::{Seen, each_open_file};
use super::pace::{Ahead, Pace};
use super::tree::{Bounds, each_changed_file};
use super::{Ended, Flushed, Task, memory};
use crate::guard::mounts::open_planned;
use crate::plan::DevId;
use crate::sys::writeback::{begin_writing, pages_of};
use crate::time::Deadline;

/// Open files are gone through again while writers are kept up with, and so often at most.
const ROUNDS: usize = 3;
/// A file is asked for its dirty pages in parts of this size: the kernel looks at every page.
const PART: u64 = 64 << 20;
/// Small files are written together, but not more than this many are held open at once.
const FILES_AT_ONCE: usize = 64;
/// Directory entries that are looked at: on a machine with more, `sync` has the rest.
const ENTRIES: usize = 200_000;
/// Looking for files must not take all the time that is for writing them.
const LONGEST_WALK: Duration = Duration::from_secs(2);
/// How often the kernel is asked whether a step has reached the disk.
const LOOK: Duration = Duration::from_micros(100);
/// Where the kernel does not tell of one file what is on its way, all of them are waited for: not
/// for longer than this, for others write, too.
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// Where the kernel does not tell, a step that was sent on its way faster had nothing to send.
const NOTHING_TO_SEND: Duration = Duration::from_micros(50);
/// How often the parent is told.
const TELL: Duration = Duration::from_millis(50);

/// The child's `main`: a [`Task`] on standard input, [`Flushed`] as lines on standard output.
pub(crate) fn run() -> i32 {
    // An agent that died needs no flush. What is lost if this cannot be had: some tenths of a second.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let mut text = Vec::new();
    let task = io::stdin().take(1 << 20).read_to_end(&mut text).ok();
    match task.and_then(|_| serde_json::from_slice::<Task>(&text).ok()) {
        Some(task) => i32::from(Worker::new(&task).flush(&task).is_err()),
        None => 2,
    }
}

/// Pages of some files that are written in one step.
#[derive(Debug, Default)]
struct Batch {
    parts: Vec<(Rc<File>, Range<u64>)>,
    bytes: u64,
}

#[derive(Debug)]
struct Worker {
    until: Deadline,
    enough: u64,
    pace: Pace,
    batch: Batch,
    flushed: Flushed,
    /// False where the kernel cannot say what of a file is dirty.
    can_count: bool,
    told: Instant,
}

impl Worker {
    fn new(task: &Task) -> Self {
        let dirty = memory::now().dirty;
        Self {
            until: Deadline::after(task.budget),
            enough: task.enough,
            pace: Pace::new(),
            batch: Batch::default(),
            flushed: Flushed {
                bytes: 0,
                files: 0,
                dirty_before: dirty,
                dirty_after: dirty,
                ended: Ended::NotYet,
            },
            can_count: true,
            told: Instant::now(),
        }
    }

    /// An error only if nobody listens any more.
    fn flush(&mut self, task: &Task) -> io::Result<()> {
        let superblocks: BTreeSet<DevId> =
            task.file_systems.iter().map(|planned| planned.superblock).collect();
        self.flushed.ended = self.in_rounds(task, &superblocks);
        self.flushed.dirty_after = memory::now().dirty;
        self.tell()
    }

    fn in_rounds(&mut self, task: &Task, superblocks: &BTreeSet<DevId>) -> Ended {
        for round in 0..ROUNDS {
            let before = self.flushed.bytes;
            let mut seen = Seen::nothing();
            let _ = each_open_file(superblocks, &mut seen, |file| self.add(file));
            self.write_out();
            // What is dirty now and was not seen has no open writer; others' disks count, too.
            if round == 0 && !self.is_over() {
                self.walk(task, &mut seen);
                self.write_out();
            }
            let written = self.flushed.bytes - before;
            match () {
                () if self.until.has_passed() => return Ended::OutOfTime,
                () if self.little_is_left() => return Ended::LittleLeft,
                () if written < self.enough => return Ended::NothingMoreFound,
                () => {}
            }
        }
        Ended::Outrun
    }

    fn walk(&mut self, task: &Task, seen: &mut Seen) {
        let now = jiff::Timestamp::now().as_second();
        let roots = task.file_systems.iter().filter_map(|planned| {
            let root: OwnedFd = open_planned(planned).ok()?;
            Some((root, planned.superblock))
        });
        for (root, superblock) in roots {
            let until = self.until.min(Deadline::after(LONGEST_WALK));
            let bounds = Bounds { until, entries: ENTRIES };
            let _ = each_changed_file(&root, superblock, now, bounds, seen, |file| self.add(file));
        }
    }

    fn little_is_left(&self) -> bool {
        memory::now().dirty < self.enough
    }

    fn is_over(&self) -> bool {
        self.until.has_passed() || self.little_is_left()
    }

    /// Takes what is dirty of a file into steps, and makes those that are full.
    fn add(&mut self, file: File) -> ControlFlow<()> {
        let Ok(length) = file.metadata().map(|found| found.len()) else {
            return ControlFlow::Continue(());
        };
        if self.dirty(&file, &(0..length)) == 0 {
            return ControlFlow::Continue(());
        }
        let file = Rc::new(file);
        self.flushed.files += 1;
        let mut from = 0;
        while from < length {
            let part = from..(from + PART).min(length);
            from = part.end;
            if self.can_count && self.dirty(&file, &part) == 0 {
                continue;
            }
            self.add_part(&file, part)?;
        }
        ControlFlow::Continue(())
    }

    fn add_part(&mut self, file: &Rc<File>, part: Range<u64>) -> ControlFlow<()> {
        let mut from = part.start;
        while from < part.end {
            let range = from..(from + self.pace.step()).min(part.end);
            from = range.end;
            let dirty = self.dirty(file, &range);
            if dirty == 0 {
                continue;
            }
            self.batch.bytes += dirty;
            self.batch.parts.push((Rc::clone(file), range));
            if self.batch.bytes >= self.pace.step() || self.batch.parts.len() >= FILES_AT_ONCE {
                self.write_out();
            }
            if self.until.has_passed() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Dirty bytes of a range; all of it where the kernel cannot say.
    fn dirty(&mut self, file: &File, range: &Range<u64>) -> u64 {
        let length = range.end - range.start;
        match pages_of(file, range) {
            Ok(pages) => pages.dirty.saturating_mul(page_bytes()),
            Err(Errno::ENOSYS) => {
                self.can_count = false;
                length
            }
            Err(_) => length,
        }
    }

    /// One step: everything in the batch goes out, is waited for, and then others have the disk.
    fn write_out(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.parts.is_empty() {
            return;
        }
        let began = Instant::now();
        for (file, range) in &batch.parts {
            // What cannot be written now is syncfs's to report: it fails the run where it matters.
            let _ = begin_writing(file, range);
        }
        match self.can_count {
            true => self.wait_for(&batch),
            false if began.elapsed() < NOTHING_TO_SEND => return,
            false => self.wait_for_all(),
        }
        let ahead = Ahead { bytes: memory::now().dirty, time: self.until.remaining() };
        let pause = self.pace.took(batch.bytes, began.elapsed(), ahead);
        self.flushed.bytes += batch.bytes;
        if self.told.elapsed() >= TELL && self.tell().is_err() {
            // The agent is gone, and with it the reason to go on.
            self.until = Deadline::after(Duration::ZERO);
        }
        sleep(pause);
    }

    fn wait_for(&self, batch: &Batch) {
        for (file, range) in &batch.parts {
            let is_on_its_way = || pages_of(file, range).is_ok_and(|pages| pages.in_flight > 0);
            while is_on_its_way() && !self.until.has_passed() {
                sleep(LOOK);
            }
        }
    }

    fn wait_for_all(&self) {
        let until = self.until.min(Deadline::after(LONGEST_LOOK));
        while memory::now().in_flight > self.pace.step() && !until.has_passed() {
            sleep(LOOK);
        }
    }

    fn tell(&mut self) -> io::Result<()> {
        self.told = Instant::now();
        let mut line = serde_json::to_vec(&self.flushed)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}
