/* One function of many. */
#include "alpha.h"

int main(void) { return alpha_panic(3) != 3; }
