/* SPDX-License-Identifier: GPL-2.0-only */
/* Saved connections without a network: what is accepted, what is refused, and the byte string. In TAP. */
#include <errno.h>
#include <netinet/in.h>
#include <soccr/soccr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int number, failed;

static void check(int ok, const char* what) {
  failed += !ok;
  printf("%sok %d - %s\n", ok ? "" : "not ", ++number, what);
}

static const struct soccr_fields good = {
    .size = sizeof(struct soccr_fields),
    .state = SOCCR_ESTABLISHED,
    .flags = SOCCR_HAS_WINDOW,
    .options = SOCCR_OPT_TIMESTAMPS | SOCCR_OPT_SACK | SOCCR_OPT_WSCALE,
    .local = {AF_INET, 80, 0, {192, 0, 2, 1}},
    .peer = {AF_INET, 40000, 0, {198, 51, 100, 7}},
    .inq_seq = 5, /* begins before the sequence numbers wrap */
    .inq_len = 10,
    .outq_seq = 0x80000003,
    .outq_len = 7,
    .unsq_len = 3,
    .snd_wscale = 7,
    .rcv_wscale = 14,
    .mss_clamp = 1460,
    .timestamp = 0x12345678,
    .snd_wl1 = 4,
    .snd_wnd = 65535,
    .max_window = 65536,
    .rcv_wnd = 100000,
    .rcv_wup = 0xfffffff0,
    .sndbuf = 87040,
    .rcvbuf = 131072,
    .buf_lock = 1,
};
static const char inq[] = "ten bytes!", outq[] = "seven b";

static int refuses(struct soccr_fields fields, const char* words) {
  struct soccr_saved* saved = (struct soccr_saved*)&number;
  struct soccr_error error = {""};
  static char zeros[64];
  int result = soccr_saved_new(&fields, zeros, zeros, &saved, &error);
  int ok = result == -EINVAL && saved == NULL && strstr(error.text, words) != NULL;
  if (!ok) {
    printf("# %d: \"%s\", wanted \"%s\"\n", result, error.text, words);
  }
  return ok;
}

#define REFUSES(change, words, what)  \
  do {                                \
    struct soccr_fields f = good;     \
    change;                           \
    check(refuses(f, (words)), what); \
  } while (0)

static void fields_are_checked(void) {
  REFUSES(f.state = SOCCR_TIME_WAIT, "state", "TIME_WAIT is nothing to restore");
  REFUSES(f.state = SOCCR_SYN_RECEIVED, "state", "SYN_RECEIVED neither");
  REFUSES(f.state = 0, "state", "no state");
  REFUSES(f.state = 0xffffffff, "state", "a state beyond all");
  REFUSES(f.flags |= 1u << 20, "flags", "an unknown flag");
  REFUSES(f.options = 1u << 20, "options", "an unknown option");
  REFUSES(f.local.family = AF_UNIX, "local address", "a family that TCP has not");
  REFUSES(f.peer.family = AF_INET6, "family", "two families");
  REFUSES(f.peer.bytes[9] = 1, "peer", "an IPv4 address of more than 4 bytes");
  REFUSES(f.peer.bytes[0] = 224, "multicast", "a multicast peer");
  REFUSES(memset(f.peer.bytes, 0, 16), "peer is missing", "no peer");
  REFUSES(memset(f.local.bytes, 0, 16), "local address is missing", "no local address");
  REFUSES(f.local.port = 0, "port", "no local port");
  REFUSES(f.peer.port = 0, "port", "no peer's port");
  REFUSES(f.peer.scope_id = 1, "scope", "IPv4 with a scope");
  REFUSES(f.inq_len = (1u << 30) + 1, "inq_len", "a queue of more than 1 GiB");
  REFUSES(f.outq_len = (1u << 30) + 1, "outq_len", "in both directions");
  REFUSES(f.unsq_len = f.outq_len + 1, "unsq_len", "more unsent than queued");
  REFUSES(f.snd_wscale = 15, "window scale", "a window scale above 14");
  REFUSES(f.rcv_wscale = 0x10007, "window scale", "one that would overflow into the other");
  REFUSES(f.mss_clamp = 0, "mss_clamp", "no segment size");
  REFUSES(f.mss_clamp = 47, "mss_clamp", "a segment size below the kernel's");
  REFUSES(f.mss_clamp = 65536, "mss_clamp", "one above all packets");
  REFUSES(f.max_window = f.snd_wnd - 1, "snd_wnd", "a window above the largest");
  REFUSES(f.max_window = f.snd_wnd = 0x80000000, "window", "a window of 2 GiB");
  REFUSES(f.rcv_wnd = 0x80000000, "window", "in both directions");
  REFUSES(f.rcv_wup = f.inq_seq + 1, "rcv_wup", "acknowledged more than was received");
  REFUSES(f.rcv_wup = f.inq_seq - 0x50000000, "rcv_wup", "acknowledged long ago");
  REFUSES(f.snd_wl1 = f.inq_seq + f.rcv_wnd + 1, "snd_wl1", "a window update from the future");
  REFUSES(f.sndbuf = 0x80000000, "buffer", "a negative buffer");
  REFUSES(f.buf_lock = 4, "buf_lock", "an unknown lock");
  REFUSES(f.backlog = 5, "backlog", "a backlog without a listener");
  REFUSES(f.state = SOCCR_FIN_WAIT_2, "outq_len", "unacknowledged data before an acknowledged FIN");
  REFUSES(f.state = SOCCR_CLOSED, "outq_len", "data to send when all is over");
  REFUSES(f.state = SOCCR_SYN_SENT, "queue", "data before the handshake");
  REFUSES(f.flags |= SOCCR_FIN_UNSENT, "FIN", "an unsent FIN before it was queued");
  REFUSES(f.state = SOCCR_LISTEN, "peer", "a listener with a peer");
}

static void sixes_are_checked(void) {
  struct soccr_fields f = good;
  f.inq_len = f.outq_len = f.unsq_len = 0;
  f.local = (struct soccr_address){AF_INET6, 80, 0, {0xfe, 0x80, [15] = 1}};
  f.peer = (struct soccr_address){AF_INET6, 80, 3, {0xfe, 0x80, [15] = 2}};
  check(refuses(f, "scope"), "link-local without a scope");
  f.local = (struct soccr_address){AF_INET6, 80, 0, {[10] = 0xff, 0xff, 10, 0, 0, 1}};
  check(refuses(f, "family"), "a mapped address on one side alone");
  f.peer = (struct soccr_address){AF_INET6, 80, 0, {[10] = 0xff, 0xff, 0, 0, 0, 0}};
  check(refuses(f, "0.0.0.0"), "the mapped address of nobody");
  f.peer = (struct soccr_address){AF_INET6, 80, 0, {0xff, 2, [15] = 1}};
  check(refuses(f, "multicast"), "multicast");
}

static void older_callers(void) {
  /* A caller with an older header has a shorter structure; what it does not know is 0. */
  struct soccr_fields f = good;
  struct soccr_saved* saved = NULL;
  f.size = offsetof(struct soccr_fields, sndbuf);
  check(soccr_saved_new(&f, inq, outq, &saved, NULL) == 0, "a shorter structure is taken");
  check(soccr_saved_fields(saved)->size == sizeof f && soccr_saved_fields(saved)->sndbuf == 0 &&
            soccr_saved_fields(saved)->rcv_wup == good.rcv_wup,
        "and filled up with zeros");
  soccr_saved_free(saved);
  soccr_saved_free(NULL);
}

static int decodes(const void* bytes, size_t size, const char* words) {
  /* In memory of just that size, for the sanitizers to watch. */
  void* copy = malloc(size ? size : 1);
  struct soccr_saved* saved = NULL;
  struct soccr_error error = {""};
  memcpy(copy, bytes, size);
  int result = soccr_decode(copy, size, &saved, &error);
  if (result != 0 && (saved != NULL || (words != NULL && strstr(error.text, words) == NULL))) {
    printf("# %d: \"%s\"\n", result, error.text);
    result = 1;
  }
  soccr_saved_free(saved);
  free(copy);
  return result;
}

static void bytes_are_as_documented(const unsigned char* bytes) {
  check(memcmp(bytes, "SOCCR\r\n\x1a\1\0\0\0", 12) == 0, "magic and version");
  check(bytes[12] == SOCCR_ESTABLISHED && bytes[16] == SOCCR_HAS_WINDOW && bytes[20] == 7, "state, flags, options");
  check(memcmp(bytes + 24, "\4\0\x50\0\0\0\0\0\xc0\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0", 24) == 0, "the local address");
  check(memcmp(bytes + 48, "\4\0\x40\x9c\0\0\0\0\xc6\x33\x64\7", 12) == 0, "the peer's");
  check(memcmp(bytes + 72, "\5\0\0\0\x0a\0\0\0\3\0\0\x80\7\0\0\0\3\0\0\0", 20) == 0, "the queues' numbers");
  check(memcmp(bytes + 104, "\x78\x56\x34\x12", 4) == 0, "the timestamp");
  check(memcmp(bytes + 148, "ten bytes!seven b", 17) == 0, "the queues");
}

static void bytes_are_checked(unsigned char* bytes, size_t size) {
  int short_ones = 0, flips = 0;
  for (size_t cut = 0; cut < size; ++cut) {
    short_ones += decodes(bytes, cut, NULL) == -EBADMSG;
  }
  check(short_ones == (int)size, "cut anywhere, it is refused");
  check(decodes(bytes, size - 1, "queues are not as long") == -EBADMSG, "also by one byte");
  bytes[size] = 0;
  check(decodes(bytes, size + 1, "queues are not as long") == -EBADMSG, "and so is a byte more");
  bytes[8] = 2;
  check(decodes(bytes, size, "version 2") == -EPROTONOSUPPORT, "a newer version is refused by name");
  bytes[8] = 1;
  bytes[0] ^= 1;
  check(decodes(bytes, size, "these bytes are none") == -EBADMSG, "something else is none");
  bytes[0] ^= 1;
  bytes[24] = 5;
  check(decodes(bytes, size, "neither IPv4 nor IPv6") == -EBADMSG, "IP version 5 is none");
  bytes[24] = 4;
  /* Any single bit: either refused, or a value that is another one in its bytes as well. */
  for (size_t bit = 0; bit < 148 * 8; ++bit) {
    struct soccr_saved* saved = NULL;
    bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    int result = soccr_decode(bytes, size, &saved, NULL);
    if (result == 0) {
      unsigned char* again = malloc(soccr_encoded_size(saved));
      soccr_encode(saved, again);
      flips += soccr_encoded_size(saved) == size && memcmp(again, bytes, size) == 0;
      free(again);
    } else {
      flips += saved == NULL && (result == -EBADMSG || result == -EPROTONOSUPPORT);
    }
    soccr_saved_free(saved);
    bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
  check(flips == 148 * 8, "every flipped bit is refused or kept");
}

int main(void) {
  struct soccr_saved *saved = NULL, *again = NULL;
  printf("1..64\n");
  check(soccr_saved_new(&good, inq, outq, &saved, NULL) == 0, "a good one is made");
  check(memcmp(soccr_saved_fields(saved), &good, sizeof good) == 0, "and has its fields");
  check(memcmp(soccr_saved_inq(saved), inq, 10) == 0 && memcmp(soccr_saved_outq(saved), outq, 7) == 0, "and queues");
  size_t size = soccr_encoded_size(saved);
  check(size == 148 + 17, "its byte string has the documented size");
  unsigned char* bytes = malloc(size + 1);
  soccr_encode(saved, bytes);
  check(soccr_decode(bytes, size, &again, NULL) == 0, "the byte string is read");
  check(memcmp(soccr_saved_fields(again), &good, sizeof good) == 0, "and has the same fields");
  check(memcmp(soccr_saved_inq(again), inq, 10) == 0 && memcmp(soccr_saved_outq(again), outq, 7) == 0, "and queues");
  bytes_are_as_documented(bytes);
  bytes_are_checked(bytes, size);
  fields_are_checked();
  sixes_are_checked();
  older_callers();
  soccr_saved_free(saved);
  soccr_saved_free(again);
  free(bytes);
  return failed != 0;
}
