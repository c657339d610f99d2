//! System calls that no machine makes, by seccomp(2).
//!
//! What is forbidden fails with EPERM. It is a list of what is forbidden, not of what is allowed: the C library decides what it needs,
//! and differs between systems.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

bitflags::bitflags! {
    /// Kinds of system calls that may be forbidden, as `-sandbox` has them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Groups: u32 {
        /// System calls that are obsolete.
        const OBSOLETE = 1 << 0;
        /// What gives a process other rights.
        const ELEVATE = 1 << 1;
        /// New programs and processes.
        const SPAWN = 1 << 2;
        /// Priorities and places of threads.
        const RESOURCES = 1 << 3;
    }
}

impl Default for Groups {
    /// What a machine never needs.
    fn default() -> Groups {
        Groups::OBSOLETE | Groups::ELEVATE | Groups::SPAWN
    }
}

/// What is always forbidden: other processes' insides, the kernel's and the host's state, files behind the back of their names.
const ALWAYS: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_personality,
];

/// The same that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[i64] = &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[i64] = &[];

/// What makes pipes, sockets and devices, and which argument says what. A shared folder may have all but devices.
#[cfg(target_arch = "x86_64")]
const MAKING: &[(i64, u8)] = &[(libc::SYS_mknodat, 2), (libc::SYS_mknod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MAKING: &[(i64, u8)] = &[(libc::SYS_mknodat, 2)];

#[cfg(target_arch = "x86_64")]
const OBSOLETE: &[i64] = &[
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_afs_syscall,
    libc::SYS_tuxcall,
    libc::SYS_security,
    libc::SYS_vserver,
];
#[cfg(not(target_arch = "x86_64"))]
const OBSOLETE: &[i64] = &[];

const ELEVATE: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_setpgid,
    libc::SYS_setsid,
];

const SPAWN: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];
#[cfg(target_arch = "x86_64")]
const SPAWN_HERE: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const SPAWN_HERE: &[i64] = &[];

const RESOURCES: &[i64] = &[
    libc::SYS_setpriority,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_ioprio_set,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// Numbers of the ABI of x86-64 with pointers of 32 bits, which has all calls a second time, and some of its own from 512 on.
const X32: i64 = 1 << 30;
const X32_OWN: std::ops::Range<i64> = 512..548;

/// Families of sockets that there are reasons for.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Forbids `call` where all of these conditions hold: an argument's low 32 bits, how they are compared, and with what.
fn when(rules: &mut Rules, call: i64, all: &[(u8, SeccompCmpOp, u64)]) -> Result<(), Failed> {
    let condition = |(argument, op, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
    };
    let rule = SeccompRule::new(all.iter().map(condition).collect::<Result<_, _>>()?)?;
    rules.entry(call).or_default().push(rule);
    Ok(())
}

/// The rules of what is forbidden.
fn rules(groups: Groups) -> Result<Rules, Failed> {
    let listed = [
        (true, ALWAYS),
        (true, ALWAYS_HERE),
        (groups.contains(Groups::OBSOLETE), OBSOLETE),
        (groups.contains(Groups::ELEVATE), ELEVATE),
        (groups.contains(Groups::SPAWN), SPAWN),
        (groups.contains(Groups::SPAWN), SPAWN_HERE),
        (groups.contains(Groups::RESOURCES), RESOURCES),
    ];
    let mut rules: Rules =
        listed.iter().filter(|(on, _)| *on).flat_map(|(_, calls)| calls.iter()).map(|call| (*call, vec![])).collect();
    if groups.contains(Groups::SPAWN) {
        let thread = libc::CLONE_THREAD as u64;
        when(&mut rules, libc::SYS_clone, &[(0, SeccompCmpOp::MaskedEq(thread), 0)])?;
    }
    let other = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, family as u64));
    when(&mut rules, libc::SYS_socket, &other)?;
    for (call, mode) in MAKING {
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            let is_kind = SeccompCmpOp::MaskedEq(libc::S_IFMT.into());
            when(&mut rules, *call, &[(*mode, is_kind, kind.into())])?;
        }
    }
    // Keys typed at the terminal that this process was started from.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        when(&mut rules, libc::SYS_ioctl, &[(1, SeccompCmpOp::Eq, request)])?;
    }
    // Code is written where it is not executed.
    let both = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        when(&mut rules, call, &[(2, SeccompCmpOp::MaskedEq(both), both)])?;
    }
    if cfg!(target_arch = "x86_64") {
        let again: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(again);
        rules.extend(X32_OWN.map(|call| (call | X32, vec![])));
    }
    Ok(rules)
}

/// A filter that has calls fail.
fn filter(rules: Rules, error: i32) -> Result<BpfProgram, Failed> {
    let arch = std::env::consts::ARCH.try_into()?;
    let forbidden = SeccompAction::Errno(error as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, forbidden, arch)?.try_into()?)
}

/// Forbids them to all threads of this process, and to those that it will have.
///
/// # Errors
///
/// When the host has no such filters, or has one that forbids more.
pub(super) fn forbid(groups: Groups) -> Result<(), Failed> {
    apply_filter_all_threads(&filter(rules(groups)?, libc::EPERM)?)?;
    if groups.contains(Groups::SPAWN) {
        // Its flags are in memory, where a filter cannot look; the C library takes the older call then.
        let clone3 = Rules::from([(libc::SYS_clone3, vec![])]);
        apply_filter_all_threads(&filter(clone3, libc::ENOSYS)?)?;
    }
    Ok(())
}
