/* Uses the library as any C program would. */
#include "demo.h"

#include <stdio.h>

int main(void) {
    const char *texts[] = {"the quick brown fox", "jumps over the lazy dog"};
    const char not_utf8[] = {(char)0xff, 0};

    demo_counter *counter = demo_new();
    for (int i = 0; i < 2; i++) {
        if (demo_add(counter, texts[i]) != 0) return 1;
    }
    printf("%zu different words, `the` %u times\n", demo_words(counter), demo_count(counter, "the"));
    printf("%zu words, counted by two threads\n", demo_total(texts, 2));
    printf("a panic was caught inside the library: %s\n",
           demo_add(counter, not_utf8) == -1 ? "yes" : "no");
    demo_free(counter);
    return 0;
}
