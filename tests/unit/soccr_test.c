/* SPDX-License-Identifier: GPL-2.0-only */
/* libsoccr's public header from C, and what it says of sockets of all sorts. In TAP. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <soccr/soccr.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int number, failed;

static void check(int ok, const char* what) {
  failed += !ok;
  printf("%sok %d - %s\n", ok ? "" : "not ", ++number, what);
}

/* The state of a socket through a handle of its own. */
static int state_of(int fd) {
  struct soccr_socket* s = NULL;
  int result = soccr_open(fd, &s);
  if (result == 0) {
    result = soccr_state(s);
  }
  soccr_close(s);
  return result;
}

static int error_of(int fd) {
  struct soccr_socket* s = (struct soccr_socket*)&number;
  int result = soccr_open(fd, &s);
  return s == NULL ? result : 1;
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  int client = socket(AF_INET, SOCK_STREAM, 0);
  int server, udp = socket(AF_INET, SOCK_DGRAM, 0), pair[2];
  struct soccr_socket* held = NULL;

  printf("1..10\n");
  check(soccr_version() == 10000, "the version is this one");
  check(state_of(client) == SOCCR_CLOSED, "a new socket is closed");
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 || listen(listener, 1) != 0) {
    return 1;
  }
  getsockname(listener, (struct sockaddr*)&address, &size);
  check(state_of(listener) == SOCCR_LISTEN, "a listening one listens");
  if (connect(client, (struct sockaddr*)&address, sizeof address) != 0) {
    return 1;
  }
  server = accept(listener, NULL, NULL);
  check(state_of(client) == SOCCR_ESTABLISHED && state_of(server) == SOCCR_ESTABLISHED, "both ends are established");
  check(soccr_open(server, &held) == 0, "a handle can be kept");
  close(server);
  check(soccr_state(held) == SOCCR_ESTABLISHED, "and keeps the connection when the caller's descriptor is closed");
  shutdown(client, SHUT_WR);
  check(soccr_state(held) == SOCCR_CLOSE_WAIT, "the peer's end is seen");
  soccr_close(held);
  check(error_of(udp) == -EPROTONOSUPPORT, "UDP is refused");
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  check(error_of(pair[0]) == -EPROTONOSUPPORT, "a UNIX socket is refused");
  check(error_of(-1) == -EBADF && error_of(open("/dev/null", O_RDONLY)) == -ENOTSOCK, "what is no socket is refused");
  return failed != 0;
}
