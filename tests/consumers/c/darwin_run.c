/* Runs a program for Darwin on Linux of the same processor: maps the image, binds what it imports
 * to libc and to the stand-ins below, runs its initialisers and `main`.
 *
 *     darwin_run PROGRAM [ARGUMENT…]
 *
 * Only what Rust's std and LLVM's libunwind and libc++abi need; whatever else an image calls ends
 * the run with its name. Imports come from LC_DYLD_INFO_ONLY: link with -no_fixup_chains.
 * Sources: mach-o/loader.h; dyld (`MachOLoaded.cpp`, `threadLocalHelpers.s`).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char *image; /* where the Mach-O header is in memory */
static uint64_t segment_address[16];
static int segments;
static char *slide; /* what is added to an address of the file */

static _Noreturn void fail(const char *what, const char *name) {
  fprintf(stderr, "darwin_run: %s %s\n", what, name);
  fflush(stderr);
  _exit(70);
}

/* ---- thread-local variables: a descriptor is {thunk, key, offset} ---- */

static char *tlv_start;
static size_t tlv_filled, tlv_size;
static __thread char *tlv_block;

__attribute__((used)) static void *tlv_address(const uint64_t *descriptor) {
  if (!tlv_block) {
    tlv_block = aligned_alloc(64, (tlv_size + 63) & ~63ul);
    memset(tlv_block, 0, tlv_size);
    memcpy(tlv_block, tlv_start, tlv_filled);
  }
  return tlv_block + descriptor[2];
}

/* Keeps all registers but the one of the argument and the one of the result. */
void tlv_thunk(void);
#if defined(__x86_64__)
__asm__(".text\n.globl tlv_thunk\ntlv_thunk:\n"
        "push %rbp\nmov %rsp, %rbp\npush %rcx\npush %rdx\npush %rsi\npush %r8\npush %r9\n"
        "push %r10\npush %r11\nand $-16, %rsp\ncall tlv_address\nlea -56(%rbp), %rsp\n"
        "pop %r11\npop %r10\npop %r9\npop %r8\npop %rsi\npop %rdx\npop %rcx\npop %rbp\nret\n");
#else
__asm__(".text\n.globl tlv_thunk\ntlv_thunk:\n"
        "stp x29, x30, [sp, #-16]!\nmov x29, sp\n"
        "stp x1, x2, [sp, #-16]!\nstp x3, x4, [sp, #-16]!\nstp x5, x6, [sp, #-16]!\n"
        "stp x7, x8, [sp, #-16]!\nstp x9, x10, [sp, #-16]!\nstp x11, x12, [sp, #-16]!\n"
        "stp x13, x14, [sp, #-16]!\nstp q0, q1, [sp, #-32]!\nstp q2, q3, [sp, #-32]!\n"
        "stp q4, q5, [sp, #-32]!\nstp q6, q7, [sp, #-32]!\nstp q16, q17, [sp, #-32]!\n"
        "stp q18, q19, [sp, #-32]!\nstp q20, q21, [sp, #-32]!\nstp q22, q23, [sp, #-32]!\n"
        "stp q24, q25, [sp, #-32]!\nstp q26, q27, [sp, #-32]!\nstp q28, q29, [sp, #-32]!\n"
        "stp q30, q31, [sp, #-32]!\nbl tlv_address\n"
        "ldp q30, q31, [sp], #32\nldp q28, q29, [sp], #32\nldp q26, q27, [sp], #32\n"
        "ldp q24, q25, [sp], #32\nldp q22, q23, [sp], #32\nldp q20, q21, [sp], #32\n"
        "ldp q18, q19, [sp], #32\nldp q16, q17, [sp], #32\nldp q6, q7, [sp], #32\n"
        "ldp q4, q5, [sp], #32\nldp q2, q3, [sp], #32\nldp q0, q1, [sp], #32\n"
        "ldp x13, x14, [sp], #16\nldp x11, x12, [sp], #16\nldp x9, x10, [sp], #16\n"
        "ldp x7, x8, [sp], #16\nldp x5, x6, [sp], #16\nldp x3, x4, [sp], #16\n"
        "ldp x1, x2, [sp], #16\nldp x29, x30, [sp], #16\nret\n");
#endif

int __cxa_thread_atexit_impl(void (*run)(void *), void *argument, void *handle);
extern void *__dso_handle;
static void tlv_atexit(void (*run)(void *), void *argument) {
  __cxa_thread_atexit_impl(run, argument, &__dso_handle);
}

/* ---- stand-ins for what differs from Linux ---- */

/* Locks that Darwin's macros initialised begin with a signature; glibc's with zeros. */
static void *made(void *lock) {
  static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&one);
  uint32_t signature = *(uint32_t *)lock;
  if (signature == 0x32AAABA7 || signature == 0x2DA8B3B4 || signature == 0x3CB0B1BB)
    memset(lock, 0, 48);
  pthread_mutex_unlock(&one);
  return lock;
}
static int mutex_lock(void *lock) { return pthread_mutex_lock(made(lock)); }
static int mutex_trylock(void *lock) {
  int error = pthread_mutex_trylock(made(lock));
  return error;
}
static int mutex_unlock(void *lock) { return pthread_mutex_unlock(made(lock)); }
static int rwlock_rdlock(void *lock) { return pthread_rwlock_rdlock(made(lock)); }
static int rwlock_wrlock(void *lock) { return pthread_rwlock_wrlock(made(lock)); }
static int rwlock_unlock(void *lock) { return pthread_rwlock_unlock(made(lock)); }
static int cond_wait(void *cond, void *lock) { return pthread_cond_wait(made(cond), lock); }
static int cond_signal(void *cond) { return pthread_cond_signal(made(cond)); }
static int cond_broadcast(void *cond) { return pthread_cond_broadcast(made(cond)); }

static int key_create(unsigned long *key, void (*destroy)(void *)) {
  pthread_key_t made_key;
  int error = pthread_key_create(&made_key, destroy);
  *key = made_key;
  return error;
}
static int set_name(const char *name) { return pthread_setname_np(pthread_self(), name); }
static int thread_id(pthread_t thread, uint64_t *id) {
  (void)thread;
  *id = (uint64_t)gettid();
  return 0;
}

static void *semaphore_create(long value) {
  sem_t *made_one = malloc(sizeof *made_one);
  sem_init(made_one, 0, (unsigned)value);
  return made_one;
}
static long semaphore_wait(sem_t *one, uint64_t timeout) {
  if (timeout != ~0ull) fail("not supported:", "dispatch_semaphore_wait with a timeout");
  while (sem_wait(one)) {}
  return 0;
}
static long semaphore_signal(sem_t *one) { return sem_post(one); }
static void object_release(void *one) { free(one); }

static long system_value(int name) {
  switch (name) {
  case 29: return sysconf(_SC_PAGESIZE);
  case 58: return 4; /* processors */
  case 71: return 1024; /* size of a passwd buffer */
  default: fail("not supported:", "sysconf");
  }
}
static uint64_t ticks(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static int clock_now(int clock, struct timespec *now) {
  return clock_gettime(clock == 0 ? CLOCK_REALTIME : CLOCK_MONOTONIC, now);
}
static int random_bytes(void *to, size_t size) { return getentropy(to, size); }
static int error_text(int number, char *to, size_t size) {
  snprintf(to, size, "error %d", number);
  return 0;
}
static int no_directory(void) { errno = 2; return -1; }
static void *no_address(void) { return NULL; }
static int zero(void) { return 0; }

static char ***environment(void) { return &environ; }
static char **arguments;
static int argument_count;
static char ***get_arguments(void) { return &arguments; }
static int *get_argument_count(void) { return &argument_count; }

struct unwind_sections { void *header, *frames; uint64_t frames_size; void *compact; uint64_t compact_size; };
static struct unwind_sections unwinding;
static uint64_t text_size;
static int find_unwind_sections(char *address, struct unwind_sections *found) {
  if (address < image || address >= image + text_size) return 0;
  *found = unwinding;
  return 1;
}

/* Apple's arm64 puts what a variadic function takes on the stack, in slots of eight bytes. */
#if defined(__aarch64__)
static void variadic(va_list *to, void *stack) {
  struct { void *stack, *general, *vector; int general_left, vector_left; } made_one = {stack, 0, 0, 0, 0};
  _Static_assert(sizeof made_one == sizeof *to, "va_list is another");
  memcpy(to, &made_one, sizeof *to);
}
#define VARIADIC(name, slot) \
  int name##_thunk(void); \
  __asm__(".text\n.globl " #name "_thunk\n" #name "_thunk:\nmov x" #slot ", sp\nb " #name "_stack\n"); \
  __attribute__((used)) int name##_stack
VARIADIC(printf, 1)(const char *format, void *stack) {
  va_list rest;
  variadic(&rest, stack);
  return vprintf(format, rest);
}
VARIADIC(fprintf, 2)(FILE *to, const char *format, void *stack) {
  va_list rest;
  variadic(&rest, stack);
  return vfprintf(to, format, rest);
}
#else
#define printf_thunk printf
#define fprintf_thunk fprintf
#endif

static char stack_protector_guard[8] = "guarded";
static FILE *standard_error;

#define SAME(name) {"_" #name, (void *)name}
static const struct { const char *name; void *address; } KNOWN[] = {
  SAME(abort), SAME(calloc), SAME(free), SAME(malloc), SAME(realloc), SAME(posix_memalign),
  SAME(aligned_alloc), SAME(memchr), SAME(memcmp), SAME(memcpy), SAME(memmove), SAME(memset),
  SAME(bzero), {"___bzero", (void *)bzero}, SAME(strlen), SAME(strcmp), SAME(getenv), SAME(write),
  SAME(writev), SAME(fflush), SAME(fputc), SAME(fwrite), SAME(sched_yield), SAME(getpid),
  SAME(pthread_self), SAME(pthread_create), SAME(pthread_join), SAME(pthread_detach),
  SAME(pthread_attr_init), SAME(pthread_attr_destroy), SAME(pthread_attr_setstacksize),
  SAME(pthread_getspecific), SAME(pthread_setspecific), SAME(pthread_mutex_init),
  SAME(pthread_mutex_destroy), SAME(pthread_mutexattr_init), SAME(pthread_mutexattr_settype),
  SAME(pthread_mutexattr_destroy), SAME(pthread_key_delete), SAME(pthread_cond_init),
  SAME(pthread_cond_destroy), SAME(pthread_condattr_init), SAME(pthread_condattr_destroy),
  SAME(sin), SAME(fma), SAME(pow), SAME(powf), SAME(fmaf), SAME(exp), SAME(log), SAME(cbrt), SAME(fmod), SAME(exit),
  {"___error", (void *)__errno_location}, {"__tlv_bootstrap", (void *)tlv_thunk},
  {"__tlv_atexit", (void *)tlv_atexit}, {"__dyld_find_unwind_sections", (void *)find_unwind_sections},
  {"__dyld_register_func_for_remove_image", (void *)zero}, {"___cxa_atexit", (void *)zero},
  {"__NSGetEnviron", (void *)environment}, {"__NSGetArgv", (void *)get_arguments},
  {"__NSGetArgc", (void *)get_argument_count}, {"_pthread_mutex_lock", (void *)mutex_lock},
  {"_pthread_mutex_trylock", (void *)mutex_trylock}, {"_pthread_mutex_unlock", (void *)mutex_unlock},
  {"_pthread_rwlock_rdlock", (void *)rwlock_rdlock}, {"_pthread_rwlock_wrlock", (void *)rwlock_wrlock},
  {"_pthread_rwlock_unlock", (void *)rwlock_unlock}, {"_pthread_cond_wait", (void *)cond_wait},
  {"_pthread_cond_signal", (void *)cond_signal}, {"_pthread_cond_broadcast", (void *)cond_broadcast},
  {"_pthread_key_create", (void *)key_create}, {"_pthread_setname_np", (void *)set_name},
  {"_pthread_threadid_np", (void *)thread_id}, {"_dispatch_semaphore_create", (void *)semaphore_create},
  {"_dispatch_semaphore_wait", (void *)semaphore_wait}, {"_dispatch_release", (void *)object_release},
  {"_dispatch_semaphore_signal", (void *)semaphore_signal}, {"_sysconf", (void *)system_value},
  {"_mach_absolute_time", (void *)ticks}, {"_clock_gettime", (void *)clock_now},
  {"_CCRandomGenerateBytes", (void *)random_bytes}, {"_getentropy", (void *)random_bytes},
  {"_strerror_r", (void *)error_text}, {"_getcwd", (void *)no_address}, {"_dlsym", (void *)no_address},
  {"_dladdr", (void *)zero}, {"_open", (void *)no_directory}, {"___stack_chk_guard", stack_protector_guard},
  {"___stderrp", &standard_error}, {"_printf", (void *)printf_thunk}, {"_fprintf", (void *)fprintf_thunk},
  SAME(puts), SAME(putchar),
};

/* ---- imports ---- */

/* What is not known: code that says its name when it is called. */
static void *trap(const char *name) {
  static char *page, *next;
  if (!page || next + 32 > page + 65536)
    page = next = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char *code = next;
  next += 40;
#if defined(__x86_64__)
  /* mov rdi, what; mov rsi, name; mov rax, fail; jmp rax */
  const void *words[] = {"not known:", name, (void *)fail};
  static const unsigned char loads[3][2] = {{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xb8}};
  for (int i = 0; i < 3; i++) {
    memcpy(code + 10 * i, loads[i], 2);
    memcpy(code + 10 * i + 2, &words[i], 8);
  }
  memcpy(code + 30, "\xff\xe0", 2);
#else
  /* ldr x0, what; ldr x1, name; ldr x16, fail; br x16 */
  static const uint32_t text[] = {0x58000080, 0x580000a1, 0x580000d0, 0xd61f0200};
  memcpy(code, text, 16);
  const void *words[] = {"not known:", name, (void *)fail};
  memcpy(code + 16, words, 24);
#endif
  __builtin___clear_cache(code, code + 40);
  return code;
}

static void *find(const char *name) {
  char plain[256];
  snprintf(plain, sizeof plain, "%s", name);
  char *suffix = strchr(plain, '$');
  if (suffix) *suffix = 0;
  for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
    if (!strcmp(KNOWN[i].name, plain)) return KNOWN[i].address;
  return NULL;
}

static uint64_t uleb(const uint8_t **at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    uint8_t octet = *(*at)++;
    value |= (uint64_t)(octet & 0x7F) << shift;
    if (octet < 0x80) return value;
  }
}

static void rebase(const uint8_t *at, const uint8_t *end) {
  char *place = NULL;
  while (at < end) {
    uint8_t operation = *at & 0xF0, operand = *at & 0x0F;
    uint64_t count = 1, skip = 0;
    at++;
    switch (operation) {
    case 0x00: return;
    case 0x10: continue;
    case 0x20: place = slide + segment_address[operand] + uleb(&at); continue;
    case 0x30: place += uleb(&at); continue;
    case 0x40: place += 8 * operand; continue;
    case 0x50: count = operand; break;
    case 0x60: count = uleb(&at); break;
    case 0x70: skip = uleb(&at); break;
    case 0x80: count = uleb(&at); skip = uleb(&at); break;
    default: fail("unknown opcode", "of a rebase");
    }
    for (; count; count--, place += 8 + skip) *(uint64_t *)place += (uint64_t)slide;
  }
}

static void bind(const uint8_t *at, const uint8_t *end) {
  char *place = NULL;
  const char *name = "";
  int64_t addend = 0;
  int weak = 0;
  while (at < end) {
    uint8_t operation = *at & 0xF0, operand = *at & 0x0F;
    uint64_t count = 1, skip = 0;
    at++;
    switch (operation) {
    case 0x00: case 0x10: case 0x30: case 0x50: continue; /* end of one, library, type */
    case 0x20: uleb(&at); continue;
    case 0x40:
      weak = operand & 1;
      name = (const char *)at;
      at += strlen(name) + 1;
      continue;
    case 0x60: {
      uint64_t value = uleb(&at);
      addend = (int64_t)value;
      continue;
    }
    case 0x70: place = slide + segment_address[operand] + uleb(&at); continue;
    case 0x80: place += uleb(&at); continue;
    case 0x90: break;
    case 0xA0: skip = uleb(&at); break;
    case 0xB0: skip = 8 * operand; break;
    case 0xC0: count = uleb(&at); skip = uleb(&at); break;
    default: fail("unknown opcode", "of a binding");
    }
    char *found = find(name);
    if (!found && !weak) found = trap(name);
    for (; count; count--, place += 8 + skip) *(char **)place = found ? found + addend : NULL;
  }
}

/* ---- loading ---- */

struct section { char name[16], segment[16]; uint64_t address, size; uint32_t offset, align, reloff, nreloc, flags, reserved[3]; };

int main(int argc, char **argv) {
  if (argc < 2) fail("usage:", "darwin_run PROGRAM [ARGUMENT…]");
  standard_error = stderr;
  int file = open(argv[1], O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status)) fail("cannot read", argv[1]);
  const char *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  const uint32_t *header = (const uint32_t *)data;
  if (header[0] != 0xFEEDFACF) fail("no Mach-O file:", argv[1]);

  uint64_t low = ~0ull, high = 0, entry = 0;
  const char *at = data + 32;
  const uint32_t *information = NULL;
  for (uint32_t i = 0; i < header[4]; i++, at += ((const uint32_t *)at)[1]) {
    const uint32_t *command = (const uint32_t *)at;
    const uint64_t *fields = (const uint64_t *)(at + 24); /* address, size, offset, file size */
    if (command[0] == 0x19) {
      segment_address[segments++] = fields[0];
      if (!strcmp(at + 8, "__PAGEZERO")) continue;
      if (fields[0] < low) low = fields[0];
      if (fields[0] + fields[1] > high) high = fields[0] + fields[1];
    } else if (command[0] == 0x80000022) {
      information = command;
    } else if (command[0] == 0x80000028) {
      entry = *(const uint64_t *)(at + 8);
    } else if (command[0] == 0x80000034) {
      fail("chained fixups:", "link with -no_fixup_chains");
    }
  }
  image = mmap(NULL, high - low, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (image == MAP_FAILED) fail("no memory for", argv[1]);
  slide = image - low;

  char *constructors = NULL;
  uint32_t *offsets = NULL;
  uint64_t constructor_size = 0, offset_size = 0;
  struct section *first_thread = NULL, *last_thread = NULL, *filled = NULL;
  at = data + 32;
  for (uint32_t i = 0; i < header[4]; i++, at += ((const uint32_t *)at)[1]) {
    if (((const uint32_t *)at)[0] != 0x19) continue;
    const uint64_t *fields = (const uint64_t *)(at + 24);
    if (!strcmp(at + 8, "__PAGEZERO")) continue;
    memcpy(slide + fields[0], data + fields[2], fields[3]);
    if (!strcmp(at + 8, "__TEXT")) text_size = fields[1];
    struct section *section = (struct section *)(at + 72);
    for (uint32_t n = ((const uint32_t *)at)[16]; n; n--, section++) {
      char *here = slide + section->address;
      switch (section->flags & 0xFF) {
      case 0x09: constructors = here; constructor_size = section->size; break;
      case 0x16: offsets = (uint32_t *)here; offset_size = section->size; break;
      case 0x11: case 0x12:
        if (!first_thread) first_thread = section;
        if ((section->flags & 0xFF) == 0x11) filled = section;
        last_thread = section;
      }
      if (!strncmp(section->name, "__eh_frame", 16)) unwinding.frames = here, unwinding.frames_size = section->size;
      if (!strncmp(section->name, "__unwind_info", 16)) unwinding.compact = here, unwinding.compact_size = section->size;
    }
  }
  unwinding.header = image;
  if (first_thread) {
    tlv_start = slide + first_thread->address;
    tlv_size = last_thread->address + last_thread->size - first_thread->address;
    tlv_filled = filled ? filled->address + filled->size - first_thread->address : 0;
  }
  if (information) {
    const uint8_t *raw = (const uint8_t *)data;
    rebase(raw + information[2], raw + information[2] + information[3]);
    bind(raw + information[4], raw + information[4] + information[5]);
    bind(raw + information[8], raw + information[8] + information[9]);
  }
  __builtin___clear_cache(image, image + (high - low));
  arguments = argv + 1;
  argument_count = argc - 1;
  for (uint64_t n = 0; n < constructor_size; n += 8) (*(void (**)(int, char **, char **))(constructors + n))(argument_count, arguments, environ);
  for (uint64_t n = 0; n < offset_size / 4; n++) ((void (*)(int, char **, char **))(image + offsets[n]))(argument_count, arguments, environ);
  return ((int (*)(int, char **, char **))(image + entry))(argument_count, arguments, environ);
}
