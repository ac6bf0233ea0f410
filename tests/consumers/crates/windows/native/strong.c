/* The other object of the C half. */
#include <stdint.h>

int32_t bhv_common_block[8]; /* the larger of the two common symbols decides the size */

void bhv_strong_touch(void) {
    bhv_common_block[7] = 1;
    bhv_common_block[0] += 1 + bhv_common_block[7];
}

#ifdef _MSC_VER /* GNU ld does not find a weak definition in an archive */
__attribute__((weak))
#endif
int32_t bhv_chosen(void) { return 2; }
