/* SPDX-License-Identifier: GPL-2.0-only */
/* The interface of libcriu, written down once more from what is known of CRIU 4.2, and not from this library's header:
 * types and values when this is compiled, names when it runs.
 *
 * api_test              every name is in libcriu.so.2 as the dynamic linker finds it
 * api_test PID DIR      as a container engine that only loads the library: checkpoints a process into DIR with the
 *                       program `criu` of PATH, restores it as a child, prints its pid, and returns the signal that it
 *                       ends by */
#include <criu/criu.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* ---- values ------------------------------------------------------------------------------------------------------ */

#define IS(name, value) _Static_assert((name) == (value), #name)
IS(CRIU_COMM_SK, 0);
IS(CRIU_COMM_FD, 1);
IS(CRIU_COMM_BIN, 2);
IS(CRIU_CG_MODE_IGNORE, 0);
IS(CRIU_CG_MODE_NONE, 1);
IS(CRIU_CG_MODE_PROPS, 2);
IS(CRIU_CG_MODE_SOFT, 3);
IS(CRIU_CG_MODE_FULL, 4);
IS(CRIU_CG_MODE_STRICT, 5);
IS(CRIU_CG_MODE_DEFAULT, 6);
IS(CRIU_NETWORK_LOCK_IPTABLES, 1);
IS(CRIU_NETWORK_LOCK_NFTABLES, 2);
IS(CRIU_NETWORK_LOCK_SKIP, 3);
IS(CRIU_PRE_DUMP_SPLICE, 1);
IS(CRIU_PRE_DUMP_READ, 2);
IS(CRIU_LOG_UNSET, -1);
IS(CRIU_LOG_MSG, 0);
IS(CRIU_LOG_ERROR, 1);
IS(CRIU_LOG_WARN, 2);
IS(CRIU_LOG_INFO, 3);
IS(CRIU_LOG_DEBUG, 4);
IS(sizeof(struct criu_feature_check), 3 * sizeof(bool));
IS(offsetof(struct criu_feature_check, mem_track), 0);
IS(offsetof(struct criu_feature_check, lazy_pages), 1);
IS(offsetof(struct criu_feature_check, pidfd_store), 2);
IS(_Generic((criu_notify_arg_t)NULL, CriuNotify* : 1, default : 0), 1);
IS(CRIU_VERSION_MAJOR, 4);
IS(CRIU_VERSION_MINOR, 2);

/* ---- functions --------------------------------------------------------------------------------------------------- */

typedef int more_function(criu_predump_info info);
typedef int notify_function(char* action, criu_notify_arg_t arg);

/* ONE(result, name, arguments) is of one function; BOTH of criu_NAME, and of criu_local_NAME, which takes a set of
 * options before the same arguments. Each list is used twice, for types and for names. */
#define FUNCTIONS                                                      \
  ONE(int, criu_init_opts, void)                                       \
  ONE(int, criu_local_init_opts, criu_opts**)                          \
  ONE(int, criu_notify_pid, criu_notify_arg_t)                         \
  ONE(int, criu_get_orphan_pts_master_fd, void)                        \
  ONE(int, criu_local_add_cg_props, criu_opts*, const char*)           \
  ONE(int, criu_local_add_cg_props_file, criu_opts*, const char*)      \
  ONE(int, criu_local_add_cg_dump_controller, criu_opts*, const char*) \
  ONE(int, criu_local_add_cg_yard, criu_opts*, const char*)            \
  BARE(void, free_opts)                                                \
  BARE(int, check)                                                     \
  BARE(int, dump)                                                      \
  BARE(int, pre_dump)                                                  \
  BARE(int, restore)                                                   \
  BARE(int, restore_child)                                             \
  BARE(int, get_version)                                               \
  BOTH(int, dump_iters, more_function*)                                \
  BOTH(int, check_version, int)                                        \
  BOTH(int, feature_check, struct criu_feature_check*, size_t)         \
  BOTH(void, set_notify_cb, notify_function*)                          \
  BOTH(int, set_service_address, const char*)                          \
  BOTH(void, set_service_fd, int)                                      \
  BOTH(int, set_service_binary, const char*)                           \
  BOTH(void, set_pid, int)                                             \
  BOTH(void, set_images_dir_fd, int)                                   \
  BOTH(void, set_work_dir_fd, int)                                     \
  BOTH(void, set_log_level, int)                                       \
  BOTH(void, set_pidfd_store_sk, int)                                  \
  BOTH(void, set_leave_running, bool)                                  \
  BOTH(void, set_ext_unix_sk, bool)                                    \
  BOTH(void, set_tcp_established, bool)                                \
  BOTH(void, set_tcp_skip_in_flight, bool)                             \
  BOTH(void, set_tcp_close, bool)                                      \
  BOTH(void, set_weak_sysctls, bool)                                   \
  BOTH(void, set_evasive_devices, bool)                                \
  BOTH(void, set_shell_job, bool)                                      \
  BOTH(void, set_skip_file_rwx_check, bool)                            \
  BOTH(void, set_orphan_pts_master, bool)                              \
  BOTH(void, set_file_locks, bool)                                     \
  BOTH(void, set_track_mem, bool)                                      \
  BOTH(void, set_auto_dedup, bool)                                     \
  BOTH(void, set_force_irmap, bool)                                    \
  BOTH(void, set_link_remap, bool)                                     \
  BOTH(void, set_manage_cgroups, bool)                                 \
  BOTH(void, set_auto_ext_mnt, bool)                                   \
  BOTH(void, set_ext_sharing, bool)                                    \
  BOTH(void, set_ext_masters, bool)                                    \
  BOTH(void, set_mntns_compat_mode, bool)                              \
  BOTH(void, set_unprivileged, bool)                                   \
  BOTH(int, set_parent_images, const char*)                            \
  BOTH(int, set_log_file, const char*)                                 \
  BOTH(int, set_root, const char*)                                     \
  BOTH(int, set_freeze_cgroup, const char*)                            \
  BOTH(int, set_lsm_profile, const char*)                              \
  BOTH(int, set_lsm_mount_context, const char*)                        \
  BOTH(int, set_config_file, const char*)                              \
  BOTH(void, set_cpu_cap, unsigned int)                                \
  BOTH(void, set_ghost_limit, unsigned int)                            \
  BOTH(void, set_timeout, unsigned int)                                \
  BOTH(void, set_manage_cgroups_mode, enum criu_cg_mode)               \
  BOTH(int, set_network_lock, enum criu_network_lock_method)           \
  BOTH(int, set_pre_dump_mode, enum criu_pre_dump_mode)                \
  BOTH(void, set_empty_ns, int)                                        \
  BOTH(int, set_exec_cmd, int, char**)                                 \
  BOTH(int, set_page_server_address_port, const char*, int)            \
  BOTH(int, add_unix_sk, unsigned int)                                 \
  BOTH(int, add_ext_mount, const char*, const char*)                   \
  BOTH(int, add_veth_pair, const char*, const char*)                   \
  BOTH(int, add_cg_root, const char*, const char*)                     \
  BOTH(int, add_enable_fs, const char*)                                \
  BOTH(int, add_skip_mnt, const char*)                                 \
  BOTH(int, add_irmap_path, const char*)                               \
  BOTH(int, add_external, const char*)                                 \
  BOTH(int, add_inherit_fd, int, const char*)                          \
  BOTH(int, join_ns_add, const char*, const char*, const char*)

#define ONE(result, name, ...) IS(_Generic(&name, result(*)(__VA_ARGS__) : 1, default : 0), 1);
#define BARE(result, name) ONE(result, criu_##name, void) ONE(result, criu_local_##name, criu_opts*)
#define BOTH(result, name, ...) \
  ONE(result, criu_##name, __VA_ARGS__) ONE(result, criu_local_##name, criu_opts*, __VA_ARGS__)
FUNCTIONS
#undef ONE

#define ONE(result, name, ...) #name,
static const char* const names[] = {FUNCTIONS};

static int look_for_names(void* library) {
  int missing = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    if (dlsym(library, names[i]) == NULL) {
      printf("missing: %s\n", names[i]);
      missing = 1;
    }
  }
  const char* const* version = dlsym(library, "criu_lib_version");
  if (version == NULL || strcmp(*version, CRIU_VERSION) != 0) {
    puts("missing: criu_lib_version");
    missing = 1;
  }
  printf("%zu functions\n", sizeof names / sizeof *names);
  return missing;
}

/* ---- an engine --------------------------------------------------------------------------------------------------- */

/* What a function of the library is called as here. */
#define LOAD(library, name)   \
  __typeof__(&name) p_##name; \
  *(void**)&p_##name = dlsym(library, #name)

static int stages; /* of the restore, as it is told */
static int told(char* action, criu_notify_arg_t arg) {
  (void)arg;
  ++stages;
  return action[0] == '\0';
}

static int checkpoint(void* library, int pid, int directory) {
  LOAD(library, criu_init_opts);
  LOAD(library, criu_check_version);
  LOAD(library, criu_set_images_dir_fd);
  LOAD(library, criu_set_work_dir_fd);
  LOAD(library, criu_set_log_level);
  LOAD(library, criu_set_log_file);
  LOAD(library, criu_set_config_file);
  LOAD(library, criu_set_pid);
  LOAD(library, criu_set_leave_running);
  LOAD(library, criu_set_ext_unix_sk);
  LOAD(library, criu_set_shell_job);
  LOAD(library, criu_set_tcp_established);
  LOAD(library, criu_set_file_locks);
  LOAD(library, criu_set_orphan_pts_master);
  LOAD(library, criu_set_manage_cgroups_mode);
  LOAD(library, criu_set_manage_cgroups);
  LOAD(library, criu_dump);
  if (p_criu_init_opts() != 0 || p_criu_check_version(31500) != 1) {
    return -1;
  }
  p_criu_set_images_dir_fd(directory);
  p_criu_set_work_dir_fd(directory);
  p_criu_set_log_level(4);
  p_criu_set_log_file("dump.log");
  p_criu_set_config_file("/nowhere/crun.conf");
  p_criu_set_pid(pid);
  p_criu_set_leave_running(false);
  p_criu_set_ext_unix_sk(false);
  p_criu_set_shell_job(false);
  p_criu_set_tcp_established(false);
  p_criu_set_file_locks(false);
  p_criu_set_orphan_pts_master(true);
  p_criu_set_manage_cgroups_mode(CRIU_CG_MODE_SOFT);
  p_criu_set_manage_cgroups(true);
  return p_criu_dump();
}

static int bring_back(void* library, int directory) {
  LOAD(library, criu_init_opts);
  LOAD(library, criu_set_images_dir_fd);
  LOAD(library, criu_set_work_dir_fd);
  LOAD(library, criu_set_log_level);
  LOAD(library, criu_set_log_file);
  LOAD(library, criu_set_notify_cb);
  LOAD(library, criu_set_manage_cgroups_mode);
  LOAD(library, criu_set_manage_cgroups);
  LOAD(library, criu_restore_child);
  if (p_criu_init_opts() != 0) {
    return -1;
  }
  p_criu_set_images_dir_fd(directory);
  p_criu_set_work_dir_fd(directory);
  p_criu_set_log_level(4);
  p_criu_set_log_file("restore.log");
  p_criu_set_notify_cb(told);
  p_criu_set_manage_cgroups_mode(CRIU_CG_MODE_SOFT);
  p_criu_set_manage_cgroups(true);
  return p_criu_restore_child();
}

static int be_an_engine(void* library, int pid, const char* images) {
  const int directory = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int result = checkpoint(library, pid, directory);
  if (result != 0) {
    printf("dump: %d\n", result);
    return 1;
  }
  const int child = bring_back(library, directory);
  if (child <= 0 || stages == 0) {
    printf("restore: %d, after %d stages\n", child, stages);
    return 1;
  }
  printf("%d\n", child);
  fflush(stdout);
  int status = 0;
  if (waitpid(child, &status, 0) != child) {
    return 1;
  }
  LOAD(library, criu_free_opts);
  p_criu_free_opts();
  return WIFSIGNALED(status) ? WTERMSIG(status) : 1;
}

int main(int argc, char* argv[]) {
  void* library = dlopen("libcriu.so.2", RTLD_NOW);
  if (library == NULL) {
    puts(dlerror());
    return 1;
  }
  return argc == 3 ? be_an_engine(library, atoi(argv[1]), argv[2]) : look_for_names(library);
}
