/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libsoccr: takes a live TCP connection out of its socket, and puts it into another one, in another process or on
 * another host, while the peer notices nothing.
 *
 *   struct soccr_socket *s;
 *   struct soccr_saved *saved;
 *   soccr_open(fd, &s);                                  // where the connection is
 *   soccr_hold(s, NULL);                                 // it stands still and says nothing
 *   soccr_save(s, 0, &saved, NULL);
 *   soccr_detach(s), close(fd);                          // gone from here without a packet
 *
 *   soccr_restore(-1, saved, 0, &s, NULL);               // where it goes; soccr_encode and soccr_decode travel between
 *   soccr_resume(s, 0, NULL);                            // and it goes on
 *
 * Between the close and the restore no packet of the peer may reach the host's TCP, which would answer with a reset.
 * How that is done (a firewall rule, a load balancer's table, a bridge port) is the caller's choice. docs/libsoccr.md
 * has recipes, and all that is not said here.
 *
 * Functions that can fail return 0 or a positive result, or a negative errno, and say in *error (which may be NULL)
 * what was in the way. No function prints anything or keeps state outside its handles; one handle may be used by one
 * thread at a time, and any number of handles by any number of threads. Taking and putting back needs CAP_NET_ADMIN
 * in the user namespace that owns the socket's network namespace; closing states CAP_NET_RAW as well. Linux 5.15 on.
 */
#ifndef SOCCR_SOCCR_H
#define SOCCR_SOCCR_H

#include <stddef.h>
#include <stdint.h>

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

/* Why a call failed: one line, for people. Untouched when the call succeeds. */
struct soccr_error {
  char text[256];
};

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

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

/* A TCP socket under the library's eyes. */
struct soccr_socket;

/* Packets that the library makes itself, to lead a socket into a closing state, stay on the loopback device and have
 * this mark (SO_MARK). A firewall that silences the connection must let them pass. */
#define SOCCR_MARK 0xC114

/*
 * Makes a handle for a TCP socket (IPv4 or IPv6, any state) and puts it in *handle.
 * The descriptor is duplicated (close-on-exec): the caller's may be closed at any time, and the connection lives at
 * least as long as the handle.
 * Returns 0; -EBADF or -ENOTSOCK when fd is no socket, -EPROTONOSUPPORT when it is another kind of socket,
 * -EMFILE or -ENOMEM when there is no room for the handle. *handle is NULL after an error.
 */
SOCCR_PUBLIC int soccr_open(int fd, struct soccr_socket** handle);

/* Asks the kernel for the connection's state: one of enum soccr_state, or a negative errno. A restored socket that
 * waits for soccr_resume to call connect or listen says SOCCR_SYN_SENT or SOCCR_LISTEN already. */
SOCCR_PUBLIC int soccr_state(const struct soccr_socket* handle);

/* The handle's own descriptor, to duplicate or to pass on; it is closed with the handle. */
SOCCR_PUBLIC int soccr_fd(const struct soccr_socket* handle);

/*
 * Makes the connection stand still: it sends nothing, retransmissions, acknowledgements and keep-alive probes included,
 * reading and writing fail for everybody, and closing its last descriptor drops it without a packet. What the peer
 * sends is still taken in (and not acknowledged) unless the caller keeps it away.
 * A listening socket is left as it is. Returns 0, or -EPERM without CAP_NET_ADMIN. Holding twice is allowed.
 */
SOCCR_PUBLIC int soccr_hold(struct soccr_socket* handle, struct soccr_error* error);

/* soccr_resume: without the window probe that tells the peer where we are and brings back its window. */
#define SOCCR_QUIET 1u

/*
 * Lets a held or restored connection go on. For a restored SYN_SENT this sends the SYN, for a restored listener it is
 * the call of listen(). Also ends the hold of a socket that another process held or restored, and left with
 * soccr_detach; SO_REUSEADDR, which the kernel clears here, is put back only by the handle that knew it.
 * Returns 0 or a negative errno of the kernel; the connection is then as it was.
 */
SOCCR_PUBLIC int soccr_resume(struct soccr_socket* handle, unsigned flags, struct soccr_error* error);

/*
 * Gives the handle back; NULL is allowed. A connection that this handle holds goes on, one that it restored and that
 * has not been resumed is dropped without a packet (its other descriptors become an unconnected socket). All others are
 * left as they are.
 */
SOCCR_PUBLIC void soccr_close(struct soccr_socket* handle);

/* Gives the handle back and leaves the socket as it is: what was held stays held, so that closing its last descriptor
 * sends nothing, or another process may resume it. NULL is allowed. */
SOCCR_PUBLIC void soccr_detach(struct soccr_socket* handle);

/* ---- saved connections ------------------------------------------------------------------------------------------ */

/* A connection as a value: soccr_fields and the bytes of both queues. Never changes, so threads may share it. */
struct soccr_saved;

struct soccr_address {
  uint16_t family;   /* AF_INET or AF_INET6, as of the socket: IPv4-mapped addresses are AF_INET6 */
  uint16_t port;     /* in host order */
  uint32_t scope_id; /* the interface of a link-local IPv6 address, else 0 */
  uint8_t bytes[16]; /* in network order; the first 4 for AF_INET, the others 0 */
};

/* soccr_fields.options, as TCP_INFO has them. */
#define SOCCR_OPT_TIMESTAMPS 1u
#define SOCCR_OPT_SACK 2u
#define SOCCR_OPT_WSCALE 4u
#define SOCCR_OPT_ECN 8u              /* not restored: the kernel has no way */
#define SOCCR_OPT_ECN_SEEN 16u        /* for information */
#define SOCCR_OPT_SYN_DATA 32u        /* for information: the SYN carried data (fast open) */
#define SOCCR_OPT_USEC_TIMESTAMPS 64u /* timestamps tick in microseconds */
#define SOCCR_OPT_FASTOPEN_CHILD 128u /* for information */

/* soccr_fields.flags */
#define SOCCR_HAS_WINDOW 1u /* snd_wl1 to rcv_wup are known */
#define SOCCR_FIN_UNSENT \
  2u                    /* our FIN was never sent, though all before it may be; goes without saying if unsq_len > 0 */
#define SOCCR_V6ONLY 4u /* IPV6_V6ONLY of a listener */
#define SOCCR_FASTOPEN_CONNECT 8u    /* TCP_FASTOPEN_CONNECT; restored in SYN_SENT, without effect later */
#define SOCCR_FASTOPEN_NO_COOKIE 16u /* TCP_FASTOPEN_NO_COOKIE */

/* All there is to know of a connection but its bytes. Sequence numbers count as the kernel does in repair mode: a FIN
 * that is in a queue counts one, also when it is received or acknowledged. */
struct soccr_fields {
  uint32_t size;  /* sizeof(struct soccr_fields) of who filled it in */
  uint32_t state; /* ESTABLISHED, SYN_SENT, FIN_WAIT_1, FIN_WAIT_2, CLOSED, CLOSE_WAIT, LAST_ACK, CLOSING or LISTEN */
  uint32_t flags;
  uint32_t options;
  struct soccr_address local;
  struct soccr_address peer;   /* all 0 in LISTEN */
  uint32_t inq_seq, inq_len;   /* next to receive; bytes received and not read */
  uint32_t outq_seq, outq_len; /* next to queue; bytes not acknowledged, sent or not (a FIN is not counted) */
  uint32_t unsq_len;           /* the last of those, which were never sent */
  uint32_t snd_wscale, rcv_wscale;
  uint32_t mss_clamp;
  uint32_t timestamp; /* TCP_TIMESTAMP: the clock with its offset, at the moment of the save */
  uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup; /* TCP_REPAIR_WINDOW, windows in bytes */
  uint32_t sndbuf, rcvbuf; /* SO_SNDBUF, SO_RCVBUF as getsockopt has them; 0: as the new socket has them */
  uint32_t buf_lock;       /* SO_BUF_LOCK: which of the two the application set itself */
  uint32_t backlog;        /* LISTEN */
  uint32_t fastopen;       /* LISTEN: TCP_FASTOPEN, the length of its queue */
};

/* soccr_save: a listener with connections that nobody has accepted is saved without them (and they are lost when the
 * listener is closed); else it is refused. */
#define SOCCR_SKIP_PENDING 1u

/*
 * Copies a held connection, or a listening socket, into a new *saved. The socket is only looked at: any number of saves
 * and soccr_resume may follow.
 * Returns 0; -EINVAL when the connection is not held; -ENOTCONN when there is none; -EAGAIN when it changed meanwhile,
 * because packets of the peer still arrive; -EOPNOTSUPP for what cannot be taken along (urgent data, SYN_RECEIVED, data
 * in a SYN, kernel TLS and other upper layers, TCP-AO keys); -ECONNRESET when it died of an error; -EBUSY for a
 * listener with connections in its queue; -ENOMEM.
 */
SOCCR_PUBLIC int soccr_save(struct soccr_socket* handle, unsigned flags, struct soccr_saved** saved,
                            struct soccr_error* error);

/*
 * Makes a saved connection of its parts, for example from an image file; fields->inq_len bytes are copied from inq, and
 * fields->outq_len from outq. Members beyond fields->size are taken as 0.
 * Returns 0; -EINVAL when a field cannot be (nothing is believed: whatever this accepts may be restored); -ENOMEM.
 */
SOCCR_PUBLIC int soccr_saved_new(const struct soccr_fields* fields, const void* inq, const void* outq,
                                 struct soccr_saved** saved, struct soccr_error* error);

/* The parts of a saved connection; valid as long as it is. */
SOCCR_PUBLIC const struct soccr_fields* soccr_saved_fields(const struct soccr_saved* saved);
SOCCR_PUBLIC const void* soccr_saved_inq(const struct soccr_saved* saved);
SOCCR_PUBLIC const void* soccr_saved_outq(const struct soccr_saved* saved);

/* NULL is allowed. */
SOCCR_PUBLIC void soccr_saved_free(struct soccr_saved* saved);

/* The byte string of a saved connection: its size, and the bytes, written to buffer, which has room for that many. The
 * format is described in docs/libsoccr.md and is the same on every machine. */
SOCCR_PUBLIC size_t soccr_encoded_size(const struct soccr_saved* saved);
SOCCR_PUBLIC void soccr_encode(const struct soccr_saved* saved, void* buffer);

/* Reads a byte string, whoever wrote it.
 * Returns 0; -EBADMSG when it is damaged, forged or cut, -EPROTONOSUPPORT when a newer version wrote it; -ENOMEM. */
SOCCR_PUBLIC int soccr_decode(const void* bytes, size_t size, struct soccr_saved** saved, struct soccr_error* error);

/*
 * Puts a saved connection into a socket. fd is a fresh TCP socket of the saved family, and its options are the caller's
 * choice (IP_FREEBIND, IP_TRANSPARENT, SO_BINDTODEVICE …); it may be bound to the saved local address already. With
 * fd = -1 the library makes one in the network namespace of the calling thread. flags is 0.
 * The new handle holds the connection as soccr_hold does: nothing has been sent to anybody, and nothing will be before
 * soccr_resume. A restored SYN_SENT or listener lives in the handle until then, not in the socket.
 *
 * Returns 0; -EPERM; -EADDRNOTAVAIL when the local address is not on this machine (and not allowed by IP_FREEBIND),
 * -EADDRINUSE when this very connection exists here, -ENETUNREACH or -EHOSTUNREACH without a route to the peer,
 * -EINVAL when the socket does not suit, -ENOBUFS when the queues do not fit into the socket's buffers,
 * -ETIMEDOUT when the loopback device did not bring a packet of a closing state. After an error *handle is NULL, fd is
 * an unconnected socket (bound, maybe), and nothing was sent.
 */
SOCCR_PUBLIC int soccr_restore(int fd, const struct soccr_saved* saved, unsigned flags, struct soccr_socket** handle,
                               struct soccr_error* error);

#ifdef __cplusplus
}
#endif

#endif /* SOCCR_SOCCR_H */
