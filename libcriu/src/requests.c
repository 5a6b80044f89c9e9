/* SPDX-License-Identifier: LGPL-2.1-only */
/* Requests: finding somebody who answers, asking, and serving what is asked back meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "opts.h"

static int orphan_pts_master = -1;

int criu_get_orphan_pts_master_fd(void) { return orphan_pts_master; }

/* ---- who is asked ------------------------------------------------------------------------------------------------ */

struct worker {
  int fd;
  pid_t pid; /* of a program that was started; 0: of none */
  bool ours; /* the descriptor is to be closed */
  sigset_t mask;
};

static int fail(int error) {
  errno = error;
  return -error;
}

static int connect_to(struct worker* worker, const char* address) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const size_t length = strlen(address);
  if (length > sizeof name.sun_path) {
    return fail(ECONNREFUSED);
  }
  memcpy(name.sun_path, address, length);
  worker->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  worker->ours = true;
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  if (worker->fd < 0 || connect(worker->fd, (struct sockaddr*)&name, size) != 0) {
    if (worker->fd >= 0) {
      close(worker->fd);
    }
    return fail(ECONNREFUSED);
  }
  return 0;
}

static void become_worker(const criu_opts* opts, const sigset_t* mask, int fd, bool apart) {
  /* It has children of its own to wait for, whatever the caller does about its. */
  sigset_t own = *mask;
  sigdelset(&own, SIGCHLD);
  sigprocmask(SIG_SETMASK, &own, NULL);
  /* Who asks for a checkpoint of itself cannot have the worker among its children. */
  if (apart && daemon(0, 1) != 0) {
    _exit(1);
  }
  const pid_t pid = getpid();
  if (send(fd, &pid, sizeof pid, MSG_NOSIGNAL) != (ssize_t)sizeof pid) {
    _exit(1);
  }
  /* Of all that other threads start meanwhile, only this program is to have it. */
  fcntl(fd, F_SETFD, 0);
  char number[16];
  snprintf(number, sizeof number, "%d", fd);
  execlp(opts->binary, opts->binary, "swrk", number, (char*)NULL);
  _exit(1);
}

/* Its end is waited for here, whatever the program does about its other children. */
static int start_worker(struct worker* worker, const criu_opts* opts, bool apart) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(ECOMM);
  }
  sigset_t block;
  sigemptyset(&block);
  sigaddset(&block, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &block, &worker->mask);
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    become_worker(opts, &worker->mask, ends[1], apart);
  }
  close(ends[1]);
  worker->fd = ends[0];
  worker->ours = true;
  if (pid > 0 && apart) {
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
  }
  pid_t told = 0;
  if (pid < 0 || recv(ends[0], &told, sizeof told, 0) != (ssize_t)sizeof told) {
    pthread_sigmask(SIG_SETMASK, &worker->mask, NULL);
    close(ends[0]);
    return fail(ECONNREFUSED);
  }
  worker->pid = told;
  return 0;
}

static int find_worker(struct worker* worker, const criu_opts* opts, bool apart) {
  *worker = (struct worker){.fd = -1};
  switch (opts->comm) {
    case CRIU_COMM_SK:
      return connect_to(worker, opts->address);
    case CRIU_COMM_FD:
      worker->fd = opts->fd;
      return 0;
    default:
      return start_worker(worker, opts, apart);
  }
}

static void leave_worker(struct worker* worker) {
  const int error = errno;
  if (worker->ours) {
    close(worker->fd);
  }
  if (worker->pid != 0) {
    while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &worker->mask, NULL);
  }
  errno = error;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static int send_request(int fd, const CriuReq* request) {
  const size_t size = criu_req__get_packed_size(request);
  unsigned char* packet = malloc(size);
  if (packet == NULL) {
    return fail(ECOMM);
  }
  criu_req__pack(request, packet);
  ssize_t sent;
  do {
    sent = send(fd, packet, size, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  free(packet);
  return sent == (ssize_t)size ? 0 : fail(ECOMM);
}

static void take_descriptor(struct msghdr* message) {
  for (struct cmsghdr* header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      memcpy(&orphan_pts_master, CMSG_DATA(header), sizeof orphan_pts_master);
    }
  }
}

/* Null: there is none, and errno ECOMM. */
static CriuResp* receive_response(int fd) {
  ssize_t size;
  do {
    size = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
  } while (size < 0 && errno == EINTR);
  unsigned char* packet = size > 0 ? malloc((size_t)size) : NULL;
  CriuResp* response = NULL;
  if (packet != NULL) {
    union {
      struct cmsghdr header;
      char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {packet, (size_t)size};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) == size) {
      take_descriptor(&message);
      response = criu_resp__unpack(NULL, (size_t)size, packet);
    }
    free(packet);
  }
  if (response == NULL) {
    errno = ECOMM;
  }
  return response;
}

/* What the callback says; less or more than 0 ends the request. */
static int answer_notification(const criu_opts* opts, int fd, const CriuResp* response) {
  int said = 0;
  if (opts->notify != NULL && response->notify != NULL) {
    said = opts->notify(response->notify->script, response->notify);
  }
  CriuReq answer = CRIU_REQ__INIT;
  answer.type = CRIU_REQ_TYPE__NOTIFY;
  answer.has_notify_success = true;
  answer.notify_success = said == 0;
  const int sent = send_request(fd, &answer);
  return said != 0 ? said : sent;
}

/* Asks, and serves notifications until the answer is there, which then belongs to the caller if `answer` is not null.
 */
static int ask(const criu_opts* opts, int fd, const CriuReq* request, CriuResp** answer) {
  int result = send_request(fd, request);
  if (result != 0) {
    return result;
  }
  CriuResp* response;
  while ((response = receive_response(fd)) != NULL && response->type == CRIU_REQ_TYPE__NOTIFY) {
    result = answer_notification(opts, fd, response);
    criu_resp__free_unpacked(response, NULL);
    if (result != 0) {
      return result;
    }
  }
  if (response == NULL) {
    return -ECOMM;
  }
  if (response->type != request->type) {
    result = fail(response->type == CRIU_REQ_TYPE__EMPTY ? EINVAL : EBADMSG);
  } else if (!response->success) {
    errno = response->has_cr_errno ? response->cr_errno : 0;
    result = -EBADE;
  }
  if (result == 0 && answer != NULL) {
    *answer = response;
  } else {
    const int error = errno;
    criu_resp__free_unpacked(response, NULL);
    errno = error;
  }
  return result;
}

/* One request to a worker of its own. */
static int ask_once(const criu_opts* opts, CriuReqType type, bool with_options, CriuFeatures* features,
                    CriuResp** answer) {
  if (opts == NULL) {
    errno = EINVAL;
    return -1;
  }
  CriuReq request = CRIU_REQ__INIT;
  request.type = type;
  request.opts = with_options ? opts->rpc : NULL;
  request.features = features;
  struct worker worker;
  int result = find_worker(&worker, opts, type == CRIU_REQ_TYPE__DUMP && !opts->rpc->has_pid);
  if (result != 0) {
    return result;
  }
  result = ask(opts, worker.fd, &request, answer);
  leave_worker(&worker);
  return result;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

int criu_local_check(criu_opts* opts) { return ask_once(opts, CRIU_REQ_TYPE__CHECK, false, NULL, NULL); }
int criu_check(void) { return criu_local_check(criu_global); }

int criu_local_dump(criu_opts* opts) {
  CriuResp* answer = NULL;
  int result = ask_once(opts, CRIU_REQ_TYPE__DUMP, true, NULL, &answer);
  if (result == 0) {
    result = answer->dump != NULL && answer->dump->has_restored && answer->dump->restored ? 1 : 0;
    criu_resp__free_unpacked(answer, NULL);
  }
  return result;
}
int criu_dump(void) { return criu_local_dump(criu_global); }

int criu_local_pre_dump(criu_opts* opts) { return ask_once(opts, CRIU_REQ_TYPE__SINGLE_PRE_DUMP, true, NULL, NULL); }
int criu_pre_dump(void) { return criu_local_pre_dump(criu_global); }

int criu_local_dump_iters(criu_opts* opts, int (*more)(criu_predump_info info)) {
  if (opts == NULL || !opts->rpc->has_pid) {
    return fail(EINVAL);
  }
  struct worker worker;
  int result = find_worker(&worker, opts, false);
  if (result != 0) {
    return result;
  }
  CriuReq request = CRIU_REQ__INIT;
  request.opts = opts->rpc;
  request.type = CRIU_REQ_TYPE__PRE_DUMP;
  int again;
  do {
    result = ask(opts, worker.fd, &request, NULL);
    again = result == 0 ? more(NULL) : result;
  } while (again > 0);
  if (again == 0) {
    request.type = CRIU_REQ_TYPE__DUMP;
    result = ask(opts, worker.fd, &request, NULL);
  } else {
    result = again;
  }
  leave_worker(&worker);
  return result;
}
int criu_dump_iters(int (*more)(criu_predump_info info)) { return criu_local_dump_iters(criu_global, more); }

int criu_local_restore(criu_opts* opts) {
  CriuResp* answer = NULL;
  int result = ask_once(opts, CRIU_REQ_TYPE__RESTORE, true, NULL, &answer);
  if (result == 0) {
    result = answer->restore != NULL ? answer->restore->pid : fail(EBADMSG);
    criu_resp__free_unpacked(answer, NULL);
  }
  return result;
}
int criu_restore(void) { return criu_local_restore(criu_global); }

/* Only of a program that it has started itself can the caller get a child. */
int criu_local_restore_child(criu_opts* opts) {
  if (opts == NULL) {
    errno = EINVAL;
    return -1;
  }
  const criu_opts before = *opts;
  static char usual[] = "criu";
  if (opts->comm != CRIU_COMM_BIN) {
    opts->comm = CRIU_COMM_BIN;
    opts->binary = usual;
  }
  CriuOpts* rpc = opts->rpc;
  const bool had = rpc->has_rst_sibling, sibling = rpc->rst_sibling;
  rpc->has_rst_sibling = rpc->rst_sibling = true;
  const int result = criu_local_restore(opts);
  rpc->has_rst_sibling = had;
  rpc->rst_sibling = sibling;
  opts->comm = before.comm;
  opts->binary = before.binary;
  return result;
}
int criu_restore_child(void) { return criu_local_restore_child(criu_global); }

int criu_local_get_version(criu_opts* opts) {
  CriuResp* answer = NULL;
  const int result = ask_once(opts, CRIU_REQ_TYPE__VERSION, true, NULL, &answer);
  if (result != 0) {
    return result;
  }
  int version = -1;
  if (answer->version != NULL) {
    version = answer->version->major_number * 10000 + answer->version->minor_number * 100;
    if (answer->version->has_sublevel) {
      version += answer->version->sublevel;
    }
    if (answer->version->gitid != NULL) { /* a state between two: counted as the next */
      version -= version % 100;
      version += 100;
    }
  }
  criu_resp__free_unpacked(answer, NULL);
  return version;
}
int criu_get_version(void) { return criu_local_get_version(criu_global); }

int criu_local_check_version(criu_opts* opts, int minimum) {
  const int version = criu_local_get_version(opts);
  return version < 0 ? version : version >= minimum ? 1 : 0;
}
int criu_check_version(int minimum) { return criu_local_check_version(criu_global, minimum); }

int criu_local_feature_check(criu_opts* opts, struct criu_feature_check* features, size_t size) {
  struct criu_feature_check wanted = {false, false, false};
  if (features == NULL || size > sizeof wanted) {
    errno = EINVAL;
    return -1;
  }
  memcpy(&wanted, features, size);
  CriuFeatures asked = CRIU_FEATURES__INIT;
  asked.has_mem_track = asked.mem_track = wanted.mem_track;
  asked.has_lazy_pages = asked.lazy_pages = wanted.lazy_pages;
  asked.has_pidfd_store = asked.pidfd_store = wanted.pidfd_store;
  CriuResp* answer = NULL;
  const int result = ask_once(opts, CRIU_REQ_TYPE__FEATURE_CHECK, true, &asked, &answer);
  if (result != 0) {
    return result;
  }
  const CriuFeatures* found = answer->features;
  wanted.mem_track = found != NULL && found->has_mem_track && found->mem_track;
  wanted.lazy_pages = found != NULL && found->has_lazy_pages && found->lazy_pages;
  wanted.pidfd_store = found != NULL && found->has_pidfd_store && found->pidfd_store;
  memcpy(features, &wanted, size);
  criu_resp__free_unpacked(answer, NULL);
  return 0;
}
int criu_feature_check(struct criu_feature_check* features, size_t size) {
  return criu_local_feature_check(criu_global, features, size);
}
