/* Uses all that crates/apple exports. */
#include "apple.h"

#include <stdio.h>

int main(void) {
  char text[64];
  uint64_t size = apl_format(3, text, sizeof text - 1);
  text[size] = 0;
  printf("version: %#x\n", apl_version);
  printf("counter: %u\n", apl_counter);
  printf("constructed: %d\n", apl_constructed());
  printf("text: %s\n", text);
  printf("panic code: %d\n", apl_panic_code(4));
  printf("panic drops: %d\n", apl_panic_drops(3));
  printf("panic index: %d %d\n", apl_panic_index(2), apl_panic_index(9));
  printf("thread-local drops: %d\n", apl_thread_local_drops(5));
  printf("threads: %lld\n", apl_threads(3));
  printf("float: %f\n", apl_float(1.5));
  printf("sum: %llu\n", apl_unused(7));
  return 0;
}
