/* Static, global, common, weak and thread-local: what C brings into a Windows library. */
#include <stddef.h>
#include <stdint.h>

int puts(const char *text); /* so that no C library is needed to compile this */
void bhv_constructor_note(char letter);

int32_t bhv_common_block[4]; /* a common symbol, by -fcommon; strong.c has another of it */
void bhv_strong_touch(void);

int32_t bhv_c_common(void) {
    bhv_common_block[0] = 40;
    bhv_strong_touch();
    return bhv_common_block[0];
}

/* Defined in strong.c, weakly where the linker finds such a definition in an archive. */
int32_t bhv_chosen(void);

int32_t bhv_c_weak(void) { return bhv_chosen(); }

/* Nobody defines it: its address is null. */
extern int32_t bhv_nowhere(void) __attribute__((weak));

int32_t bhv_c_optional(void) { return bhv_nowhere ? bhv_nowhere() : -1; }

/* A weak name for something else (a weak external with a default). */
__attribute__((noinline)) int32_t bhv_real(void) { return 77; }
int32_t bhv_alias(void) __attribute__((weak, alias("bhv_real")));

int32_t bhv_c_alias(void) { return bhv_alias(); }

/* Same instructions, two addresses. */
__attribute__((noinline)) static int32_t twin_a(int32_t x) { return x * 3 + 1; }
__attribute__((noinline)) static int32_t twin_b(int32_t x) { return x * 3 + 1; }
typedef int32_t (*twin)(int32_t);
static volatile twin twins[2] = {twin_a, twin_b};

int32_t bhv_c_distinct(void) { return twins[0] != twins[1]; }

int32_t bhv_c_indirect(int32_t value) { return value + 1000; }

static __thread int32_t per_thread = 7;
__thread int32_t bhv_per_thread_zero;

int32_t bhv_c_thread_local(void) { return per_thread++ + bhv_per_thread_zero++; }

const char *bhv_c_day(int32_t day) {
    switch (day) {
    case 0: return "Monday";
    case 1: return "Tuesday";
    case 2: return "Wednesday";
    case 3: return "Thursday";
    case 4: return "Friday";
    case 5: return "day";
    default: return "Sunday";
    }
}

/* A set gathered by the linker, which puts the parts in the order of what follows the dollar. */
#define IN_SET(suffix) __attribute__((section(".bhvset$" suffix), used, aligned(4)))
static const int32_t set_end IN_SET("z") = -1;
static const int32_t set_begin IN_SET("a") = -1;
static const int32_t first IN_SET("m") = 1;
static const int32_t second IN_SET("m") = 20;
static const int32_t third IN_SET("q") = 300;

int32_t bhv_set_c(void) {
    int32_t sum = 0;
    const volatile int32_t *p = &set_begin;
    for (p++; p < (const volatile int32_t *)&set_end; p++) sum += *p;
    return sum;
}

/* Defined by Rust in the same library, so that the linker has to make the pointers itself: GNU ld
   does not. */
#ifdef _MSC_VER
#define IMPORTED __declspec(dllimport)
#else
#define IMPORTED
#endif
IMPORTED int32_t bhv_private(int32_t a);
IMPORTED extern const int32_t bhv_private_data;

int32_t bhv_c_imported(void) { return bhv_private(bhv_private_data); }

__attribute__((constructor(150))) static void early(void) { bhv_constructor_note('C'); }
__attribute__((constructor)) static void late(void) { bhv_constructor_note('c'); }
__attribute__((destructor)) static void at_exit(void) { puts("at exit: c"); }

/* Unwound by a panic of the callee. */
__attribute__((noinline)) int32_t bhv_frame_c(int32_t (*callee)(int32_t), int32_t value) {
    volatile int32_t local = callee(value);
    return local + 1;
}
