/* One function of many, of a member whose initialiser the original runs as well. */
#include "mixed.h"

int main(void) { return mix_cxx_exception(1) != 99; }
