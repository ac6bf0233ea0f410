/* The program of ../three.c, and what unwinds functions of each of the libraries. */
#define main three_main
#include "../three.c"
#undef main

#ifdef _WIN64
struct function {
    unsigned begin;
};
__attribute__((dllimport)) struct function *
RtlLookupFunctionEntry(unsigned long long address, unsigned long long *base, void *history);

static void look_up(const char *name, void *function) {
    unsigned long long base = 0, address = (unsigned long long)function;
    struct function *entry = RtlLookupFunctionEntry(address, &base, 0);
    printf("%s unwinds: %d\n", name, entry && base + entry->begin == address);
}
#else
static void look_up(const char *name, void *function) {
    printf("%s unwinds: %d\n", name, function != 0);
}
#endif

int main(void) {
    int code = three_main();
    look_up("alpha", (void *)alpha_panic);
    look_up("alpha", (void *)alpha_std);
    look_up("beta", (void *)beta_panic);
    look_up("beta", (void *)beta_std);
#ifndef WITHOUT_GAMMA
    look_up("gamma", (void *)gamma_panic);
    look_up("gamma", (void *)gamma_std);
#endif
    return code;
}
