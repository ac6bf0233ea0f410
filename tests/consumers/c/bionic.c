/* The one function of Android's C library that the tests' library needs and glibc does not have. */
#include <errno.h>

int *__errno(void) { return &errno; }
