/* One function of many. */
#include "libimagequant.h"

int main(void) { return liq_attr_create() == 0; }
