/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Where a thread comes in, and how it leaves when its master is dead. rdi: its struct compel_slot, rsp: the end of a
 * stack that the master has set up. While the master lives it never returns from here: the master stops the thread in
 * its wait and sets its registers.
 *
 * The frames are balanced when it leaves, so a shadow stack is back where it was.
 */
#include <compel/runtime_abi.h>
        .text
        .globl compel_enter
        .type compel_enter, @function
compel_enter:
        cld
        movq %rdi, %rbx
        xorl %ebp, %ebp
        movq COMPEL_SLOT_XSAVE(%rbx), %rcx
        testq %rcx, %rcx
        jz 1f
        movl $-1, %eax
        movl $-1, %edx
        xsave64 (%rcx)
1:      call compel_rt_serve
        movq COMPEL_SLOT_XSAVE(%rbx), %rcx
        testq %rcx, %rcx
        jz 2f
        movl $-1, %eax
        movl $-1, %edx
        xrstor64 (%rcx)
2:      movq COMPEL_SLOT_STUB(%rbx), %rdx
        movq COMPEL_SLOT_UNMAP_BASE(%rbx), %rdi
        movq COMPEL_SLOT_UNMAP_SIZE(%rbx), %rsi
        movl $11, %eax                  /* munmap: also what this code lies in, so the stub makes the call */
        testq %rsi, %rsi
        jnz 3f
        addq $2, %rdx                   /* past the stub's system call */
3:      jmp *%rdx
        .size compel_enter, . - compel_enter
        .section .note.GNU-stack, "", @progbits
