/* SPDX-License-Identifier: LGPL-2.1-only */
/* The linked restorer as bytes in the library. */
  .section .rodata
  .balign 16
  .globl criu_restorer_begin, criu_restorer_end
  .hidden criu_restorer_begin, criu_restorer_end
criu_restorer_begin:
  .incbin "restorer.bin"
criu_restorer_end:
  .section .note.GNU-stack,"",@progbits
