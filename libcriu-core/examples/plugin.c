/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A plugin with every hook that this version calls. It takes charge of open descriptors of /dev/fuse which no
 * filesystem uses yet: all they have is their status flags. What it is told it writes down beside the images.
 *
 *   cc -shared -fPIC -o /usr/lib/criu/example.so plugin.c
 */
#include <criu/criu-plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char name[] = "example";

static void note(const char* what, int number) {
  char line[64];
  int fd = openat(criu_get_image_dir(), "example-plugin.txt", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  int size = snprintf(line, sizeof line, "%s %d\n", what, number);
  if (fd >= 0 && write(fd, line, (size_t)size) != size) {
    perror("example plugin");
  }
  if (fd >= 0) {
    close(fd);
  }
}

static int init(int stage) {
  note("init", stage);
  return 0;
}

static void finish(int stage, int result) {
  (void)stage;
  note("exit", result);
}

/* A file is known again by the number that it is given at the dump. */
static void name_file(char* path, size_t size, int id) { snprintf(path, size, "example-plugin-%d.txt", id); }

static int dump_file(int fd, int id) {
  struct stat st;
  char path[64], text[16];
  int size, file, flags = fcntl(fd, F_GETFL);
  if (fstat(fd, &st) != 0 || flags < 0) {
    return -errno;
  }
  if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(10, 229)) {
    return -ENOTSUP;
  }
  name_file(path, sizeof path, id);
  file = openat(criu_get_image_dir(), path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    return -errno;
  }
  size = snprintf(text, sizeof text, "%d\n", flags);
  if (write(file, text, (size_t)size) != size) {
    size = -EIO;
  }
  close(file);
  if (size < 0) {
    return size;
  }
  return add_inventory_plugin(name); /* the restore needs us */
}

static int restore_file(int id) {
  char path[64], text[16] = "";
  int fd, flags = 0, file;
  name_file(path, sizeof path, id);
  file = openat(criu_get_image_dir(), path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return -ENOTSUP;
  }
  if (read(file, text, sizeof text - 1) <= 0 || sscanf(text, "%d", &flags) != 1) {
    close(file);
    return -EINVAL;
  }
  close(file);
  fd = open("/dev/fuse", flags | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

static int pause_devices(int pid) {
  note("pause", pid);
  return 0;
}

static int checkpoint_devices(int pid) {
  note("checkpoint", pid);
  return 0;
}

static int dump_devices_late(int pid) {
  note("late", pid);
  return 0;
}

static int restore_init(void) {
  note("restore", 0);
  return 0;
}

static int post_forking(void) {
  note("forked", 0);
  return 0;
}

static int resume_devices_late(int pid) {
  note("resume", pid);
  return 0;
}

CR_PLUGIN_REGISTER(name, init, finish)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_EXT_FILE, dump_file)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, restore_file)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__PAUSE_DEVICES, pause_devices)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, checkpoint_devices)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_DEVICES_LATE, dump_devices_late)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_INIT, restore_init)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__POST_FORKING, post_forking)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESUME_DEVICES_LATE, resume_devices_late)
