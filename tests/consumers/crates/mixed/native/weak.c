/* The other object of the half in C. */
#include <stdint.h>

int32_t mix_common_block[8]; /* the larger of the two decides the size */

void mix_touch(void) {
  mix_common_block[7] = 1;
  mix_common_block[0] += 1 + mix_common_block[7];
}

int32_t mix_chosen(void) { return 2; }
