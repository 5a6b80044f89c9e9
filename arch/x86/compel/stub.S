/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The stub: one system call, then the way home.
 *
 * It is copied into bytes of the task which nobody runs. A thread which is made to run something foreign gets its
 * return address into this code. As long as its tracer lives, the tracer catches the thread before it comes to the
 * way home and sets its registers itself. When the tracer is gone, nobody catches it, and the thread walks home
 * alone: it puts back its signal mask and its registers, and goes on where it was.
 *
 * Three things are peculiar. The stub lies in memory that is not writable for the task, so rsp may point into it (to
 * pop the flags) only while all signals are blocked: a signal frame cannot be pushed there. From the moment the
 * signal mask is back, rsp is the thread's own and a handler may run between any two instructions. And behind the
 * flags no instruction may be used that changes them; the system call keeps them.
 */
        .section .rodata
        .balign 16
        .globl compel_stub_begin, compel_stub_data, compel_stub_end
        .hidden compel_stub_begin, compel_stub_data, compel_stub_end
compel_stub_begin:
        syscall
        movl $14, %eax                  /* rt_sigprocmask(SIG_SETMASK, all, 0, 8) */
        movl $2, %edi
        leaq .Lall(%rip), %rsi
        movl $0, %edx
        movl $8, %r10d
        syscall
        leaq .Lflags(%rip), %rsp
        popfq
        movq .Lrsp(%rip), %rsp
        movl $14, %eax                  /* rt_sigprocmask(SIG_SETMASK, the thread's own, 0, 8) */
        movl $2, %edi
        leaq .Lmask(%rip), %rsi
        movl $0, %edx
        movl $8, %r10d
        syscall
        movq .Lregisters+0(%rip), %r15
        movq .Lregisters+8(%rip), %r14
        movq .Lregisters+16(%rip), %r13
        movq .Lregisters+24(%rip), %r12
        movq .Lregisters+32(%rip), %rbp
        movq .Lregisters+40(%rip), %rbx
        movq .Lregisters+48(%rip), %r11
        movq .Lregisters+56(%rip), %r10
        movq .Lregisters+64(%rip), %r9
        movq .Lregisters+72(%rip), %r8
        movq .Lregisters+80(%rip), %rax
        movq .Lregisters+88(%rip), %rcx
        movq .Lregisters+96(%rip), %rdx
        movq .Lregisters+104(%rip), %rsi
        movq .Lregisters+112(%rip), %rdi
        jmp *.Lrip(%rip)
        .balign 8, 0xcc
compel_stub_data:
.Lall:  .quad -1
.Lflags: .quad 0
.Lrsp:  .quad 0
.Lrip:  .quad 0
.Lmask: .quad 0
.Lregisters:
        .fill 15, 8, 0
        .fill 3, 8, 0                   /* owner, owner_start, unmap_base: not for the stub itself */
compel_stub_end:
        .section .note.GNU-stack, "", @progbits
