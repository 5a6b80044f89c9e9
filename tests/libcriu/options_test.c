/* SPDX-License-Identifier: GPL-2.0-only */
/* Sets of options without memory: whichever allocation fails, it is told by the right value, nothing is lost, and the
 * set is as good as before. The sanitizer tells of what is not freed, or freed twice. Built with the library's sources,
 * since it is their calls of malloc that fail. */
#include <criu/criu.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* memory, size_t size);
char* __real_strdup(const char* text);
void* __wrap_malloc(size_t size);
void* __wrap_calloc(size_t count, size_t size);
void* __wrap_realloc(void* memory, size_t size);
char* __wrap_strdup(const char* text);

static long left = -1; /* allocations until the one that fails; less than 0: none does */

static bool fails(void) { return left >= 0 && left-- == 0; }

void* __wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void* __wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void* __wrap_realloc(void* memory, size_t size) { return fails() ? NULL : __real_realloc(memory, size); }
char* __wrap_strdup(const char* text) { return fails() ? NULL : __real_strdup(text); }

static char* words[] = {"sh", "-c", "true", "not one of them"};

static int set_address(criu_opts* opts) { return criu_local_set_service_address(opts, "/address"); }
static int set_binary(criu_opts* opts) { return criu_local_set_service_binary(opts, "binary"); }
static int set_parent_images(criu_opts* opts) { return criu_local_set_parent_images(opts, "../before"); }
static int set_log_file(criu_opts* opts) { return criu_local_set_log_file(opts, "log"); }
static int set_root(criu_opts* opts) { return criu_local_set_root(opts, "/root"); }
static int set_freeze_cgroup(criu_opts* opts) { return criu_local_set_freeze_cgroup(opts, "/group"); }
static int set_lsm_profile(criu_opts* opts) { return criu_local_set_lsm_profile(opts, "selinux:x"); }
static int set_lsm_mount_context(criu_opts* opts) { return criu_local_set_lsm_mount_context(opts, "context"); }
static int set_config_file(criu_opts* opts) { return criu_local_set_config_file(opts, "/etc/conf"); }
static int set_exec_cmd(criu_opts* opts) { return criu_local_set_exec_cmd(opts, 3, words); }
static int set_page_server(criu_opts* opts) { return criu_local_set_page_server_address_port(opts, "::1", 77); }
static int add_unix_sk(criu_opts* opts) { return criu_local_add_unix_sk(opts, 4711); }
static int add_ext_mount(criu_opts* opts) { return criu_local_add_ext_mount(opts, "key", "value"); }
static int add_veth_pair(criu_opts* opts) { return criu_local_add_veth_pair(opts, "in", "out"); }
static int add_cg_root(criu_opts* opts) { return criu_local_add_cg_root(opts, "cpu", "/path"); }
static int add_cg_root_of_all(criu_opts* opts) { return criu_local_add_cg_root(opts, NULL, "/path"); }
static int add_enable_fs(criu_opts* opts) { return criu_local_add_enable_fs(opts, "fuse"); }
static int add_skip_mnt(criu_opts* opts) { return criu_local_add_skip_mnt(opts, "/mnt"); }
static int add_irmap_path(criu_opts* opts) { return criu_local_add_irmap_path(opts, "/irmap"); }
static int add_external(criu_opts* opts) { return criu_local_add_external(opts, "mnt[x]:y"); }
static int add_inherit_fd(criu_opts* opts) { return criu_local_add_inherit_fd(opts, 5, "key"); }
static int add_cg_props(criu_opts* opts) { return criu_local_add_cg_props(opts, "props"); }
static int add_cg_props_file(criu_opts* opts) { return criu_local_add_cg_props_file(opts, "file"); }
static int add_cg_dump_controller(criu_opts* opts) { return criu_local_add_cg_dump_controller(opts, "pids"); }
static int add_cg_yard(criu_opts* opts) { return criu_local_add_cg_yard(opts, "yard"); }
static int join_ns(criu_opts* opts) { return criu_local_join_ns_add(opts, "user", "/ns", "1000,1000"); }

static const struct {
  const char* name;
  int (*call)(criu_opts* opts);
  int allocations, without_memory;
} calls[] = {
    {"set_service_address", set_address, 1, -ENOMEM},
    {"set_service_binary", set_binary, 1, -ENOMEM},
    {"set_parent_images", set_parent_images, 1, -ENOMEM},
    {"set_log_file", set_log_file, 1, -ENOMEM},
    {"set_root", set_root, 1, -ENOMEM},
    {"set_freeze_cgroup", set_freeze_cgroup, 1, -ENOMEM},
    {"set_lsm_profile", set_lsm_profile, 1, -ENOMEM},
    {"set_lsm_mount_context", set_lsm_mount_context, 1, -ENOMEM},
    {"set_config_file", set_config_file, 1, -ENOMEM},
    {"set_exec_cmd", set_exec_cmd, 6, -ENOMEM},
    {"set_page_server_address_port", set_page_server, 2, -ENOMEM},
    {"add_unix_sk", add_unix_sk, 2, -ENOMEM},
    {"add_ext_mount", add_ext_mount, 4, -ENOMEM},
    {"add_veth_pair", add_veth_pair, 4, -ENOMEM},
    {"add_cg_root", add_cg_root, 4, -ENOMEM},
    {"add_cg_root of all", add_cg_root_of_all, 3, -ENOMEM},
    {"add_enable_fs", add_enable_fs, 2, -ENOMEM},
    {"add_skip_mnt", add_skip_mnt, 2, -ENOMEM},
    {"add_irmap_path", add_irmap_path, 2, -ENOMEM},
    {"add_external", add_external, 2, -ENOMEM},
    {"add_inherit_fd", add_inherit_fd, 3, -ENOMEM},
    {"add_cg_props", add_cg_props, 1, -ENOMEM},
    {"add_cg_props_file", add_cg_props_file, 1, -ENOMEM},
    {"add_cg_dump_controller", add_cg_dump_controller, 2, -ENOMEM},
    {"add_cg_yard", add_cg_yard, 1, -ENOMEM},
    {"join_ns_add", join_ns, 5, -1},
};

static int wrong;

static void expect(const char* what, long nth, int is, int wanted) {
  if (is != wanted) {
    printf("%s, with allocation %ld failing: %d instead of %d\n", what, nth, is, wanted);
    wrong = 1;
  }
}

/* Each time in a fresh set, with one more allocation before the one that fails; after a failure it can be had. */
static void call_in_all_ways(size_t index) {
  const char* name = calls[index].name;
  for (long nth = 0;; ++nth) {
    criu_opts* opts = NULL;
    expect("init_opts", -1, criu_local_init_opts(&opts), 0);
    left = nth;
    const int result = calls[index].call(opts);
    const bool has_failed = left < 0;
    left = -1;
    expect(name, nth, result, has_failed ? calls[index].without_memory : 0);
    expect("set_service_binary", -1, criu_local_set_service_binary(opts, "criu"), 0);
    expect(name, -1, calls[index].call(opts), 0);
    expect("init_opts", -1, criu_local_init_opts(&opts), 0); /* in the place of that one */
    criu_local_free_opts(opts);
    if (!has_failed) {
      expect("what the test knows of its allocations", nth, (int)nth, calls[index].allocations);
      return;
    }
  }
}

static void make_without_memory(void) {
  for (long nth = 0;; ++nth) {
    criu_opts* opts = NULL;
    left = nth;
    const int result = criu_local_init_opts(&opts);
    const bool has_failed = left < 0;
    left = -1;
    expect("init_opts", nth, result, has_failed ? -1 : 0);
    expect("init_opts makes a set", nth, opts != NULL, !has_failed);
    criu_local_free_opts(opts);
    if (!has_failed) {
      return;
    }
  }
}

/* Nobody has been named: who was asked before is asked still. */
static void address_without_memory(void) {
  criu_opts* opts = NULL;
  expect("init_opts", -1, criu_local_init_opts(&opts), 0);
  expect("set_service_binary", -1, criu_local_set_service_binary(opts, "/nowhere/criu"), 0);
  left = 0;
  expect("set_service_address", 0, set_address(opts), -ENOMEM);
  left = -1;
  expect("check", -1, criu_local_check(opts), -ECOMM);
  criu_local_free_opts(opts);
}

int main(void) {
  make_without_memory();
  address_without_memory();
  for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i) {
    call_in_all_ways(i);
  }
  criu_local_free_opts(NULL);
  expect("global init_opts", -1, criu_init_opts(), 0);
  expect("global init_opts again", -1, criu_init_opts(), 0);
  expect("global add_external", -1, criu_add_external("x"), 0);
  criu_free_opts();
  criu_free_opts();
  return wrong;
}
