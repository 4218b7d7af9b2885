//! What a window costs here, printed and not judged: a machine under load says nothing about us.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Order, Setup};
use crate::lab::Lab;

const ROUNDS: usize = 15;

/// How long it takes until guard and sentinel are armed, and until they are gone.
pub fn arming() {
    for count in [1, 16] {
        let lab = Lab::with(&vec!["ext4"; count]);
        let mut times: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let mut agent = Agent::start();
                // So that the start of the agent itself is not in it.
                agent.ok(Order::DropEverything);
                let began = Instant::now();
                agent.ok(Order::Arm(Setup::of(&lab)));
                let armed = Instant::now();
                agent.ok(Order::Disarm);
                (armed - began, armed.elapsed())
            })
            .collect();
        times.sort();
        let (arm, disarm) = times[ROUNDS / 2];
        println!("{count:>3} ext4: armed in {arm:?}, disarmed in {disarm:?} (median of {ROUNDS})");
    }
}

/// Medians of the window, idle and with one writer per file system, on 1, 4 and 16 ext4.
pub fn windows() {
    println!("window ms, median/max of {ROUNDS}: {:>26} {:>26}", "idle", "one writer each");
    for count in [1, 4, 16] {
        let lab = Lab::with(&vec!["ext4"; count]);
        for (expedite_rcu, rehearse, keep_warm) in [
            (false, false, false),
            (false, true, true),
            (true, false, false),
            (true, true, false),
            (true, true, true),
        ] {
            let setup = Setup { expedite_rcu, keep_warm, ..Setup::of(&lab) };
            let idle = windows_of(&setup, rehearse);
            let writers = Writers::start(&lab);
            let busy = windows_of(&setup, rehearse);
            let worst = writers.stop();
            println!(
                "{count:>3} ext4 rcu={expedite_rcu:<5} rehearsed={rehearse:<5} warm={keep_warm:<5} {:>9.2}/{:>6.2} {:>14.2}/{:>6.2}  worst write {worst:>6.2}",
                idle.0, idle.1, busy.0, busy.1
            );
        }
    }
}

fn windows_of(setup: &Setup, rehearse: bool) -> (f64, f64) {
    let mut windows: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let mut agent = Agent::armed_with(setup.clone());
            agent.ok(Order::Sync);
            if rehearse {
                agent.ok(Order::Rehearse);
            }
            // As long as a quick lock takes.
            std::thread::sleep(Duration::from_millis(4));
            agent.ok(Order::Freeze);
            let window = agent.ok(Order::Thaw).window_ns;
            agent.ok(Order::Disarm);
            window as f64 / 1e6
        })
        .collect();
    windows.sort_by(f64::total_cmp);
    (windows[ROUNDS / 2], windows[ROUNDS - 1])
}

/// One writer per file system: 4 KiB every 500 us.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Duration>>,
}

impl Writers {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |mount: &Path| {
            let file = File::create(mount.join("busy")).unwrap();
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || write_until(&stop, &file))
        };
        let threads = lab.file_systems.iter().map(|fs| start(&fs.mount_point)).collect();
        Self { stop, threads }
    }

    /// Ends them; the longest write of any, in ms.
    fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.threads.into_iter().map(|thread| thread.join().unwrap()).max();
        worst.unwrap_or_default().as_secs_f64() * 1e3
    }
}

fn write_until(stop: &AtomicBool, file: &File) -> Duration {
    let mut worst = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        file.write_all_at(&[7; 4096], 0).unwrap();
        worst = worst.max(began.elapsed());
        std::thread::sleep(Duration::from_micros(500));
    }
    worst
}
