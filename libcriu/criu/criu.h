/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libcriu: asks CRIU for checkpoints and restores over its RPC.
 *
 *   criu_init_opts();
 *   criu_set_images_dir_fd(open("/var/tmp/checkpoint", O_DIRECTORY));
 *   criu_set_pid(4711);
 *   if (criu_dump() < 0) perror("dump");
 *
 * Each call starts the program `criu` as a worker of its own, unless a running service is named. There is one set of
 * options for the whole program (criu_NAME), and as many as are wanted for those who make their own (criu_local_NAME,
 * with the same arguments behind it); a set belongs to one thread at a time.
 *
 * What asks for something returns 0 (or what is said with it), or a negative errno, which errno is set to as well but
 * for -EBADE:
 *   -EBADE         it could not be done; errno is what the worker said (0: nothing), its log tells more
 *   -ECONNREFUSED  there is nobody to ask: no such program, or no service at that address
 *   -ECOMM         the worker ended or the connection broke half-way
 *   -EINVAL        the worker did not understand the request
 *   -EBADMSG       the worker answered something else
 *   -1             the call makes no sense as it is
 */
#ifndef CRIU_CRIU_H
#define CRIU_CRIU_H

#include <criu/rpc.pb-c.h>
#include <criu/version.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CRIU_API __attribute__((visibility("default")))
#else
#define CRIU_API
#endif

/* The version of this library: "4.2". */
CRIU_API extern const char* const criu_lib_version;

enum criu_service_comm { CRIU_COMM_SK, CRIU_COMM_FD, CRIU_COMM_BIN };

enum criu_cg_mode {
  CRIU_CG_MODE_IGNORE,
  CRIU_CG_MODE_NONE,
  CRIU_CG_MODE_PROPS,
  CRIU_CG_MODE_SOFT,
  CRIU_CG_MODE_FULL,
  CRIU_CG_MODE_STRICT,
  CRIU_CG_MODE_DEFAULT
};

enum criu_network_lock_method {
  CRIU_NETWORK_LOCK_IPTABLES = 1,
  CRIU_NETWORK_LOCK_NFTABLES = 2,
  CRIU_NETWORK_LOCK_SKIP = 3
};

enum criu_pre_dump_mode { CRIU_PRE_DUMP_SPLICE = 1, CRIU_PRE_DUMP_READ = 2 };

enum {
  CRIU_LOG_UNSET = -1,
  CRIU_LOG_MSG = 0,
  CRIU_LOG_ERROR = 1,
  CRIU_LOG_WARN = 2,
  CRIU_LOG_INFO = 3,
  CRIU_LOG_DEBUG = 4
};

typedef struct criu_opts criu_opts;
typedef CriuNotify* criu_notify_arg_t;
typedef void* criu_predump_info;

struct criu_feature_check {
  bool mem_track;
  bool lazy_pages;
  bool pidfd_store;
};

/* ---- sets of options --------------------------------------------------------------------------------------------- */

/* To be called first, and again for a fresh set. What `*opts` points to must be a set, which is freed, or null. 0, -1.
 */
CRIU_API int criu_init_opts(void);
CRIU_API int criu_local_init_opts(criu_opts** opts);
CRIU_API void criu_free_opts(void);
CRIU_API void criu_local_free_opts(criu_opts* opts);

/* Who is asked: the service at a socket (null: ./criu_service.socket), whoever is at the other end of one, or a program
 * (null: `criu`, searched for in PATH; so it is without any of these). The last call wins. 0 or -ENOMEM. */
CRIU_API int criu_set_service_address(const char* path);
CRIU_API int criu_local_set_service_address(criu_opts* opts, const char* path);
CRIU_API void criu_set_service_fd(int fd);
CRIU_API void criu_local_set_service_fd(criu_opts* opts, int fd);
CRIU_API int criu_set_service_binary(const char* path);
CRIU_API int criu_local_set_service_binary(criu_opts* opts, const char* path);

/* Called at each stage by its name ("post-restore"), with criu_notify_pid() as it says; not 0 is a veto, and what the
 * request then returns. */
CRIU_API void criu_set_notify_cb(int (*callback)(char* action, criu_notify_arg_t arg));
CRIU_API void criu_local_set_notify_cb(criu_opts* opts, int (*callback)(char* action, criu_notify_arg_t arg));
/* The pid of the root task that a notification speaks of, or 0. */
CRIU_API int criu_notify_pid(criu_notify_arg_t arg);
/* The master of a restored terminal that came last, with "orphan-pts-master"; the caller's to close. -1: none has. */
CRIU_API int criu_get_orphan_pts_master_fd(void);

/* ---- options ------------------------------------------------------------------------------------------------------
 */

/* Numbers: of the root task, of open descriptors, a log level, the socket of a store of pidfds. */
CRIU_API void criu_set_pid(int pid);
CRIU_API void criu_local_set_pid(criu_opts* opts, int pid);
CRIU_API void criu_set_images_dir_fd(int fd);
CRIU_API void criu_local_set_images_dir_fd(criu_opts* opts, int fd);
CRIU_API void criu_set_work_dir_fd(int fd);
CRIU_API void criu_local_set_work_dir_fd(criu_opts* opts, int fd);
CRIU_API void criu_set_log_level(int level);
CRIU_API void criu_local_set_log_level(criu_opts* opts, int level);
CRIU_API void criu_set_pidfd_store_sk(int sk);
CRIU_API void criu_local_set_pidfd_store_sk(criu_opts* opts, int sk);

/* Switches, named like the options of the command line. */
CRIU_API void criu_set_leave_running(bool on);
CRIU_API void criu_local_set_leave_running(criu_opts* opts, bool on);
CRIU_API void criu_set_ext_unix_sk(bool on);
CRIU_API void criu_local_set_ext_unix_sk(criu_opts* opts, bool on);
CRIU_API void criu_set_tcp_established(bool on);
CRIU_API void criu_local_set_tcp_established(criu_opts* opts, bool on);
CRIU_API void criu_set_tcp_skip_in_flight(bool on);
CRIU_API void criu_local_set_tcp_skip_in_flight(criu_opts* opts, bool on);
CRIU_API void criu_set_tcp_close(bool on);
CRIU_API void criu_local_set_tcp_close(criu_opts* opts, bool on);
CRIU_API void criu_set_weak_sysctls(bool on);
CRIU_API void criu_local_set_weak_sysctls(criu_opts* opts, bool on);
CRIU_API void criu_set_evasive_devices(bool on);
CRIU_API void criu_local_set_evasive_devices(criu_opts* opts, bool on);
CRIU_API void criu_set_shell_job(bool on);
CRIU_API void criu_local_set_shell_job(criu_opts* opts, bool on);
CRIU_API void criu_set_skip_file_rwx_check(bool on);
CRIU_API void criu_local_set_skip_file_rwx_check(criu_opts* opts, bool on);
CRIU_API void criu_set_orphan_pts_master(bool on);
CRIU_API void criu_local_set_orphan_pts_master(criu_opts* opts, bool on);
CRIU_API void criu_set_file_locks(bool on);
CRIU_API void criu_local_set_file_locks(criu_opts* opts, bool on);
CRIU_API void criu_set_track_mem(bool on);
CRIU_API void criu_local_set_track_mem(criu_opts* opts, bool on);
CRIU_API void criu_set_auto_dedup(bool on);
CRIU_API void criu_local_set_auto_dedup(criu_opts* opts, bool on);
CRIU_API void criu_set_force_irmap(bool on);
CRIU_API void criu_local_set_force_irmap(criu_opts* opts, bool on);
CRIU_API void criu_set_link_remap(bool on);
CRIU_API void criu_local_set_link_remap(criu_opts* opts, bool on);
CRIU_API void criu_set_manage_cgroups(bool on);
CRIU_API void criu_local_set_manage_cgroups(criu_opts* opts, bool on);
CRIU_API void criu_set_auto_ext_mnt(bool on);
CRIU_API void criu_local_set_auto_ext_mnt(criu_opts* opts, bool on);
CRIU_API void criu_set_ext_sharing(bool on);
CRIU_API void criu_local_set_ext_sharing(criu_opts* opts, bool on);
CRIU_API void criu_set_ext_masters(bool on);
CRIU_API void criu_local_set_ext_masters(criu_opts* opts, bool on);
CRIU_API void criu_set_mntns_compat_mode(bool on);
CRIU_API void criu_local_set_mntns_compat_mode(criu_opts* opts, bool on);
CRIU_API void criu_set_unprivileged(bool on);
CRIU_API void criu_local_set_unprivileged(criu_opts* opts, bool on);

/* A bit mask of CPU features; bytes; seconds. */
CRIU_API void criu_set_cpu_cap(unsigned int mask);
CRIU_API void criu_local_set_cpu_cap(criu_opts* opts, unsigned int mask);
CRIU_API void criu_set_ghost_limit(unsigned int bytes);
CRIU_API void criu_local_set_ghost_limit(criu_opts* opts, unsigned int bytes);
CRIU_API void criu_set_timeout(unsigned int seconds);
CRIU_API void criu_local_set_timeout(criu_opts* opts, unsigned int seconds);

/* Texts, which are copied. 0 or -ENOMEM. */
CRIU_API int criu_set_parent_images(const char* path);
CRIU_API int criu_local_set_parent_images(criu_opts* opts, const char* path);
CRIU_API int criu_set_log_file(const char* text);
CRIU_API int criu_local_set_log_file(criu_opts* opts, const char* text);
CRIU_API int criu_set_root(const char* path);
CRIU_API int criu_local_set_root(criu_opts* opts, const char* path);
CRIU_API int criu_set_freeze_cgroup(const char* path);
CRIU_API int criu_local_set_freeze_cgroup(criu_opts* opts, const char* path);
CRIU_API int criu_set_lsm_profile(const char* text);
CRIU_API int criu_local_set_lsm_profile(criu_opts* opts, const char* text);
CRIU_API int criu_set_lsm_mount_context(const char* text);
CRIU_API int criu_local_set_lsm_mount_context(criu_opts* opts, const char* text);
CRIU_API int criu_set_config_file(const char* path);
CRIU_API int criu_local_set_config_file(criu_opts* opts, const char* path);

/* Words with their own meaning: -1 for others. */
CRIU_API void criu_set_manage_cgroups_mode(enum criu_cg_mode mode);
CRIU_API void criu_local_set_manage_cgroups_mode(criu_opts* opts, enum criu_cg_mode mode);
CRIU_API int criu_set_network_lock(enum criu_network_lock_method method);
CRIU_API int criu_local_set_network_lock(criu_opts* opts, enum criu_network_lock_method method);
CRIU_API int criu_set_pre_dump_mode(enum criu_pre_dump_mode mode);
CRIU_API int criu_local_set_pre_dump_mode(criu_opts* opts, enum criu_pre_dump_mode mode);
/* CLONE_NEW... of namespaces that are left empty. */
CRIU_API void criu_set_empty_ns(int namespaces);
CRIU_API void criu_local_set_empty_ns(criu_opts* opts, int namespaces);
/* What the worker becomes after a restore: `argc` words, which are copied. 0 or -ENOMEM. */
CRIU_API int criu_set_exec_cmd(int argc, char* argv[]);
CRIU_API int criu_local_set_exec_cmd(criu_opts* opts, int argc, char* argv[]);
CRIU_API int criu_set_page_server_address_port(const char* address, int port);
CRIU_API int criu_local_set_page_server_address_port(criu_opts* opts, const char* address, int port);

/* One more of each. Texts are copied. 0 or -ENOMEM. */
/* The inode of a UNIX socket whose peer is outside; -1 where criu_set_ext_unix_sk(false) was said. */
CRIU_API int criu_add_unix_sk(unsigned int inode);
CRIU_API int criu_local_add_unix_sk(criu_opts* opts, unsigned int inode);
CRIU_API int criu_add_ext_mount(const char* key, const char* val);
CRIU_API int criu_local_add_ext_mount(criu_opts* opts, const char* key, const char* val);
CRIU_API int criu_add_veth_pair(const char* in, const char* out);
CRIU_API int criu_local_add_veth_pair(criu_opts* opts, const char* in, const char* out);
/* `ctrl`: a controller; null: all. */
CRIU_API int criu_add_cg_root(const char* ctrl, const char* path);
CRIU_API int criu_local_add_cg_root(criu_opts* opts, const char* ctrl, const char* path);
CRIU_API int criu_add_enable_fs(const char* fs);
CRIU_API int criu_local_add_enable_fs(criu_opts* opts, const char* fs);
CRIU_API int criu_add_skip_mnt(const char* mnt);
CRIU_API int criu_local_add_skip_mnt(criu_opts* opts, const char* mnt);
CRIU_API int criu_add_irmap_path(const char* path);
CRIU_API int criu_local_add_irmap_path(criu_opts* opts, const char* path);
CRIU_API int criu_add_external(const char* key);
CRIU_API int criu_local_add_external(criu_opts* opts, const char* key);
/* A descriptor of the caller; -1 unless a program is asked. */
CRIU_API int criu_add_inherit_fd(int fd, const char* key);
CRIU_API int criu_local_add_inherit_fd(criu_opts* opts, int fd, const char* key);
/* `extra_opt` may be null. 0 or -1. */
CRIU_API int criu_join_ns_add(const char* ns, const char* ns_file, const char* extra_opt);
CRIU_API int criu_local_join_ns_add(criu_opts* opts, const char* ns, const char* ns_file, const char* extra_opt);
CRIU_API int criu_local_add_cg_props(criu_opts* opts, const char* stream);
CRIU_API int criu_local_add_cg_props_file(criu_opts* opts, const char* path);
CRIU_API int criu_local_add_cg_dump_controller(criu_opts* opts, const char* name);
CRIU_API int criu_local_add_cg_yard(criu_opts* opts, const char* path);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Whether this kernel can do the work. */
CRIU_API int criu_check(void);
CRIU_API int criu_local_check(criu_opts* opts);
/* 0; without a pid the caller itself is meant, and 1 is returned in the restored copy. */
CRIU_API int criu_dump(void);
CRIU_API int criu_local_dump(criu_opts* opts);
CRIU_API int criu_pre_dump(void);
CRIU_API int criu_local_pre_dump(criu_opts* opts);
/* Pre-dumps for as long as `more` returns more than 0, then, for 0, the dump. Less ends it and is returned. Between
 * them the options may be changed: each needs a directory of its own. */
CRIU_API int criu_dump_iters(int (*more)(criu_predump_info info));
CRIU_API int criu_local_dump_iters(criu_opts* opts, int (*more)(criu_predump_info info));
/* The pid of the root task, which is nobody's child here; with _child it is the caller's, and a program is asked. */
CRIU_API int criu_restore(void);
CRIU_API int criu_local_restore(criu_opts* opts);
CRIU_API int criu_restore_child(void);
CRIU_API int criu_local_restore_child(criu_opts* opts);
/* Of who is asked: major * 10000 + minor * 100 + sublevel. */
CRIU_API int criu_get_version(void);
CRIU_API int criu_local_get_version(criu_opts* opts);
/* 1: it is at least that; 0: it is older. */
CRIU_API int criu_check_version(int minimum);
CRIU_API int criu_local_check_version(criu_opts* opts, int minimum);
/* Those that are true are asked for, and true afterwards if they are there. `size`: of the caller's structure. */
CRIU_API int criu_feature_check(struct criu_feature_check* features, size_t size);
CRIU_API int criu_local_feature_check(criu_opts* opts, struct criu_feature_check* features, size_t size);

#ifdef __cplusplus
}
#endif

#endif
