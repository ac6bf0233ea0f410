/* Crashes below the library, and prints the addresses of the frames that led there. */
#include "behaviour.h"

#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static void report(int signal_number) {
    void *frames[64];
    (void)signal_number;
    int count = backtrace(frames, 64);
    for (int i = 0; i < count; i++) printf("%p\n", frames[i]);
    fflush(stdout);
    _Exit(3);
}

static int32_t crash(int32_t value, void *context) {
    volatile int32_t before = value; /* so that it is not the first instruction that fails */
    return before + *(volatile int32_t *)context;
}

int main(void) {
    int32_t values[2] = {1, 2};
    signal(SIGSEGV, report);
    return bhv_map(values, 2, crash, (void *)8);
}
