/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Plugins: shared objects, in the directory of --libdir, that save and restore what this suite does not know. The
 * interface is that of CRIU 4.2, in its binary form as well.
 *
 *   #include <criu/criu-plugin.h>
 *
 *   static int dump(int fd, int id) { … return 0; }          // contents go next to the images: criu_get_image_dir()
 *   static int restore(int id) { … return fd; }
 *
 *   CR_PLUGIN_REGISTER("example", NULL, NULL)
 *   CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_EXT_FILE, dump)
 *   CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, restore)
 *
 * A hook returns -ENOTSUP for what is not its own, so that the next plugin is asked, and any other negative number to
 * make the dump or restore fail.
 */
#ifndef CRIU_CRIU_PLUGIN_H
#define CRIU_CRIU_PLUGIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CRIU_PLUGIN_GEN_VERSION(major, minor, sub) (((major) << 16) | ((minor) << 8) | (sub))
#define CRIU_PLUGIN_VERSION CRIU_PLUGIN_GEN_VERSION(0, 2, 0)

enum cr_plugin_stage {
  CR_PLUGIN_STAGE__DUMP,
  CR_PLUGIN_STAGE__PRE_DUMP,
  CR_PLUGIN_STAGE__RESTORE,
  CR_PLUGIN_STAGE_MAX
};

enum {
  CR_PLUGIN_HOOK__DUMP_UNIX_SK = 0,        /* int (int fd, int inode): not called by this version */
  CR_PLUGIN_HOOK__RESTORE_UNIX_SK = 1,     /* int (int inode): not called by this version */
  CR_PLUGIN_HOOK__DUMP_EXT_FILE = 2,       /* int (int fd, int id): a file of a kind that is not known */
  CR_PLUGIN_HOOK__RESTORE_EXT_FILE = 3,    /* int (int id), or int (int id, bool *retry): a descriptor */
  CR_PLUGIN_HOOK__DUMP_EXT_MOUNT = 4,      /* int (char *mountpoint, int id): not called by this version */
  CR_PLUGIN_HOOK__RESTORE_EXT_MOUNT = 5,   /* int (int id, char *, char *, int *): not called by this version */
  CR_PLUGIN_HOOK__DUMP_EXT_LINK = 6,       /* int (int index, int type, char *kind): not called by this version */
  CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA = 7,   /* int (int fd, const struct stat *): not called by this version */
  CR_PLUGIN_HOOK__UPDATE_VMA_MAP = 8,      /* int (const char *path, …): not called by this version */
  CR_PLUGIN_HOOK__RESUME_DEVICES_LATE = 9, /* int (int pid): restore, each task, right before it runs */
  CR_PLUGIN_HOOK__PAUSE_DEVICES = 10,      /* int (int pid): dump, each task, before it is stopped */
  CR_PLUGIN_HOOK__CHECKPOINT_DEVICES = 11, /* int (int pid): dump, each task, when all are stopped */
  CR_PLUGIN_HOOK__POST_FORKING = 12,       /* int (void): restore, when all tasks exist */
  CR_PLUGIN_HOOK__RESTORE_INIT = 13,       /* int (void): restore, before the first task exists */
  CR_PLUGIN_HOOK__DUMP_DEVICES_LATE = 14,  /* int (int root_pid): dump, when all tasks are saved */
  CR_PLUGIN_HOOK__MAX
};

/* What a plugin is. `init` and `exit` may be NULL; `exit` is told how it went (0: well). */
typedef struct {
  const char* name;
  int (*init)(int stage);
  void (*exit)(int stage, int ret);
  unsigned version;
  unsigned max_hooks;
  void* hooks[CR_PLUGIN_HOOK__MAX];
} cr_plugin_desc_t;

extern cr_plugin_desc_t CR_PLUGIN_DESC;

#define CR_PLUGIN_REGISTER(plugin_name, plugin_init, plugin_exit)            \
  __attribute__((visibility("default"))) cr_plugin_desc_t CR_PLUGIN_DESC = { \
      plugin_name, plugin_init, plugin_exit, CRIU_PLUGIN_VERSION, CR_PLUGIN_HOOK__MAX, {0}};

#define CR_PLUGIN_REGISTER_HOOK(hook, function)                                  \
  static void __attribute__((constructor)) cr_plugin_register_##function(void) { \
    CR_PLUGIN_DESC.hooks[hook] = (void*)(uintptr_t)(function);                   \
  }

/* For plugins, from the program that loads them. */

/* The descriptor of the image directory; not to be closed. */
int criu_get_image_dir(void);
/* Dump: the restore is to refuse without the plugin of this name. */
int add_inventory_plugin(const char* name);

#ifdef __cplusplus
}
#endif

#endif
