/* Static, global, common, weak and thread-local; no system headers, so that no SDK is needed. */
#include <stdint.h>

int32_t mix_table[4] = {3, 5, 7, 11};
static int32_t constructed;
int32_t mix_common_block[4]; /* a common symbol; weak.c has a larger one of the same name */
void mix_touch(void);
void mix_note_drop(void);

int32_t mix_c_common(void) {
  mix_common_block[0] = 40;
  mix_touch();
  return mix_common_block[0];
}

/* weak.c has another one. */
__attribute__((weak, noinline)) int32_t mix_chosen(void) { return 1; }
int32_t mix_c_weak(void) { return mix_chosen(); }

/* A jump table. */
int32_t mix_c_day(int32_t day) {
  switch (day) {
  case 0: return mix_table[0] * 3;
  case 1: return mix_table[1] + day;
  case 2: return mix_table[2] - 30;
  case 3: mix_table[3]++; return 4;
  case 4: return mix_common_block[0];
  case 5: return mix_chosen();
  default: return -1;
  }
}

static _Thread_local int32_t per_thread = 7;
_Thread_local int32_t mix_per_thread_zero;
int32_t mix_c_thread_local(void) { return per_thread++ * 10 + mix_per_thread_zero++; }

void mix_construct(int32_t by) { constructed += by; }
__attribute__((constructor)) static void early(void) { mix_construct(2); }
int32_t mix_constructed(void) { return constructed; }

/* Unwound by a panic of the callee. */
__attribute__((noinline)) int32_t mix_frame_c(int32_t (*callee)(int32_t), int32_t value) {
  volatile int32_t local = callee(value);
  return local + 1;
}

static void clean(int32_t *value) {
  if (*value == 9) mix_note_drop();
}

/* The same with a cleanup: the personality is the one of C. */
__attribute__((noinline)) int32_t mix_frame_cleanup(int32_t (*callee)(int32_t), int32_t value) {
  __attribute__((cleanup(clean))) int32_t guard = 9;
  return callee(value) + guard;
}
