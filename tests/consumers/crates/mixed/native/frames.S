/* Written by hand, and without .subsections_via_symbols: lives and dies whole. */
    .text
    .globl _mix_assembly
    .globl _mix_frame_assembly
    .globl _mix_frame_dwarf
    .private_extern _mix_frame_assembly
    .p2align 4
#if defined(__x86_64__)
_mix_assembly:
    .cfi_startproc
    leal (%rdi,%rsi,4), %eax
    addl constant(%rip), %eax
    ret
    .cfi_endproc

_mix_frame_assembly:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    movq %rdi, %rax
    movl %esi, %edi
    callq *%rax
    addl $1, %eax
    popq %rbp
    ret
    .cfi_endproc

/* No compact encoding can say this: the frame hangs on another register. */
_mix_frame_dwarf:
    .cfi_startproc
    pushq %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
    movq %rsp, %rbx
    .cfi_def_cfa_register %rbx
    andq $-64, %rsp
    movq %rdi, %rax
    movl %esi, %edi
    callq *%rax
    addl $2, %eax
    movq %rbx, %rsp
    popq %rbx
    ret
    .cfi_endproc
#else
_mix_assembly:
    .cfi_startproc
    add w0, w0, w1, lsl #2
    adrp x8, constant@PAGE
    ldr w8, [x8, constant@PAGEOFF]
    add w0, w0, w8
    ret
    .cfi_endproc

_mix_frame_assembly:
    .cfi_startproc
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset 29, -16
    .cfi_offset 30, -8
    mov x29, sp
    .cfi_def_cfa 29, 16
    mov x8, x0
    mov w0, w1
    blr x8
    add w0, w0, #1
    ldp x29, x30, [sp], #16
    ret
    .cfi_endproc

_mix_frame_dwarf:
    .cfi_startproc
    stp x19, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset 19, -16
    .cfi_offset 30, -8
    mov x19, sp
    .cfi_def_cfa 19, 16
    sub sp, sp, #64
    mov x8, x0
    mov w0, w1
    blr x8
    add w0, w0, #2
    mov sp, x19
    ldp x19, x30, [sp], #16
    ret
    .cfi_endproc
#endif

    .section __TEXT,__const
    .p2align 2
constant:
    .long 7
