/* SPDX-License-Identifier: LGPL-2.1-only */
/* Sets of options: a message of the RPC, and who is asked. Each function is there twice, for the set of the whole
 * program and for one that is given. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "opts.h"

criu_opts* criu_global;
const char* const criu_lib_version = CRIU_VERSION;

static const char default_address[] = "./criu_service.socket";
static const char default_binary[] = "criu";

/* ---- making and freeing ------------------------------------------------------------------------------------------ */

void criu_local_free_opts(criu_opts* opts) {
  if (opts == NULL) {
    return;
  }
  if (opts->rpc != NULL) {
    criu_opts__free_unpacked(opts->rpc, NULL);
  }
  free(opts->address);
  free(opts->binary);
  free(opts);
}

int criu_local_init_opts(criu_opts** opts) {
  criu_local_free_opts(*opts);
  *opts = NULL;
  criu_opts* made = calloc(1, sizeof *made);
  if (made == NULL) {
    return -1;
  }
  made->fd = -1;
  made->rpc = malloc(sizeof *made->rpc);
  if (made->rpc != NULL) {
    criu_opts__init(made->rpc);
  }
  if (made->rpc == NULL || criu_local_set_service_binary(made, NULL) != 0) {
    criu_local_free_opts(made);
    return -1;
  }
  *opts = made;
  return 0;
}

int criu_init_opts(void) { return criu_local_init_opts(&criu_global); }

void criu_free_opts(void) {
  criu_local_free_opts(criu_global);
  criu_global = NULL;
}

/* In the place of what is there. */
static int put_text(char** place, const char* text) {
  char* copy = strdup(text);
  if (copy == NULL) {
    return -ENOMEM;
  }
  free(*place);
  *place = copy;
  return 0;
}

int criu_local_set_service_address(criu_opts* opts, const char* path) {
  const int result = put_text(&opts->address, path != NULL ? path : default_address);
  if (result == 0) {
    opts->comm = CRIU_COMM_SK;
  }
  return result;
}
int criu_set_service_address(const char* path) { return criu_local_set_service_address(criu_global, path); }

void criu_local_set_service_fd(criu_opts* opts, int fd) {
  opts->comm = CRIU_COMM_FD;
  opts->fd = fd;
}
void criu_set_service_fd(int fd) { criu_local_set_service_fd(criu_global, fd); }

int criu_local_set_service_binary(criu_opts* opts, const char* path) {
  const int result = put_text(&opts->binary, path != NULL ? path : default_binary);
  if (result == 0) {
    opts->comm = CRIU_COMM_BIN;
  }
  return result;
}
int criu_set_service_binary(const char* path) { return criu_local_set_service_binary(criu_global, path); }

void criu_local_set_notify_cb(criu_opts* opts, int (*callback)(char* action, criu_notify_arg_t arg)) {
  opts->notify = callback;
  opts->rpc->has_notify_scripts = true;
  opts->rpc->notify_scripts = true;
}
void criu_set_notify_cb(int (*callback)(char* action, criu_notify_arg_t arg)) {
  criu_local_set_notify_cb(criu_global, callback);
}

int criu_notify_pid(criu_notify_arg_t arg) { return arg != NULL && arg->has_pid ? arg->pid : 0; }

/* ---- fields of one value ----------------------------------------------------------------------------------------- */

/* The one descriptor that is always there. */
void criu_local_set_images_dir_fd(criu_opts* opts, int fd) { opts->rpc->images_dir_fd = fd; }
void criu_set_images_dir_fd(int fd) { criu_local_set_images_dir_fd(criu_global, fd); }

#define NUMBER(name, type)                                  \
  void criu_local_set_##name(criu_opts* opts, type value) { \
    opts->rpc->has_##name = true;                           \
    opts->rpc->name = value;                                \
  }                                                         \
  void criu_set_##name(type value) { criu_local_set_##name(criu_global, value); }

#define TEXT(name, field)                                                                                    \
  int criu_local_set_##name(criu_opts* opts, const char* text) { return put_text(&opts->rpc->field, text); } \
  int criu_set_##name(const char* text) { return criu_local_set_##name(criu_global, text); }

NUMBER(pid, int)
NUMBER(work_dir_fd, int)
NUMBER(log_level, int)
NUMBER(pidfd_store_sk, int)
NUMBER(cpu_cap, unsigned int)
NUMBER(ghost_limit, unsigned int)
NUMBER(timeout, unsigned int)
NUMBER(leave_running, bool)
NUMBER(ext_unix_sk, bool)
NUMBER(tcp_established, bool)
NUMBER(tcp_skip_in_flight, bool)
NUMBER(tcp_close, bool)
NUMBER(weak_sysctls, bool)
NUMBER(evasive_devices, bool)
NUMBER(shell_job, bool)
NUMBER(skip_file_rwx_check, bool)
NUMBER(orphan_pts_master, bool)
NUMBER(file_locks, bool)
NUMBER(track_mem, bool)
NUMBER(auto_dedup, bool)
NUMBER(force_irmap, bool)
NUMBER(link_remap, bool)
NUMBER(manage_cgroups, bool)
NUMBER(auto_ext_mnt, bool)
NUMBER(ext_sharing, bool)
NUMBER(ext_masters, bool)
NUMBER(mntns_compat_mode, bool)
NUMBER(unprivileged, bool)
TEXT(parent_images, parent_img)
TEXT(log_file, log_file)
TEXT(root, root)
TEXT(freeze_cgroup, freeze_cgroup)
TEXT(lsm_profile, lsm_profile)
TEXT(lsm_mount_context, lsm_mount_context)
TEXT(config_file, config_file)

void criu_local_set_manage_cgroups_mode(criu_opts* opts, enum criu_cg_mode mode) {
  opts->rpc->has_manage_cgroups_mode = true;
  opts->rpc->manage_cgroups_mode = (CriuCgMode)mode;
}
void criu_set_manage_cgroups_mode(enum criu_cg_mode mode) { criu_local_set_manage_cgroups_mode(criu_global, mode); }

int criu_local_set_network_lock(criu_opts* opts, enum criu_network_lock_method method) {
  if (method < CRIU_NETWORK_LOCK_IPTABLES || method > CRIU_NETWORK_LOCK_SKIP) {
    return -1;
  }
  opts->rpc->has_network_lock = true;
  opts->rpc->network_lock = (CriuNetworkLockMethod)method;
  return 0;
}
int criu_set_network_lock(enum criu_network_lock_method method) {
  return criu_local_set_network_lock(criu_global, method);
}

int criu_local_set_pre_dump_mode(criu_opts* opts, enum criu_pre_dump_mode mode) {
  if (mode != CRIU_PRE_DUMP_SPLICE && mode != CRIU_PRE_DUMP_READ) {
    return -1;
  }
  opts->rpc->has_pre_dump_mode = true;
  opts->rpc->pre_dump_mode = (CriuPreDumpMode)mode;
  return 0;
}
int criu_set_pre_dump_mode(enum criu_pre_dump_mode mode) { return criu_local_set_pre_dump_mode(criu_global, mode); }

void criu_local_set_empty_ns(criu_opts* opts, int namespaces) {
  opts->rpc->has_empty_ns = true;
  opts->rpc->empty_ns = (uint32_t)namespaces;
}
void criu_set_empty_ns(int namespaces) { criu_local_set_empty_ns(criu_global, namespaces); }

int criu_local_set_page_server_address_port(criu_opts* opts, const char* address, int port) {
  if (opts->rpc->ps == NULL) {
    opts->rpc->ps = malloc(sizeof *opts->rpc->ps);
    if (opts->rpc->ps == NULL) {
      return -ENOMEM;
    }
    criu_page_server_info__init(opts->rpc->ps);
  }
  opts->rpc->ps->has_port = true;
  opts->rpc->ps->port = port;
  return put_text(&opts->rpc->ps->address, address);
}
int criu_set_page_server_address_port(const char* address, int port) {
  return criu_local_set_page_server_address_port(criu_global, address, port);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* Room for one more at the end of a list of pointers, which is null until then. */
static void** grow(void*** list, size_t count) {
  void** grown = realloc(*list, (count + 1) * sizeof *grown);
  if (grown == NULL) {
    return NULL;
  }
  *list = grown;
  grown[count] = NULL;
  return &grown[count];
}

static int add_text(char*** list, size_t* count, const char* text) {
  void** place = grow((void***)list, *count);
  if (place == NULL || (*place = strdup(text)) == NULL) {
    return -ENOMEM;
  }
  ++*count;
  return 0;
}

#define LIST(name, field)                                            \
  int criu_local_##name(criu_opts* opts, const char* text) {         \
    return add_text(&opts->rpc->field, &opts->rpc->n_##field, text); \
  }

LIST(add_enable_fs, enable_fs)
LIST(add_skip_mnt, skip_mnt)
LIST(add_irmap_path, irmap_scan_paths)
LIST(add_external, external)
LIST(add_cg_dump_controller, cgroup_dump_controller)

int criu_add_enable_fs(const char* fs) { return criu_local_add_enable_fs(criu_global, fs); }
int criu_add_skip_mnt(const char* mnt) { return criu_local_add_skip_mnt(criu_global, mnt); }
int criu_add_irmap_path(const char* path) { return criu_local_add_irmap_path(criu_global, path); }
int criu_add_external(const char* key) { return criu_local_add_external(criu_global, key); }

int criu_local_add_cg_props(criu_opts* opts, const char* stream) { return put_text(&opts->rpc->cgroup_props, stream); }
int criu_local_add_cg_props_file(criu_opts* opts, const char* path) {
  return put_text(&opts->rpc->cgroup_props_file, path);
}
int criu_local_add_cg_yard(criu_opts* opts, const char* path) { return put_text(&opts->rpc->cgroup_yard, path); }

int criu_local_set_exec_cmd(criu_opts* opts, int argc, char* argv[]) {
  while (opts->rpc->n_exec_cmd > 0) {
    free(opts->rpc->exec_cmd[--opts->rpc->n_exec_cmd]);
  }
  for (int i = 0; i < argc; ++i) {
    if (add_text(&opts->rpc->exec_cmd, &opts->rpc->n_exec_cmd, argv[i]) != 0) {
      return -ENOMEM;
    }
  }
  return 0;
}
int criu_set_exec_cmd(int argc, char* argv[]) { return criu_local_set_exec_cmd(criu_global, argc, argv); }

/* A message at the end of a list of them; those that are not complete are freed again by `discard`. */
#define ADD(list, type, prefix, fill)                                  \
  type* made = malloc(sizeof *made);                                   \
  if (made == NULL) {                                                  \
    return -ENOMEM;                                                    \
  }                                                                    \
  prefix##__init(made);                                                \
  void** place = grow((void***)&opts->rpc->list, opts->rpc->n_##list); \
  if (place == NULL || !(fill)) {                                      \
    prefix##__free_unpacked(made, NULL);                               \
    return -ENOMEM;                                                    \
  }                                                                    \
  *place = made;                                                       \
  ++opts->rpc->n_##list;                                               \
  return 0

int criu_local_add_unix_sk(criu_opts* opts, unsigned int inode) {
  if (opts->rpc->has_ext_unix_sk && !opts->rpc->ext_unix_sk) {
    return -1;
  }
  criu_local_set_ext_unix_sk(opts, true);
  ADD(unix_sk_ino, UnixSk, unix_sk, (made->inode = inode, true));
}
int criu_add_unix_sk(unsigned int inode) { return criu_local_add_unix_sk(criu_global, inode); }

int criu_local_add_ext_mount(criu_opts* opts, const char* key, const char* val) {
  ADD(ext_mnt, ExtMountMap, ext_mount_map, (made->key = strdup(key)) != NULL && (made->val = strdup(val)) != NULL);
}
int criu_add_ext_mount(const char* key, const char* val) { return criu_local_add_ext_mount(criu_global, key, val); }

int criu_local_add_veth_pair(criu_opts* opts, const char* in, const char* out) {
  ADD(veths, CriuVethPair, criu_veth_pair, (made->if_in = strdup(in)) != NULL && (made->if_out = strdup(out)) != NULL);
}
int criu_add_veth_pair(const char* in, const char* out) { return criu_local_add_veth_pair(criu_global, in, out); }

int criu_local_add_cg_root(criu_opts* opts, const char* ctrl, const char* path) {
  ADD(cg_root, CgroupRoot, cgroup_root,
      (ctrl == NULL || (made->ctrl = strdup(ctrl)) != NULL) && (made->path = strdup(path)) != NULL);
}
int criu_add_cg_root(const char* ctrl, const char* path) { return criu_local_add_cg_root(criu_global, ctrl, path); }

int criu_local_add_inherit_fd(criu_opts* opts, int fd, const char* key) {
  if (opts->comm != CRIU_COMM_BIN) {
    return -1;
  }
  ADD(inherit_fd, InheritFd, inherit_fd, (made->fd = fd, (made->key = strdup(key)) != NULL));
}
int criu_add_inherit_fd(int fd, const char* key) { return criu_local_add_inherit_fd(criu_global, fd, key); }

static int add_namespace(criu_opts* opts, const char* ns, const char* ns_file, const char* extra_opt) {
  ADD(join_ns, JoinNamespace, join_namespace,
      (made->ns = strdup(ns)) != NULL && (made->ns_file = strdup(ns_file)) != NULL &&
          (extra_opt == NULL || (made->extra_opt = strdup(extra_opt)) != NULL));
}
int criu_local_join_ns_add(criu_opts* opts, const char* ns, const char* ns_file, const char* extra_opt) {
  return ns == NULL || ns_file == NULL || add_namespace(opts, ns, ns_file, extra_opt) != 0 ? -1 : 0;
}
int criu_join_ns_add(const char* ns, const char* ns_file, const char* extra_opt) {
  return criu_local_join_ns_add(criu_global, ns, ns_file, extra_opt);
}
