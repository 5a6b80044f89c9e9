/* SPDX-License-Identifier: LGPL-2.1-only */
/* Checkpoints a process and brings it back as a child. usage: checkpoint CRIU PID DIRECTORY */
#include <criu/criu.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

int main(int argc, char* argv[]) {
  if (argc != 4 || criu_init_opts() != 0) {
    return 2;
  }
  criu_set_service_binary(argv[1]);
  criu_set_images_dir_fd(open(argv[3], O_RDONLY | O_DIRECTORY));
  criu_set_log_level(CRIU_LOG_DEBUG);
  criu_set_pid(atoi(argv[2]));
  if (criu_dump() < 0) {
    perror("dump");
    return 1;
  }
  const int pid = criu_restore_child();
  if (pid < 0) {
    perror("restore");
    return 1;
  }
  printf("%d\n", pid);
  fflush(stdout);
  int status = 0;
  waitpid(pid, &status, 0);
  criu_free_opts();
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
