//! One writer at a time, across processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::layout::Layout;
use crate::StoreError;

/// How often a waiting writer looks again.
const POLL: Duration = Duration::from_millis(25);

/// How long a lock is tried for in any case. A process that starts another one holds its locks twice for a moment, until the new program
/// has closed what it inherited, even where the first has let go meanwhile.
const GRACE: Duration = Duration::from_millis(250);

/// The exclusive right to write, held until dropped. The system takes it back when the process dies.
#[derive(Debug)]
pub(super) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock, waiting for at most `wait` (and a moment in any case).
    pub fn acquire(layout: &Layout, wait: Duration) -> Result<Self, StoreError> {
        let path = layout.lock();
        let failed = |error| StoreError::io(&path, error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        let start = Instant::now();
        let patience = wait.max(GRACE);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if start.elapsed() >= patience => {
                    let (path, holder) = (layout.folder().to_path_buf(), read_holder(&mut file));
                    let waited = if wait.is_zero() { wait } else { start.elapsed() };
                    return Err(StoreError::Locked { path, holder, waited });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL.min(patience.saturating_sub(start.elapsed()))),
            }
        }
        write_holder(&mut file);
        Ok(Self { _file: file })
    }
}

/// The process id only serves messages, so failing to read or write it is no failure.
fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) {
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
}
