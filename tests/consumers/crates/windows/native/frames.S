/* Hand-written, with the unwind information of each format. */
#if defined(__x86_64__)
    .text
    .globl bhv_assembly_mix
    .seh_proc bhv_assembly_mix
bhv_assembly_mix:
    .seh_endprologue
    leal (%rcx,%rdx,4), %eax
    addl constant(%rip), %eax
    ret
    .seh_endproc

    .globl bhv_frame_assembly
    .seh_proc bhv_frame_assembly
bhv_frame_assembly:
    pushq %rbp
    .seh_pushreg %rbp
    subq $32, %rsp
    .seh_stackalloc 32
    .seh_endprologue
    movq %rcx, %rax
    movl %edx, %ecx
    callq *%rax
    addl $1, %eax
    addq $32, %rsp
    popq %rbp
    ret
    .seh_endproc
    .section .rdata,"dr"
    .p2align 2
constant:
    .long 7
#elif defined(__aarch64__)
    .text
    .globl bhv_assembly_mix
    .p2align 2
bhv_assembly_mix:
    add w0, w0, w1, lsl #2
    adrp x8, constant
    ldr w8, [x8, :lo12:constant]
    add w0, w0, w8
    ret

    .globl bhv_frame_assembly
    .p2align 2
    .seh_proc bhv_frame_assembly
bhv_frame_assembly:
    stp x29, x30, [sp, #-16]!
    .seh_save_fplr_x 16
    mov x29, sp
    .seh_set_fp
    .seh_endprologue
    mov x8, x0
    mov w0, w1
    blr x8
    add w0, w0, #1
    .seh_startepilogue
    ldp x29, x30, [sp], #16
    .seh_save_fplr_x 16
    .seh_endepilogue
    ret
    .seh_endfunclet
    .seh_endproc
    .section .rdata,"dr"
    .p2align 2
constant:
    .long 7
#elif defined(__i386__)
    .text
    .globl _bhv_assembly_mix
_bhv_assembly_mix:
    movl 8(%esp), %eax
    shll $2, %eax
    addl 4(%esp), %eax
    addl constant, %eax
    ret

    .globl _bhv_frame_assembly
_bhv_frame_assembly:
#ifndef _MSC_VER
    .cfi_startproc
#endif
    pushl %ebp
#ifndef _MSC_VER
    .cfi_def_cfa_offset 8
    .cfi_offset %ebp, -8
#endif
    movl %esp, %ebp
#ifndef _MSC_VER
    .cfi_def_cfa_register %ebp
#endif
    subl $8, %esp
    movl 12(%ebp), %eax
    movl %eax, (%esp)
    call *8(%ebp)
    addl $1, %eax
    leave
#ifndef _MSC_VER
    .cfi_def_cfa %esp, 4
#endif
    ret
#ifndef _MSC_VER
    .cfi_endproc
#else
    .def @feat.00 /* no handlers of its own */
    .scl 3
    .type 0
    .endef
    .globl @feat.00
@feat.00 = 1
#endif
    .section .rdata,"dr"
    .p2align 2
constant:
    .long 7
#endif
