/* SPDX-License-Identifier: LGPL-2.1-only */
/* What libcompel and the runtime inside a task agree on. Changing any of it means a new COMPEL_BLOB_ABI. */
#ifndef COMPEL_RUNTIME_ABI_H
#define COMPEL_RUNTIME_ABI_H

#ifndef __ASSEMBLER__
#include <stdint.h>
#endif

/* Offsets in struct compel_slot, for assembly. */
#define COMPEL_SLOT_STUB 40
#define COMPEL_SLOT_UNMAP_BASE 48
#define COMPEL_SLOT_UNMAP_SIZE 56
#define COMPEL_SLOT_XSAVE 64
#define COMPEL_SLOT_STACK 72
#define COMPEL_SLOT_OPEN 80

/* Commands of the runtime itself: small numbers where an entry's address would be. */
#define COMPEL_BUILTIN_CHANNEL 1u /* argument: a flag; opens (1) or closes (0) the descriptor channel */
#define COMPEL_BUILTIN_RECEIVE 2u /* takes one descriptor out of the channel; the result is its number */
#define COMPEL_BUILTIN_LAST 2u

#define COMPEL_LOG_SIZE 32768u

#ifndef __ASSEMBLER__

/* One for the task. Lies in the memory that both sides see. */
struct compel_control {
  /* A robust mutex of the master's libc. The master's thread holds it while somebody is inside; when that thread dies,
   * the kernel clears the thread id out of its lock word, and wakes who waits there. */
  uint8_t mutex[64];
  uint32_t life_offset;    /* of that lock word, from the start of this struct */
  uint32_t threads_inside; /* others than the leader: then the leader must not unmap what they stand on */
  int32_t channel[2];      /* the descriptor channel: the task's end, the master's end; -1 when closed */
  uint32_t log_head;       /* bytes ever written to the ring */
  uint32_t log_reserved;
  uint64_t data; /* address of the shared area in the task */
  uint64_t data_size;
  uint8_t log[COMPEL_LOG_SIZE];
};

/*
 * One for each thread that is inside. The master writes entry and argument, then adds one to `posted`; the runtime
 * writes result, then sets `answered` to that number and wakes the master there.
 */
struct compel_slot {
  uint32_t posted;
  uint32_t answered;
  uint64_t entry;
  uint64_t argument;
  int64_t result;
  uint64_t control;
  uint64_t stub;       /* the way home */
  uint64_t unmap_base; /* what is to be unmapped on the way home; size 0: nothing */
  uint64_t unmap_size;
  uint64_t xsave; /* where to keep vector state; 0: the blob leaves it alone */
  uint64_t stack; /* the end of the stack to run on */
  uint32_t open;  /* not 0 when signals are blocked; a thread that finds it 0 goes home */
  uint32_t reserved[11];
};

#endif /* __ASSEMBLER__ */

#endif
