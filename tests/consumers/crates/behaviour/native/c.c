/* Static, global, common, weak, indirect and thread-local: what C brings into an archive. */
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

/* Overridden by strong.c. */
__attribute__((weak, noinline)) int32_t bhv_chosen(void) { return 1; }

int32_t bhv_c_weak(void) { return bhv_chosen(); }

/* Nobody defines it: its address is null. */
extern int32_t bhv_nowhere(void) __attribute__((weak));

int32_t bhv_c_optional(void) { return bhv_nowhere ? bhv_nowhere() : -1; }

/* Same instructions, two addresses. */
__attribute__((noinline)) static int32_t twin_a(int32_t x) { return x * 3 + 1; }
__attribute__((noinline)) static int32_t twin_b(int32_t x) { return x * 3 + 1; }
typedef int32_t (*twin)(int32_t);
static volatile twin twins[2] = {twin_a, twin_b};

int32_t bhv_c_distinct(void) { return twins[0] != twins[1]; }

#ifdef WITHOUT_IFUNC
int32_t bhv_c_indirect(int32_t value) { return value + 1000; }
#else
/* Chosen by a resolver when the program starts. */
static int32_t indirect_now(int32_t x) { return x + 1000; }
static twin indirect_resolve(void) { return indirect_now; }
static int32_t indirect(int32_t x) __attribute__((ifunc("indirect_resolve")));

int32_t bhv_c_indirect(int32_t value) { return indirect(value); }
#endif

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
    case 5: return "day"; /* the tail of the others, where strings are merged */
    default: return "Sunday";
    }
}

/* A set gathered by the linker: __start_ and __stop_ of a section with a C name. */
#define IN_SET __attribute__((section("bhv_numbers"), used, retain))
static const int32_t first IN_SET = 1;
static const int32_t second IN_SET = 20;
static const int32_t third IN_SET = 300;
extern const int32_t __start_bhv_numbers[], __stop_bhv_numbers[];

int32_t bhv_set_c(void) {
    int32_t sum = 0;
    for (const int32_t *p = __start_bhv_numbers; p < __stop_bhv_numbers; p++) sum += *p;
    return sum;
}

__attribute__((constructor(150))) static void early(void) { bhv_constructor_note('C'); }
__attribute__((constructor)) static void late(void) { bhv_constructor_note('c'); }
__attribute__((destructor)) static void at_exit(void) { puts("at exit: c"); }

/* Unwound by a panic of the callee. */
__attribute__((noinline)) int32_t bhv_frame_c(int32_t (*callee)(int32_t), int32_t value) {
    volatile int32_t local = callee(value);
    return local + 1;
}
