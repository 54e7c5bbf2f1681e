//! A team of threads that share out the pieces of one computation after another.
//!
//! A transformer's forward pass is some sixty steps of a fraction of a millisecond, each of which every thread must have
//! finished before the next begins. Putting threads to sleep between them would cost as much as the steps: while a [`Session`]
//! is open its helpers stay awake, spinning at first, then giving way to whoever else wants the processor. Pieces are handed out
//! one at a time, so that a thread that was interrupted holds up only the piece it has.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// Most pieces a step is cut into: what fits its field of the ticket.
const MAX_PIECES: usize = (1 << 20) - 1;

/// Rounds of spinning before a thread that waits gives way to others.
const SPINS: usize = 4096;

/// A step's work, called with the number of a piece.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// What the members of a team look at.
struct Board {
    /// Epoch (24 bits), number of pieces (20 bits), next piece (20 bits). A piece is taken by raising the last field with a
    /// compare-exchange, so that a thread that looked at an earlier step can't take a piece of a later one.
    ticket: AtomicU64,
    /// The current step's work: a pointer to a `Work` on its leader's stack.
    work: AtomicPtr<()>,
    /// Pieces of the current step that are done.
    done: AtomicUsize,
    /// Whether a piece panicked.
    panicked: AtomicBool,
    /// Whether a session is open; helpers sleep otherwise.
    open: AtomicBool,
    /// Whether the team is gone.
    closed: AtomicBool,
}

fn pieces(ticket: u64) -> usize {
    (ticket >> 20) as usize & MAX_PIECES
}

fn next(ticket: u64) -> usize {
    ticket as usize & MAX_PIECES
}

impl Board {
    /// Takes and does pieces until none is left.
    fn help(&self) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while next(ticket) < pieces(ticket) {
            let work = self.work.load(Ordering::Relaxed);
            match self.ticket.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire) {
                Err(found) => ticket = found,
                Ok(_) => {
                    // SAFETY: the exchange succeeded, so the step that `ticket` belongs to is still the current one and `work`,
                    // written before that ticket was published, is its work. Its leader doesn't leave `for_each`, where the
                    // work lives, before `done` counts this piece.
                    let work: Work<'_> = unsafe { *work.cast::<Work<'_>>() };
                    if catch_unwind(AssertUnwindSafe(|| work(next(ticket)))).is_err() {
                        self.panicked.store(true, Ordering::Relaxed);
                    }
                    self.done.fetch_add(1, Ordering::Release);
                    ticket = self.ticket.load(Ordering::Acquire);
                }
            }
        }
    }

    fn helper(&self) {
        let mut idle = 0usize;
        let mut seen = self.ticket.load(Ordering::Acquire);
        while !self.closed.load(Ordering::Acquire) {
            self.help();
            let ticket = self.ticket.load(Ordering::Acquire);
            if ticket != seen {
                (seen, idle) = (ticket, 0);
                continue;
            }
            idle += 1;
            if idle < SPINS {
                std::hint::spin_loop();
            } else if self.open.load(Ordering::Acquire) {
                std::thread::yield_now();
            } else {
                std::thread::park();
            }
        }
    }
}

/// Threads that work together; the one that opens a session is a member too.
pub struct Team {
    board: Arc<Board>,
    helpers: Vec<Thread>,
    turn: Mutex<()>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

static CHOSEN: AtomicUsize = AtomicUsize::new(0);
static GLOBAL: OnceLock<Team> = OnceLock::new();

/// Sets the number of threads of [`Team::global`]; 0 means as many as the machine has. Only before its first use; says whether
/// it took effect.
pub fn set_threads(threads: usize) -> bool {
    CHOSEN.store(threads, Ordering::Relaxed);
    GLOBAL.get().is_none()
}

/// Number of threads that [`Team::global`] has or will have.
pub fn threads() -> usize {
    match (GLOBAL.get(), CHOSEN.load(Ordering::Relaxed)) {
        (Some(team), _) => team.threads(),
        (None, 0) => std::thread::available_parallelism().map_or(1, usize::from),
        (None, chosen) => chosen,
    }
}

impl Team {
    /// The team that all computations of the process share, started when first asked for.
    pub fn global() -> &'static Self {
        GLOBAL.get_or_init(|| Self::new(threads()))
    }

    /// A team of `threads` threads, the caller's included. Fewer where the system refuses more.
    pub fn new(threads: usize) -> Self {
        let board = Arc::new(Board {
            ticket: AtomicU64::new(0),
            work: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            open: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let helper = |number: usize| {
            let board = board.clone();
            let builder = std::thread::Builder::new().name(format!("compute-{number}"));
            builder.spawn(move || board.helper()).ok().map(|handle| handle.thread().clone())
        };
        let helpers = (1..threads).map_while(helper).collect();
        Self { board, helpers, turn: Mutex::new(()) }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Waits for the team to be free and wakes it. Sessions of one thread must not be nested.
    pub fn session(&self) -> Session<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.board.open.store(true, Ordering::Release);
        self.helpers.iter().for_each(Thread::unpark);
        Session { team: self, _turn: turn }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.closed.store(true, Ordering::Release);
        self.helpers.iter().for_each(Thread::unpark);
    }
}

/// A team at work for one caller.
#[derive(Debug)]
pub struct Session<'a> {
    team: &'a Team,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.team.board.open.store(false, Ordering::Release);
    }
}

impl Session<'_> {
    fn for_each(&self, count: usize, work: Work<'_>) {
        let board = &*self.team.board;
        assert!(count <= MAX_PIECES, "{count} pieces, at most {MAX_PIECES} can be shared out");
        board.done.store(0, Ordering::Relaxed);
        board.work.store(std::ptr::from_ref(&work).cast_mut().cast(), Ordering::Relaxed);
        let epoch = (board.ticket.load(Ordering::Relaxed) >> 40) + 1;
        board.ticket.store(epoch << 40 | (count as u64) << 20, Ordering::Release);
        board.help();
        let mut spins = 0usize;
        while board.done.load(Ordering::Acquire) < count {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if board.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a piece of a shared computation panicked"));
        }
    }
}

/// Who does a computation: the calling thread alone, or a team.
#[derive(Debug, Clone, Copy)]
pub enum Crew<'a> {
    /// The calling thread.
    Solo,
    /// A team, led by the calling thread, which opened the session. Work must not hand out work to the same crew.
    Team(&'a Session<'a>),
}

impl Crew<'_> {
    /// Number of threads.
    pub fn threads(self) -> usize {
        match self {
            Self::Solo => 1,
            Self::Team(session) => session.team.threads(),
        }
    }

    /// Calls `work` with every number below `count`, each once, and returns when all calls are done.
    ///
    /// # Panics
    /// When a call does.
    pub fn for_each(self, count: usize, work: impl Fn(usize) + Sync) {
        match self {
            Self::Team(session) if count > 1 && session.team.threads() > 1 => session.for_each(count, &work),
            Self::Solo | Self::Team(_) => (0..count).for_each(work),
        }
    }
}

/// A value per thread that works, handed out for the time of one piece.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pool<T> {
    /// A pool that has lent nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: Default> Pool<T> {
    /// Lends a value that nobody else has; it keeps what its last borrower left in it.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let lent = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut value = lent.unwrap_or_default();
        let result = work(&mut value);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        result
    }
}

impl Deref for Session<'_> {
    type Target = Team;

    fn deref(&self) -> &Team {
        self.team
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 3, 8] {
            let team = Team::new(threads);
            for round in 0..200 {
                let session = team.session();
                for count in [0, 1, 2, 7, 100, round] {
                    let calls: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                    Crew::Team(&session).for_each(count, |piece| {
                        calls[piece].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn several_callers_take_turns() {
        let team = Team::new(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let session = team.session();
                        let mine = AtomicUsize::new(0);
                        Crew::Team(&session).for_each(50, |piece| {
                            mine.fetch_add(piece, Ordering::Relaxed);
                        });
                        assert_eq!(mine.load(Ordering::Relaxed), 49 * 25);
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 400);
    }

    #[test]
    fn a_panic_reaches_the_leader_and_the_team_goes_on() {
        let team = Team::new(2);
        let session = team.session();
        let crew = Crew::Team(&session);
        let failed = catch_unwind(AssertUnwindSafe(|| crew.for_each(20, |piece| assert_ne!(piece, 13, "unlucky"))));
        assert!(failed.is_err());
        let calls = AtomicUsize::new(0);
        crew.for_each(20, |_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn lent_values_are_kept() {
        let pool = Pool::<Vec<u8>>::new();
        pool.with(|value| value.push(7));
        pool.with(|value| assert_eq!(value, &[7]));
    }
}
