/* SPDX-License-Identifier: LGPL-2.1-only */
/* What `compel pack` makes of a freestanding program: its bytes and what is needed to place them anywhere. */
#ifndef COMPEL_BLOB_H
#define COMPEL_BLOB_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COMPEL_BLOB_ABI 2u

/* Flags of a blob. */
#define COMPEL_BLOB_VECTOR 1u /* its code may touch x87, SSE, AVX ... registers: they are saved around each run */

/* One 8-byte word of the image that holds an address: the word at `offset` becomes base + addend. */
struct compel_relocation {
  uint64_t offset; /* bytes from the start of the image */
  int64_t addend;  /* bytes from the start of the image */
};

struct compel_symbol {
  const char* name;
  uint64_t offset; /* bytes from the start of the image */
};

struct compel_blob {
  uint32_t abi;         /* COMPEL_BLOB_ABI */
  uint32_t flags;       /* COMPEL_BLOB_... */
  const uint8_t* image; /* code, read-only data and initialised data */
  uint64_t size;        /* bytes of `image` */
  uint64_t data_offset; /* page aligned; before it r-x, from it on rw- */
  uint64_t mem_size;    /* bytes in memory, with what starts as zeros; at least `size` */
  const struct compel_relocation* relocations;
  uint64_t relocation_count;
  const struct compel_symbol* symbols; /* exported (default visibility), sorted by name */
  uint64_t symbol_count;
};

#ifdef __cplusplus
}
#endif

#endif
