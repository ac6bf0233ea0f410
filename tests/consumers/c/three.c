/* Three libraries with the same dependencies, each with its own copy of them. */
#include "alpha.h"
#include "beta.h"
#ifndef WITHOUT_GAMMA
#include "gamma.h"
#endif

#include <stdio.h>

/* The set checks itself, and aborts where it met another of its name. */
#ifdef WITHOUT_ITEMS
#define ITEMS(name) (void)0
#else
#define ITEMS(name) printf(#name " items: %u\n", name##_items())
#endif

#define REPORT(name)                                                                     \
    do {                                                                                 \
        char file[400] = "";                                                             \
        printf(#name " hooked before: %u\n", name##_hooked());                           \
        printf(#name " panic: %u\n", name##_panic(20));                                  \
        printf(#name " panic: %u\n", name##_panic(30));                                  \
        printf(#name " hooked: %u\n", name##_hooked());                                  \
        printf(#name " bumps: %u\n", name##_bump());                                     \
        ITEMS(name);                                                                     \
        name##_std(file, sizeof file);                                                   \
        printf(#name " std: %s\n", file);                                                \
    } while (0)

int main(void) {
    alpha_start();
    beta_start();
    REPORT(alpha);
    REPORT(beta);
#ifndef WITHOUT_GAMMA
    gamma_start();
    REPORT(gamma);
#endif
    return 0;
}
