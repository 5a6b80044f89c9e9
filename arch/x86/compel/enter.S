/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Where a thread comes in, and how it leaves when its master is dead. rdi: its struct compel_slot. While the master
 * lives it never returns from here: the master stops the thread in its wait and sets its registers.
 *
 * It comes with its own rsp, because its signals may not be blocked yet: the master sets these registers, blocks the
 * signals, and opens the slot. If it has died before that, the thread goes home.
 *
 * The frames are balanced when it leaves, so a shadow stack is back where it was.
 */
#include <compel/runtime_abi.h>
        .text
        .globl compel_enter
        .type compel_enter, @function
compel_enter:
        cmpl $0, COMPEL_SLOT_OPEN(%rdi)
        je 4f
        movq COMPEL_SLOT_STACK(%rdi), %rsp
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
4:      movq COMPEL_SLOT_STUB(%rdi), %rdx
        addq $2, %rdx
        jmp *%rdx
        .size compel_enter, . - compel_enter
        .section .note.GNU-stack, "", @progbits
