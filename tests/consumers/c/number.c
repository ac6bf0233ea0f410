/* The smallest function of the library: none of the rest should come along. */
#include "libimagequant.h"

int main(void) { return liq_version() == 0; }
