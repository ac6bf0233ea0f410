/* Hand-written: bhv_assembly_mix has neither .type nor .size. */
#if defined(__x86_64__)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    leal (%rdi,%rsi,4), %eax
    addl constant(%rip), %eax
    ret
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
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
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__aarch64__)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    add w0, w0, w1, lsl #2
    adrp x8, constant
    ldr w8, [x8, :lo12:constant]
    add w0, w0, w8
    ret
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset 29, -16
    .cfi_offset 30, -8
    mov x29, sp
    mov x8, x0
    mov w0, w1
    blr x8
    add w0, w0, #1
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    ret
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__i386__)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    calll 1f
    .cfi_adjust_cfa_offset 4
1:  popl %ecx
    .cfi_adjust_cfa_offset -4
    addl $_GLOBAL_OFFSET_TABLE_+(.-1b), %ecx
    movl 8(%esp), %eax
    shll $2, %eax
    addl 4(%esp), %eax
    addl constant@GOTOFF(%ecx), %eax
    retl
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    pushl %ebp
    .cfi_def_cfa_offset 8
    .cfi_offset %ebp, -8
    movl %esp, %ebp
    .cfi_def_cfa_register %ebp
    subl $4, %esp
    pushl 12(%ebp)
    calll *8(%ebp)
    addl $1, %eax
    leave
    .cfi_def_cfa %esp, 4
    retl
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__arm__)
    .syntax unified
    .arch armv7-a
    .text
    .thumb
    .globl bhv_assembly_mix
    .thumb_func
bhv_assembly_mix:
    .fnstart
    add r0, r0, r1, lsl #2
    movw r2, #:lower16:(constant-(1f+4))
    movt r2, #:upper16:(constant-(1f+4))
1:  add r2, pc
    ldr r2, [r2]
    add r0, r0, r2
    bx lr
    .cantunwind
    .fnend

    .section .text.bhv_frame_assembly,"ax",%progbits
    .arm
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,%function
bhv_frame_assembly:
    .fnstart
    push {r4, lr}
    .save {r4, lr}
    mov r4, r0
    mov r0, r1
    blx r4
    add r0, r0, #1
    pop {r4, pc}
    .fnend
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__riscv)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    slliw a1, a1, 2
    addw a0, a0, a1
    lla a2, constant
    lw a2, 0(a2)
    addw a0, a0, a2
    ret
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    addi sp, sp, -16
    .cfi_def_cfa_offset 16
    sd ra, 8(sp)
    .cfi_offset ra, -8
    mv a5, a0
    mv a0, a1
    jalr a5
    addiw a0, a0, 1
    ld ra, 8(sp)
    .cfi_restore ra
    addi sp, sp, 16
    .cfi_def_cfa_offset 0
    ret
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__powerpc64__)
    .abiversion 2
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
0:  addis 2, 12, .TOC.-0b@ha
    addi 2, 2, .TOC.-0b@l
    .localentry bhv_assembly_mix, .-bhv_assembly_mix
    slwi 4, 4, 2
    add 3, 3, 4
    addis 5, 2, constant@toc@ha
    lwa 5, constant@toc@l(5)
    add 3, 3, 5
    extsw 3, 3
    blr
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    mflr 0
    std 0, 16(1)
    stdu 1, -48(1)
    .cfi_def_cfa_offset 48
    .cfi_offset 65, 16
    std 2, 24(1)
    mr 12, 3
    mtctr 12
    mr 3, 4
    bctrl
    ld 2, 24(1)
    addi 3, 3, 1
    extsw 3, 3
    addi 1, 1, 48
    .cfi_def_cfa_offset 0
    ld 0, 16(1)
    mtlr 0
    .cfi_restore 65
    blr
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__s390x__)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    sll %r3, 2
    ar %r2, %r3
    larl %r1, constant
    a %r2, 0(%r1)
    lgfr %r2, %r2
    br %r14
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    stmg %r14, %r15, 112(%r15)
    .cfi_offset 14, -48
    .cfi_offset 15, -40
    aghi %r15, -160
    .cfi_def_cfa_offset 320
    lgr %r1, %r2
    lgr %r2, %r3
    basr %r14, %r1
    ahi %r2, 1
    lgfr %r2, %r2
    lmg %r14, %r15, 272(%r15)
    .cfi_restore 14
    .cfi_restore 15
    .cfi_def_cfa_offset 160
    br %r14
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#elif defined(__loongarch64)
    .text
    .globl bhv_assembly_mix
bhv_assembly_mix:
    .cfi_startproc
    slli.w $a1, $a1, 2
    add.w $a0, $a0, $a1
    la.pcrel $t0, constant
    ld.w $t0, $t0, 0
    add.w $a0, $a0, $t0
    jr $ra
    .cfi_endproc

    .section .text.bhv_frame_assembly,"ax",@progbits
    .globl bhv_frame_assembly
    .hidden bhv_frame_assembly
    .type bhv_frame_assembly,@function
bhv_frame_assembly:
    .cfi_startproc
    addi.d $sp, $sp, -16
    .cfi_def_cfa_offset 16
    st.d $ra, $sp, 8
    .cfi_offset 1, -8
    move $t0, $a0
    move $a0, $a1
    jirl $ra, $t0, 0
    addi.w $a0, $a0, 1
    ld.d $ra, $sp, 8
    addi.d $sp, $sp, 16
    .cfi_def_cfa_offset 0
    jr $ra
    .cfi_endproc
    .size bhv_frame_assembly, .-bhv_frame_assembly
#else
#error "no assembly for this architecture"
#endif

    .section .rodata
    .balign 4
constant:
    .long 7
    .section .note.GNU-stack,"",%progbits
