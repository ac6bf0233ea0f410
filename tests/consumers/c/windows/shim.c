/* The part of Microsoft's C runtime that is linked into programs, as far as the tests need it:
   what comes before main, thread-local storage, stack probes. The rest is in ucrt and vcruntime. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef void(__cdecl *function)(void);
typedef int(__cdecl *initialiser)(void);

#ifndef DLL
int main(int argc, char **argv);
#endif

/* of ucrt */
int *__p___argc(void);
char ***__p___argv(void);
int _configure_narrow_argv(int mode);
int _initialize_narrow_environment(void);
int _crt_atexit(function);
void exit(int);
void free(void *);
void *__acrt_iob_func(unsigned);
int __stdio_common_vfprintf(uint64_t, void *, const char *, void *, va_list);


#define PART(name) __attribute__((section(name), used))
/* The linker puts the parts of a section in the order of what follows the dollar. */
PART(".CRT$XIA") static const initialiser xi_a[] = {0};
PART(".CRT$XIZ") static const initialiser xi_z[] = {0};
PART(".CRT$XCA") static const function xc_a[] = {0};
PART(".CRT$XCZ") static const function xc_z[] = {0};
PART(".CRT$XPA") static const function xp_a[] = {0};
PART(".CRT$XPZ") static const function xp_z[] = {0};
PART(".CRT$XTA") static const function xt_a[] = {0};
PART(".CRT$XTZ") static const function xt_z[] = {0};
PART(".CRT$XLA") const uintptr_t shim_xl_a = 0;
PART(".CRT$XLZ") const uintptr_t shim_xl_z = 0;

unsigned _tls_index;
PART(".tls") char shim_tls_start = 0;
PART(".tls$ZZZ") char shim_tls_end = 0;

/* IMAGE_TLS_DIRECTORY */
const struct {
    void *start, *end, *index;
    const void *callbacks;
    uint32_t zeros, characteristics;
} _tls_used = {&shim_tls_start, &shim_tls_end, &_tls_index, &shim_xl_a + 1, 0, 0};

int _fltused = 0x9875;

/* type_info's table of virtual functions: only its address is used, to name a type. */
__asm__(".globl \"??_7type_info@@6B@\"\n"
        ".section .rdata,\"dr\"\n"
        ".p2align 3\n"
        "\"??_7type_info@@6B@\": .quad 0\n"
        ".text\n");

#if defined(__x86_64__)
__asm__(".globl __chkstk\n"
        "__chkstk:\n"
        "  pushq %rcx\n"
        "  pushq %rax\n"
        "  leaq 24(%rsp), %rcx\n"
        "1: cmpq $0x1000, %rax\n"
        "  jb 2f\n"
        "  subq $0x1000, %rcx\n"
        "  orq $0, (%rcx)\n"
        "  subq $0x1000, %rax\n"
        "  jmp 1b\n"
        "2: subq %rax, %rcx\n"
        "  orq $0, (%rcx)\n"
        "  popq %rax\n"
        "  popq %rcx\n"
        "  ret\n");
#elif defined(__i386__)
/* moves the stack pointer as well */
__asm__(".globl __chkstk\n"
        "__chkstk:\n"
        "  pushl %ecx\n"
        "  leal 8(%esp), %ecx\n"
        "1: cmpl $0x1000, %eax\n"
        "  jb 2f\n"
        "  subl $0x1000, %ecx\n"
        "  orl $0, (%ecx)\n"
        "  subl $0x1000, %eax\n"
        "  jmp 1b\n"
        "2: subl %eax, %ecx\n"
        "  orl $0, (%ecx)\n"
        "  movl %esp, %eax\n"
        "  movl %ecx, %esp\n"
        "  movl (%eax), %ecx\n"
        "  movl 4(%eax), %eax\n"
        "  pushl %eax\n"
        "  ret\n");

/* where a thread's block of pointers to thread-local storage is, from its own block */
__asm__(".globl __tls_array\n__tls_array = 0x2c\n");

/* Division of 64-bit numbers; the names have no decoration. */
__asm__(".globl __aulldiv\n.set __aulldiv, _shim_quotient@16\n"
        ".globl __aullrem\n.set __aullrem, _shim_rest@16\n");

static uint64_t divide(uint64_t a, uint64_t b, uint64_t *rest) {
    uint64_t quotient = 0, left = 0;
    for (int bit = 63; bit >= 0; bit--) {
        left = left << 1 | (a >> bit & 1);
        if (left >= b) {
            left -= b;
            quotient |= 1ull << bit;
        }
    }
    *rest = left;
    return quotient;
}

__attribute__((used)) uint64_t __stdcall shim_quotient(uint64_t a, uint64_t b) {
    uint64_t rest;
    return divide(a, b, &rest);
}

__attribute__((used)) uint64_t __stdcall shim_rest(uint64_t a, uint64_t b) {
    uint64_t rest;
    divide(a, b, &rest);
    return rest;
}
#elif defined(__aarch64__)
/* x15: the size in units of 16 bytes */
__asm__(".globl __chkstk\n"
        ".p2align 2\n"
        "__chkstk:\n"
        "  lsl x16, x15, #4\n"
        "  mov x17, sp\n"
        "1: cmp x16, #0x1000\n"
        "  b.lo 2f\n"
        "  sub x17, x17, #0x1000\n"
        "  ldr xzr, [x17]\n"
        "  sub x16, x16, #0x1000\n"
        "  b 1b\n"
        "2: ret\n");
#endif

int atexit(function f) { return _crt_atexit(f); }

/* operator delete(void *, size_t) */
#ifdef _WIN64
__asm__(".globl \"??3@YAXPEAX_K@Z\"\n.set \"??3@YAXPEAX_K@Z\", shim_delete\n");
#else
__asm__(".globl \"??3@YAXPAXI@Z\"\n.set \"??3@YAXPAXI@Z\", _shim_delete\n");
#endif
__attribute__((used)) void shim_delete(void *block, size_t size) {
    (void)size;
    free(block);
}

int printf(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int count = __stdio_common_vfprintf(0, __acrt_iob_func(1), format, NULL, arguments);
    va_end(arguments);
    return count;
}

static void run(const function *from, const function *to) {
    for (const volatile function *f = from + 1; f < to; f++)
        if (*f) (*f)();
}

#ifdef DLL
int __stdcall DllMain(void *module, unsigned reason, void *reserved) {
    (void)module;
    (void)reserved;
    if (reason == 1) {
        for (const volatile initialiser *f = xi_a + 1; f < xi_z; f++)
            if (*f && (*f)()) return 0;
        run(xc_a, xc_z);
    }
    if (reason == 0) {
        run(xp_a, xp_z);
        run(xt_a, xt_z);
    }
    return 1;
}
#else
void mainCRTStartup(void) {
    _configure_narrow_argv(1);
    _initialize_narrow_environment();
    for (const volatile initialiser *f = xi_a + 1; f < xi_z; f++)
        if (*f && (*f)()) exit(255);
    run(xc_a, xc_z);
    int code = main(*__p___argc(), *__p___argv());
    run(xp_a, xp_z);
    run(xt_a, xt_z);
    exit(code);
}
#endif
