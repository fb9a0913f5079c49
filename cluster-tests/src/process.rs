//! Child processes that never outlive the test run, and signals to them.
//!
//! Invariant: every child is forked from one thread that lives as long as the test process, so
//! that "kill me when my parent dies" (which Linux ties to the forking *thread*) holds even when
//! the test that started the child has ended, failed or been killed.

#![expect(
    unsafe_code,
    reason = "prctl between fork and exec, kill, waitid and prlimit have no safe wrapper here"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc;

/// A signal to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends it at once.
    Kill,
    /// Asks it to end.
    Terminate,
    /// Interrupts it, as Ctrl-C does.
    Interrupt,
    /// Suspends it.
    Stop,
    /// Resumes it.
    Continue,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Kill => libc::SIGKILL,
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
        }
    }
}

/// Sends a signal. An error means that the process has ended and was reaped.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory of ours; the pid is a child that this
    // harness started and has not yet waited for, so it names no other process.
    let result = unsafe { libc::kill(pid, signal.number()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Suspends a child; when this returns, every thread of it stands still.
pub fn suspend(pid: u32) -> io::Result<()> {
    signal(pid, Signal::Stop)?;
    let pid = libc::id_t::from(pid);
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // Leaves what it finds for whoever waits for the child's end.
        let what = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: waitid writes into `info` and nothing else, and `info` lives longer than the call.
        let result = unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), what) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Lets a child have so many bytes of data and no more; `None` lets it have what there is.
pub fn limit_memory(pid: u32, bytes: Option<u64>) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit writes the old limit into `limit`, which lives longer than the call, and sets
    // none; the pid is a child of this harness, as above.
    let read = unsafe { libc::prlimit(pid, libc::RLIMIT_DATA, std::ptr::null(), &mut limit) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // The hard limit stays, so that the soft one can be lifted again by anybody.
    limit.rlim_cur = bytes.map_or(limit.rlim_max, |bytes| bytes.min(limit.rlim_max));
    // SAFETY: prlimit reads `limit`, which lives longer than the call, and has no place to write to.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_DATA, &limit, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends a child at once, and with it everything in the process group that it leads; waits until
/// it is gone.
pub fn kill_group(child: &mut Child) {
    if let Ok(leader) = libc::pid_t::try_from(child.id()) {
        // SAFETY: as above; the child is not reaped yet, so the group is its own.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
    let _ = child.kill();
    let _ = child.wait();
}

type Spawned = mpsc::SyncSender<io::Result<Child>>;

static SPAWNER: LazyLock<mpsc::SyncSender<(Command, Spawned)>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::sync_channel::<(Command, Spawned)>(16);
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for (mut command, answer) in receiver {
                // A closed answer channel means that the test has ended; the child then dies here.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })
        .expect("a thread can be started");
    sender
});

/// Starts a child that is killed when this process ends, however it ends.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes
    // plain integers.
    unsafe {
        command.pre_exec(|| {
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let (answer, spawned) = mpsc::sync_channel(1);
    SPAWNER.send((command, answer)).map_err(io::Error::other)?;
    spawned.recv().map_err(io::Error::other)?
}
