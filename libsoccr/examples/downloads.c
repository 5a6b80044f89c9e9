/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A server whose connections can be moved while they are at work, and the tool that moves them.
 *
 *   downloads serve CONTROL ADDRESS PORT RATE serves one client at a time, RATE bytes a second at most; CONTROL is a
 *                                             UNIX socket that it makes
 *   downloads move FROM TO SCRIPT             moves the client of the server at FROM to the one at TO
 *
 * The servers run in network namespaces, or on hosts, that both have ADDRESS. How packets find their way is not their
 * affair: `move` calls SCRIPT with "silence" before, with "switch" when the connection is on neither side, and with
 * "speak" just before it goes on.
 *
 * A client sends 8 bytes, how much it wants (little-endian), and then any data; it gets as many bytes of a known
 * pattern at the same time, and when it has closed its side, 8 bytes with the sum of its data.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <soccr/soccr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { pattern_period = 65521 };

/* What the application knows of a client. It travels with the connection. */
struct client {
  uint64_t wanted, sent;   /* of the download */
  uint64_t received, sum;  /* of the upload, behind its 8 bytes */
  uint64_t head, sum_sent; /* bytes of the two 8-byte numbers that are through */
  uint64_t closed;         /* the client has closed its side */
};

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void write_all(int fd, const void* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = write(fd, (const char*)bytes + done, size - done);
    if (n < 0) {
      die("write");
    }
    done += (size_t)n;
  }
}

static int read_all(int fd, void* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = read(fd, (char*)bytes + done, size - done);
    if (n < 0) {
      die("read");
    }
    if (n == 0) {
      return 0;
    }
    done += (size_t)n;
  }
  return 1;
}

/* ---- the application ---- */

/* Options of its sockets are the application's own: it sets them on a connection that it takes over, too. */
static void prepare(int fd, unsigned rate) {
  if (setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate) != 0) {
    die("SO_MAX_PACING_RATE");
  }
}

/* Returns 0 when the client is served or gone. */
static int receive_some(int fd, struct client* c) {
  unsigned char bytes[65536];
  ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0) {
    return errno == EAGAIN;
  }
  if (n == 0) {
    c->closed = 1;
    return 1;
  }
  for (ssize_t i = 0; i < n; ++i) {
    if (c->head < 8) {
      c->wanted |= (uint64_t)bytes[i] << (8 * c->head++);
    } else {
      c->sum = c->sum * 31 + bytes[i];
      ++c->received;
    }
  }
  return 1;
}

static int send_some(int fd, struct client* c) {
  static unsigned char pattern[2 * pattern_period];
  if (pattern[1] == 0) {
    for (uint32_t i = 0; i < sizeof pattern; ++i) {
      pattern[i] = (unsigned char)(((i % pattern_period) * 2654435761u) >> 13);
    }
  }
  if (c->sent < c->wanted) {
    uint64_t left = c->wanted - c->sent;
    size_t size = left < pattern_period ? (size_t)left : pattern_period;
    ssize_t n = send(fd, pattern + c->sent % pattern_period, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      return errno == EAGAIN;
    }
    c->sent += (uint64_t)n;
    return 1;
  }
  unsigned char sum[8];
  for (int i = 0; i < 8; ++i) {
    sum[i] = (unsigned char)(c->sum >> (8 * i));
  }
  ssize_t n = send(fd, sum + c->sum_sent, 8 - c->sum_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0) {
    return errno == EAGAIN;
  }
  c->sum_sent += (uint64_t)n;
  return c->sum_sent < 8;
}

/* Has it something to say? */
static int talkative(const struct client* c) { return c->head == 8 && (c->sent < c->wanted || c->closed); }

/* ---- moving ---- */

struct parcel {
  struct client client;
  uint64_t size; /* of the saved connection behind this; 0: there is no client */
};

/* Answers "give": the client's connection leaves this process. */
static void give(int control, int* fd, const struct client* c) {
  struct parcel parcel = {*c, 0};
  struct soccr_socket* s = NULL;
  struct soccr_saved* saved = NULL;
  struct soccr_error error = {"no client"};
  void* bytes = NULL;

  if (*fd >= 0 && soccr_open(*fd, &s) == 0 && soccr_hold(s, &error) == 0 && soccr_save(s, 0, &saved, &error) == 0 &&
      (bytes = malloc(soccr_encoded_size(saved))) != NULL) {
    parcel.size = soccr_encoded_size(saved);
    soccr_encode(saved, bytes);
    soccr_saved_free(saved);
    soccr_detach(s); /* stays held, so that the close sends nothing */
    close(*fd);
    *fd = -1;
  } else {
    fprintf(stderr, "give: %s\n", error.text);
    soccr_close(s); /* the connection goes on here */
  }
  write_all(control, &parcel, sizeof parcel);
  write_all(control, bytes, parcel.size);
  free(bytes);
}

/* Answers "take": the connection is made here, and waits for one more byte before it speaks. */
static void take(int control, int* fd, struct client* c, unsigned rate) {
  struct parcel parcel;
  struct soccr_saved* saved = NULL;
  struct soccr_socket* s = NULL;
  struct soccr_error error = {"damaged"};
  char ok, go;

  if (!read_all(control, &parcel, sizeof parcel)) {
    return;
  }
  void* bytes = malloc(parcel.size);
  if (bytes == NULL || !read_all(control, bytes, parcel.size)) {
    die("take");
  }
  ok = soccr_decode(bytes, parcel.size, &saved, &error) == 0 && soccr_restore(-1, saved, 0, &s, &error) == 0;
  free(bytes);
  soccr_saved_free(saved);
  if (!ok) {
    fprintf(stderr, "take: %s\n", error.text);
  }
  write_all(control, &ok, 1);
  if (ok && read_all(control, &go, 1)) {
    *fd = dup(soccr_fd(s));
    prepare(*fd, rate);
    *c = parcel.client;
    if (soccr_resume(s, 0, &error) != 0) {
      fprintf(stderr, "resume: %s\n", error.text);
    }
    write_all(control, &ok, 1);
  }
  soccr_close(s); /* without "go": the connection is dropped, and the peer sees nothing of it */
}

static void obey(int listener, int* fd, struct client* c, unsigned rate) {
  char command[4];
  int control = accept(listener, NULL, NULL);
  if (control >= 0 && read_all(control, command, sizeof command)) {
    if (memcmp(command, "give", 4) == 0) {
      give(control, fd, c);
    }
    if (memcmp(command, "take", 4) == 0) {
      take(control, fd, c, rate);
    }
  }
  close(control);
}

static struct sockaddr_un control_address(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return address;
}

static int listen_tcp(const char* address, const char* port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port};
  int is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1, one = 1;
  if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) {
    die("address");
  }
  int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if ((is_v4 ? bind(fd, (struct sockaddr*)&v4, sizeof v4) : bind(fd, (struct sockaddr*)&v6, sizeof v6)) != 0) {
    die("bind");
  }
  if (listen(fd, 8) != 0) {
    die("listen");
  }
  return fd;
}

_Noreturn static void serve(const char* path, const char* address, const char* port, unsigned rate) {
  struct sockaddr_un at = control_address(path);
  int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), listener = listen_tcp(address, port), fd = -1;
  struct client c = {0};
  if (bind(control, (struct sockaddr*)&at, sizeof at) != 0 || listen(control, 4) != 0) {
    die(path);
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct pollfd polls[3] = {
        {.fd = control, .events = POLLIN}, {.fd = fd < 0 ? listener : -1, .events = POLLIN}, {.fd = fd}};
    polls[2].events = (short)((c.closed ? 0 : POLLIN) | (talkative(&c) ? POLLOUT : 0));
    if (poll(polls, 3, -1) < 0) {
      die("poll");
    }
    if (polls[1].revents != 0) {
      fd = accept(listener, NULL, NULL);
      prepare(fd, rate);
      c = (struct client){0};
    }
    int more = 1;
    if ((polls[2].revents & (POLLIN | POLLERR | POLLHUP)) != 0 && !c.closed) {
      more = receive_some(fd, &c);
    }
    if (more && (polls[2].revents & POLLOUT) != 0) {
      more = send_some(fd, &c);
    }
    if (!more || (c.closed && (polls[2].revents & POLLERR) != 0)) {
      close(fd);
      fd = -1;
    }
    if (polls[0].revents != 0) {
      obey(control, &fd, &c, rate);
    }
  }
}

static int command(const char* path, const char* word) {
  struct sockaddr_un at = control_address(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr*)&at, sizeof at) != 0) {
    die(path);
  }
  write_all(fd, word, 4);
  return fd;
}

static void call(const char* script, const char* word) {
  pid_t child = fork();
  int status = 0;
  if (child == 0) {
    execlp(script, script, word, (char*)NULL);
    _exit(127);
  }
  if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
    fprintf(stderr, "%s %s failed\n", script, word);
    exit(1);
  }
}

/* What is on the way, for who watches. */
static void tell(const void* bytes, size_t size) {
  struct soccr_saved* saved;
  if (soccr_decode(bytes, size, &saved, NULL) == 0) {
    const struct soccr_fields* fields = soccr_saved_fields(saved);
    printf("%u bytes not read, %u not acknowledged, %u of them never sent\n", (unsigned)fields->inq_len,
           (unsigned)fields->outq_len, (unsigned)fields->unsq_len);
    soccr_saved_free(saved);
  }
}

static int move(const char* from, const char* to, const char* script) {
  struct parcel parcel;
  char ok = 0;
  call(script, "silence");
  int giver = command(from, "give");
  if (!read_all(giver, &parcel, sizeof parcel) || parcel.size == 0) {
    call(script, "speak");
    return 1;
  }
  void* bytes = malloc(parcel.size);
  if (bytes == NULL || !read_all(giver, bytes, parcel.size)) {
    die("give");
  }
  tell(bytes, parcel.size);
  call(script, "switch");
  int taker = command(to, "take");
  write_all(taker, &parcel, sizeof parcel);
  write_all(taker, bytes, parcel.size);
  if (!read_all(taker, &ok, 1) || !ok) {
    return 1; /* a real balancer would now give it back to `from` */
  }
  call(script, "speak");
  write_all(taker, "g", 1);
  return read_all(taker, &ok, 1) ? 0 : 1;
}

int main(int argc, char** argv) {
  if (argc == 6 && strcmp(argv[1], "serve") == 0) {
    serve(argv[2], argv[3], argv[4], (unsigned)atoi(argv[5]));
  }
  if (argc == 5 && strcmp(argv[1], "move") == 0) {
    return move(argv[2], argv[3], argv[4]);
  }
  fprintf(stderr, "usage: %s serve CONTROL ADDRESS PORT RATE | move FROM TO SCRIPT\n", argv[0]);
  return 2;
}
