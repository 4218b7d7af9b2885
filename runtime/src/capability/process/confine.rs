//! What a program may do on the machine, beyond what its user may not do anyway: write nowhere but
//! where the operator said (landlock), and none of the system calls that change the machine
//! (seccomp). Made when the hook is loaded, put on between fork and exec.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::walk::file_type;

/// Writing as landlock knew it in Linux 6.10; what an older kernel does not know is left out by it.
const WRITING: ABI = ABI::V5;

/// What every program may write to beside what is granted.
const ALWAYS_WRITABLE: &[&str] = &["/dev/null", "/dev/zero", "/dev/full"];

/// What a program is put into.
#[derive(Debug)]
pub(crate) struct Confinement {
    landlock: Option<OwnedFd>,
    filters: Vec<BpfProgram>,
}

/// A confinement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("{path}, which the program may write to, cannot be opened: {source}")]
    Writable { path: String, source: io::Error },
    #[error("no landlock rules could be made: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("no seccomp filter could be made: {0}")]
    Seccomp(#[from] BackendError),
}

impl Confinement {
    /// For a program that may write to what is below `writable`, and nowhere else.
    pub(crate) fn new<P: AsRef<Path>>(writable: &[P]) -> Result<Self, ConfineError> {
        Ok(Self { landlock: write_only_to(writable)?, filters: filters()? })
    }

    /// The landlock ruleset; `None` where the kernel has no landlock.
    pub(crate) fn landlock(&self) -> Option<BorrowedFd<'_>> {
        self.landlock.as_ref().map(AsFd::as_fd)
    }

    /// The seccomp filters, in the order to install them in.
    pub(crate) fn filters(&self) -> &[BpfProgram] {
        &self.filters
    }
}

fn write_only_to<P: AsRef<Path>>(writable: &[P]) -> Result<Option<OwnedFd>, ConfineError> {
    let writing = AccessFs::from_write(WRITING);
    let mut ruleset = Ruleset::default()
        .handle_access(writing)?
        // Nor may it signal whoever else runs as its user.
        .scope(Scope::Signal)?
        .create()?;
    for path in ALWAYS_WRITABLE.iter().map(Path::new) {
        // One that is not there needs no rule.
        if let Ok(file) = open_place(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(file, writing_files(writing)))?;
        }
    }
    for path in writable.iter().map(AsRef::as_ref) {
        let refused = |source| ConfineError::Writable { path: path.display().to_string(), source };
        let place = open_place(path).map_err(refused)?;
        let is_directory = fstat(&place).is_ok_and(|stat| file_type(&stat) == SFlag::S_IFDIR);
        let allowed = if is_directory { writing } else { writing_files(writing) };
        ruleset = ruleset.add_rule(PathBeneath::new(place, allowed))?;
    }
    Ok(ruleset.into())
}

/// What can be done to a file that is no directory.
fn writing_files(writing: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    writing & AccessFs::from_file(WRITING)
}

/// Follows no link: the operator named the place itself.
fn open_place(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(nix::fcntl::AT_FDCWD, path, how)?)
}

/// System calls that change the machine, look into other processes, or have been ways to become
/// root. What no program that a hook runs has a use for.
const FORBIDDEN: &[libc::c_long] = &[
    // File systems and name spaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_acct,
    // The kernel itself.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Other processes, and keys.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Clocks and names.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Those that only some machines have.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[libc::c_long] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[libc::c_long] = &[libc::SYS_kexec_file_load];

/// Requests of `ioctl` that are refused: freezing and thawing, and typing into a terminal.
const FORBIDDEN_REQUESTS: &[u64] = &[
    0xc004_5877, // FIFREEZE
    0xc004_5878, // FITHAW
    0x5412,      // TIOCSTI
    0x541c,      // TIOCLINUX
];

/// Flags of `clone` that make name spaces, each of them.
const NEW_NAMESPACE: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Two, because each has one answer: what is forbidden is EPERM; `clone3`, whose flags no filter can
/// read, is ENOSYS, upon which C libraries use `clone`.
fn filters() -> Result<Vec<BpfProgram>, BackendError> {
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().chain(FORBIDDEN_HERE).map(|call| (*call, Vec::new())).collect();
    let request = |request: &u64| rule(1, SeccompCmpOp::Eq, *request);
    let requests = FORBIDDEN_REQUESTS.iter().map(request).collect::<Result<_, _>>()?;
    forbidden.insert(libc::SYS_ioctl, requests);
    let flag = |flag: &libc::c_int| {
        let flag = u64::from(flag.cast_unsigned());
        rule(0, SeccompCmpOp::MaskedEq(flag), flag)
    };
    let flags = NEW_NAMESPACE.iter().map(flag).collect::<Result<_, _>>()?;
    forbidden.insert(libc::SYS_clone, flags);
    let unreadable = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![compiled(forbidden, libc::EPERM)?, compiled(unreadable, libc::ENOSYS)?])
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

fn compiled(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, BackendError> {
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let program = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()?;
    Ok(without_x32(program))
}

/// x86_64 has a second table of system calls, for programs of 32-bit pointers, with the same
/// architecture and other numbers. All of it is refused, or it would be a way around the filter.
#[cfg(target_arch = "x86_64")]
fn without_x32(program: BpfProgram) -> BpfProgram {
    use seccompiler::sock_filter;
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, of offset 0
    const JUMP_IF_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32_BIT: u32 = 0x4000_0000;
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let first = [
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_BIT, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refused },
    ];
    first.into_iter().chain(program).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}
