/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * int hold_registers(volatile int *stop, struct held *out, long vectors)
 * Fills every register with a pattern of its own, spins until *stop is not zero, and stores what is in them then.
 * vectors: 0 xmm, 1 ymm, 2 zmm and mask registers. General: register i holds 0x0101010101010101 * (i + 1), except rdi
 * and rsp; vector i: bytes (i + 1).
 */
        .text
        .globl hold_registers
        .type hold_registers, @function
hold_registers:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        push %rsi
        push %rdx
        movq %rsi, %rax                 /* out->vectors begins at 128: take the patterns from there */
        cmpq $1, %rdx
        je 1f
        ja 2f
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqu (128 + 64 * \n)(%rax), %xmm\n
        .endr
        jmp 3f
1:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu (128 + 64 * \n)(%rax), %ymm\n
        .endr
        jmp 3f
2:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqu64 (128 + 64 * \n)(%rax), %zmm\n
        .endr
        movl $0x1234, %ebx
        kmovw %ebx, %k3
3:      movq $0x0101010101010101, %r15
        .macro pattern reg, n
        imulq $\n, %r15, \reg
        .endm
        pattern %rax, 1
        pattern %rbx, 2
        pattern %rcx, 3
        pattern %rdx, 4
        pattern %rsi, 5
        pattern %rbp, 7
        pattern %r8, 9
        pattern %r9, 10
        pattern %r10, 11
        pattern %r11, 12
        pattern %r12, 13
        pattern %r13, 14
        pattern %r14, 15
        pattern %r15, 16
4:      cmpl $0, (%rdi)
        je 4b
        xchgq %rdi, 8(%rsp)             /* rdi: out */
        movq %rax, 0(%rdi)
        movq %rbx, 8(%rdi)
        movq %rcx, 16(%rdi)
        movq %rdx, 24(%rdi)
        movq %rsi, 32(%rdi)
        movq %rbp, 40(%rdi)
        movq %r8, 48(%rdi)
        movq %r9, 56(%rdi)
        movq %r10, 64(%rdi)
        movq %r11, 72(%rdi)
        movq %r12, 80(%rdi)
        movq %r13, 88(%rdi)
        movq %r14, 96(%rdi)
        movq %r15, 104(%rdi)
        pop %rdx
        movq %rdi, %rax
        cmpq $1, %rdx
        je 1f
        ja 2f
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqu %xmm\n, (128 + 64 * \n)(%rax)
        .endr
        jmp 3f
1:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu %ymm\n, (128 + 64 * \n)(%rax)
        .endr
        vzeroupper
        jmp 3f
2:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqu64 %zmm\n, (128 + 64 * \n)(%rax)
        .endr
        kmovw %k3, %ebx
        movq %rbx, 112(%rax)
        vzeroupper
3:      pop %rsi
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        xorl %eax, %eax
        ret
        .size hold_registers, . - hold_registers
        .section .note.GNU-stack, "", @progbits
