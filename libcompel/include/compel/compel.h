/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libcompel: stop a process or a whole tree of them, run code inside, leave without a trace.
 *
 *   compel_tree* tree;
 *   if (compel_seize(pid, NULL, &tree) < 0) { puts(compel_last_error()->text); return 1; }
 *   int64_t umask_was;
 *   uint64_t args[6] = {022};
 *   compel_syscall(compel_tree_task(tree, 0), 0, SYS_umask, args, &umask_was);
 *   compel_release(tree, COMPEL_RESUME);
 *
 * Rules for all functions:
 *  - The result is 0 (or a count, or a descriptor, as said) or a negative errno; compel_last_error() then tells more.
 *  - ptrace belongs to a thread. Everything is to be called by the thread that called compel_freeze/compel_seize.
 *    When that thread or its process dies, at any moment, the tasks go on by themselves.
 *  - Between two calls every seized thread is in an ordinary ptrace-stop, so the caller may make ptrace requests of
 *    its own which only look (PTRACE_GETREGSET, PEEKSIGINFO, SECCOMP_GET_FILTER ...). The one exception is the leader
 *    of a task with a resident parasite (compel_start), which is running.
 *  - x86-64 tasks only; a 32-bit task can be frozen, but running anything inside it is refused with -EOPNOTSUPP.
 */
#ifndef COMPEL_COMPEL_H
#define COMPEL_COMPEL_H

#include <compel/blob.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct compel_tree compel_tree;         /* a frozen tree of processes, or one frozen process */
typedef struct compel_task compel_task;         /* a process of a tree; owned by its tree */
typedef struct compel_parasite compel_parasite; /* a blob loaded into a task; owned by who loaded it */

/* ---- errors ---- */

struct compel_error {
  int code;              /* errno, positive; 0 when the kernel was not asked */
  const char* operation; /* "seize", "mmap" ... */
  const char* object;    /* "task 42 (sleep)" ... */
  const char* hint;      /* what would help, or "" */
  const char* text;      /* all of it in one line */
};

/* The last failure in the calling thread. Valid until the next failing call of that thread; never NULL. */
const struct compel_error* compel_last_error(void);

/* The library's version, for example "1.0.0". */
const char* compel_version(void);

/* ---- freezing ---- */

struct compel_options {
  size_t size;              /* sizeof(struct compel_options), so that the struct may grow */
  unsigned timeout_seconds; /* how long tasks may take to stop; 0 means 10 */
  /*
   * Not NULL: until this is called the tasks stand still by other means, a frozen control group. It is called once,
   * when all of them have been told to stop, to let them go: they stop before they run a single instruction. It returns
   * 0 or a negative errno, which becomes that of the freeze.
   */
  int (*held)(void* argument);
  void* held_argument;
};

/*
 * Stops `root` and all its descendants with all their threads, and fills *out. Tasks which vanish meanwhile are left
 * out; io_uring and other kernel workers among the threads are left alone. On failure everything goes on as it was.
 * Errors: -ESRCH no such process, -EBUSY a task is traced already (the text names the tracer), -EPERM,
 * -ETIMEDOUT a thread did not stop in time (the text names it and its state), -EOPNOTSUPP no
 * /proc/PID/task/TID/children. A thread which cannot be stopped cannot be let go either before it stops: after
 * -ETIMEDOUT the next compel_freeze, compel_seize or compel_release of the calling thread does that, or its end.
 */
int compel_freeze(pid_t root, const struct compel_options* options, compel_tree** out);

/* The same for one process without its descendants. */
int compel_seize(pid_t pid, const struct compel_options* options, compel_tree** out);

enum compel_final {
  COMPEL_RESUME = 0, /* as it was: what ran goes on, what was stopped stays stopped */
  COMPEL_STOP = 1,   /* left stopped by SIGSTOP */
  COMPEL_KILL = 2    /* killed; the parent gets the zombie */
};

/* Takes parasites out, puts every thread back, lets all go, frees the tree. `tree` may be NULL. The first error is
 * returned, but everything is released all the same. */
int compel_release(compel_tree* tree, enum compel_final final_state);

/* Processes in the tree, parents before their children. */
size_t compel_tree_size(const compel_tree* tree);
compel_task* compel_tree_task(const compel_tree* tree, size_t index);
compel_task* compel_tree_find(const compel_tree* tree, pid_t pid); /* NULL when there is none */

/* ---- a task ---- */

enum compel_state {
  COMPEL_ALIVE = 0,
  COMPEL_STOPPED = 1, /* it was in a job-control stop when it was seized */
  COMPEL_ZOMBIE = 2   /* dead, not reaped: has no threads here and nothing but its ids can be asked */
};

pid_t compel_task_pid(const compel_task* task);
pid_t compel_task_ppid(const compel_task* task);
enum compel_state compel_task_state(const compel_task* task);
int compel_task_stop_signal(const compel_task* task); /* 0 unless COMPEL_STOPPED */

/* Number of seized threads; *tids (when not NULL) is set to their array, leader first, owned by the task. When the
 * leader has exited before its threads, tids[0] is not the pid of the task and nothing can be run in it. */
size_t compel_task_threads(const compel_task* task, const pid_t** tids);

/* Lets one task of the tree go, for good, before the others. */
int compel_task_release(compel_task* task, enum compel_final final_state);

/* General registers of thread `tid` as they were at the freeze, whatever has been run in it since. An interrupted
 * system call shows as orig_rax >= 0 and rax one of -ERESTARTSYS (-512), NOINTR (-513), NOHAND (-514), RESTARTBLOCK
 * (-516). */
int compel_registers(compel_task* task, pid_t tid, struct user_regs_struct* out);

/* Makes the thread go on with these registers when it is released. */
int compel_set_registers(compel_task* task, pid_t tid, const struct user_regs_struct* registers);

/* Blocked signals of the thread as at the freeze, bit (n - 1) for signal n. For a thread inside sigsuspend, ppoll and
 * the like it is the mask which that call will put back. */
int compel_signal_mask(compel_task* task, pid_t tid, uint64_t* out);

struct compel_rseq_info {
  uint64_t pointer; /* the registered area, 0 when there is none */
  uint32_t size;    /* of the area, bytes */
  uint32_t signature;
  uint64_t critical_section; /* rseq_cs of the area at the freeze, 0 when there was none */
  uint64_t start;            /* of that section, address */
  uint64_t length;           /* of that section, bytes */
  uint64_t abort_ip;         /* where it goes on when it was disturbed */
  int inside;                /* 1: the thread was stopped inside of it */
};

/*
 * Restartable sequence of a thread as at the freeze. Being stopped counts as a disturbance, so the kernel moves a
 * thread that was `inside` to abort_ip as soon as it runs; libcompel does the same for a thread in which it has run
 * something (the kernel has then cleared rseq_cs already). Who restores the thread elsewhere has to do it by hand.
 * Errors: -EOPNOTSUPP before Linux 5.13.
 */
int compel_rseq(compel_task* task, pid_t tid, struct compel_rseq_info* out);

/*
 * Runs one system call in thread `tid` (0: the leader) and stores what the kernel returned (a negative errno when it
 * failed there) in *result. Signals stay blocked meanwhile. The result of the function itself tells whether it was run.
 * Errors: -EOPNOTSUPP 32-bit task, or no room for the few bytes of code; -ESRCH the task died; -EBUSY the thread is
 * inside a resident parasite. Not to be used for calls that never return (exit, execve, rt_sigreturn) or that end in
 * two tasks (fork, clone).
 */
int compel_syscall(compel_task* task, pid_t tid, long number, const uint64_t arguments[6], int64_t* result);

/* Reads or writes memory of the task, protections notwithstanding. Returns 0 or -EFAULT, -ESRCH, all or nothing. */
int compel_read(compel_task* task, uint64_t address, void* buffer, size_t size);
int compel_write(compel_task* task, uint64_t address, const void* buffer, size_t size);

/* A descriptor of ours (close-on-exec) for the open file behind descriptor `remote_fd` of the task. */
int compel_take_fd(compel_task* task, int remote_fd);

/* ---- parasites ---- */

/*
 * Loads a blob and an area of data_size bytes (rounded up to pages) which both sides see. Costs the task no descriptor;
 * no page of it is ever writable and executable at once. A task has at most one parasite.
 * Errors: -EINVAL blob of another ABI or not linked with the runtime; -EEXIST; -ENOMEM, -EPERM ... from the task's
 * mmap.
 */
int compel_load(compel_task* task, const struct compel_blob* blob, size_t data_size, compel_parasite** out);

void* compel_data(const compel_parasite* parasite); /* our view of the shared area; starts as zeros */
size_t compel_data_size(const compel_parasite* parasite);
uint64_t compel_data_address(const compel_parasite* parasite); /* the task's view of it */

/* Where an exported symbol lies in the task. Errors: -ENOENT. */
int compel_symbol_address(const compel_parasite* parasite, const char* name, uint64_t* out);

/*
 * Entries are exported functions `extern "C" long name(void* argument)`; `argument` points argument_offset bytes into
 * the shared area.
 *
 * compel_call runs one in the leader and waits for its result. Without compel_start the leader enters for this call and
 * is back in its ptrace-stop afterwards; with it, the call costs two futex wake-ups.
 * Errors: -ENOENT no such entry, -EINVAL offset outside the area, -ESRCH the task died, -EFAULT the entry crashed (the
 * text tells where; the thread is put back).
 */
int compel_call(compel_parasite* parasite, const char* entry, size_t argument_offset, long* result);

/*
 * Runs an entry once in each of the given threads, many at a time. Thread i gets argument_offset + i * argument_stride;
 * results (may be NULL) takes `count` values. The leader must not be among them while it is resident (-EBUSY).
 */
int compel_call_threads(compel_parasite* parasite, const pid_t* tids, size_t count, const char* entry,
                        size_t argument_offset, size_t argument_stride, long* results);

/* Resident mode: the leader stays inside and waits for commands, until compel_stop. */
int compel_start(compel_parasite* parasite);
int compel_stop(compel_parasite* parasite);

/* The two halves of compel_call in resident mode, so that many tasks can work at once. compel_wait blocks.
 * Errors besides: -EBUSY posted again before waiting, -EINVAL not resident, or nothing to wait for. */
int compel_post(compel_parasite* parasite, const char* entry, size_t argument_offset);
int compel_wait(compel_parasite* parasite, long* result);

/* Opens a copy of our descriptor `fd` in the task (close-on-exec there); returns its number there. -EMFILE when the
 * task's table is full: two free slots are needed for the passing. */
int compel_give_fd(compel_parasite* parasite, int fd);

/* Moves what the parasite has logged since the last call, at most `size` bytes, into buffer; returns how many. No
 * terminating zero. When the ring had overflowed, the text begins with a line saying how much was lost. */
ssize_t compel_log(compel_parasite* parasite, char* buffer, size_t size);

/* Stops it when it is resident, takes it out of the task, and frees the handle. Releasing the task takes the parasite
 * out too, but the handle stays valid (and useless) until this is called. `parasite` may be NULL. */
int compel_unload(compel_parasite* parasite);

#ifdef __cplusplus
}
#endif

#endif
