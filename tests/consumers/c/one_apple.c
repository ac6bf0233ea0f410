/* One function of many. */
#include "apple.h"

int main(void) { return apl_panic_code(3) != 3; }
