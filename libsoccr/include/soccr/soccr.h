/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libsoccr: a live TCP connection, held by its socket.
 *
 *   struct soccr_socket *s;
 *   int err = soccr_open(fd, &s);          // -ENOTSOCK, -EPROTONOSUPPORT, ...
 *   if (err == 0) {
 *     int state = soccr_state(s);          // 1 is established
 *     soccr_close(s);                      // the connection goes on
 *   }
 *
 * Functions that can fail return 0 or a positive result, or a negative errno. No function changes errno's meaning for
 * the caller, prints anything, or keeps state outside its handle; handles may be used by one thread at a time.
 */
#ifndef SOCCR_SOCCR_H
#define SOCCR_SOCCR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SOCCR_PUBLIC __attribute__((visibility("default")))
#else
#define SOCCR_PUBLIC
#endif

/* The version of this header. */
#define SOCCR_VERSION_MAJOR 1
#define SOCCR_VERSION_MINOR 0
#define SOCCR_VERSION_PATCH 0

/* The version of the library that is loaded, as major * 10000 + minor * 100 + patch. */
SOCCR_PUBLIC unsigned soccr_version(void);

/* The states of a connection, as the kernel numbers them (RFC 9293 names). */
enum soccr_state {
  SOCCR_ESTABLISHED = 1,
  SOCCR_SYN_SENT = 2,
  SOCCR_SYN_RECEIVED = 3,
  SOCCR_FIN_WAIT_1 = 4,
  SOCCR_FIN_WAIT_2 = 5,
  SOCCR_TIME_WAIT = 6,
  SOCCR_CLOSED = 7,
  SOCCR_CLOSE_WAIT = 8,
  SOCCR_LAST_ACK = 9,
  SOCCR_LISTEN = 10,
  SOCCR_CLOSING = 11
};

/* A TCP socket under the library's eyes. */
struct soccr_socket;

/*
 * Makes a handle for a TCP socket (IPv4 or IPv6, any state) and puts it in *handle.
 * The descriptor is duplicated (close-on-exec): the caller's may be closed at any time, and the connection lives at
 * least as long as the handle.
 * Returns 0; -EBADF or -ENOTSOCK when fd is no socket, -EPROTONOSUPPORT when it is another kind of socket,
 * -EMFILE or -ENOMEM when there is no room for the handle. *handle is NULL after an error.
 */
SOCCR_PUBLIC int soccr_open(int fd, struct soccr_socket** handle);

/* Asks the kernel for the connection's state: one of enum soccr_state, or a negative errno. */
SOCCR_PUBLIC int soccr_state(const struct soccr_socket* handle);

/* Gives the handle back. The connection is left as it is; NULL is allowed. */
SOCCR_PUBLIC void soccr_close(struct soccr_socket* handle);

#ifdef __cplusplus
}
#endif

#endif /* SOCCR_SOCCR_H */
