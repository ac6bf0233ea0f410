/* One function of many. */
#include "behaviour.h"

int main(void) { return bhv_panic_code(0); }
