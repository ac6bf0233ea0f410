/* Uses everything in behaviour.h and prints one line for each thing; the test knows the lines. */
#include "behaviour.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor(170))) static void between(void) { bhv_constructor_note('M'); }
__attribute__((constructor)) static void plain(void) { bhv_constructor_note('m'); }

static int32_t add_context(int32_t value, void *context) { return value + *(int32_t *)context; }

static int letters(const void *a, const void *b) { return *(const char *)a - *(const char *)b; }

static void constructors(void) {
    char text[64];
    char early[64], late[64];
    size_t n_early = 0, n_late = 0, length = bhv_constructors(text, sizeof text);
    /* Those with a priority run in its order; the others in the order of the link. */
    for (size_t i = 0; i < length; i++) {
        if (strchr("1CM2", text[i])) early[n_early++] = text[i];
        else late[n_late++] = text[i];
    }
    qsort(late, n_late, 1, letters);
    printf("constructors with priority: %.*s\n", (int)n_early, early);
    printf("constructors: %.*s\n", (int)n_late, late);
    printf("priorities first: %d\n", length >= 4 && strspn(text, "1CM2") == 4);
}

static void backtrace(void) {
    size_t size = 1 << 16;
    char *text = malloc(size);
    size_t length = bhv_backtrace(text, size);
    int frames = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        frames += strstr(line, ": ") != NULL;
        if (strstr(line, ": bhv_backtrace")) puts("backtrace: bhv_backtrace");
        if (strstr(line, ": main")) puts("backtrace: main");
    }
    printf("backtrace: text %d, frames %d\n", length > 20, frames >= 3);
    free(text);
}

int main(int argc, char **argv) {
    (void)argv;
    printf("add: %d\n", bhv_add(40, 2));
    printf("version: %s\n", (const char *)bhv_version);
    bhv_counter = 10;
    printf("bump: %d\n", bhv_bump(7));
    printf("counter: %d\n", bhv_counter);

    printf("panic code: %d\n", bhv_panic_code(42));
    printf("panic drops: %d\n", bhv_panic_drops(9));
    printf("panic nested: %d\n", bhv_panic_nested());
    printf("panic index: %d %d\n", bhv_panic_index(2), bhv_panic_index(9));
    printf("panic through C: %d\n", bhv_panic_through_c(5));
    printf("panic through assembly: %d\n", bhv_panic_through_assembly(6));

    printf("threads: %d\n", bhv_threads(4));
    printf("thread panic: %d\n", bhv_thread_panic(11));
    printf("thread-local drops: %d\n", bhv_thread_local_drops(3));

    constructors();
    printf("set rust: %d\n", bhv_set_rust());
    printf("set c: %d\n", bhv_set_c());
    backtrace();

    printf("arguments: %d\n", bhv_argument_count() - argc);
    char words[100];
    bhv_words("the cat and the dog and the end", words, sizeof words);
    printf("words: %s\n", words);

    int32_t values[3] = {1, 2, 3}, ten = 10;
    printf("map: %d\n", bhv_map(values, 3, add_context, &ten));
    printf("map: %d\n", bhv_map(values, 3, bhv_operation_named("negate"), NULL));
    printf("operation: %d\n", bhv_operation_named("double")(21, NULL));
    printf("no operation: %d\n", bhv_operation_named("halve") == NULL);

    printf("c common: %d\n", bhv_c_common());
    printf("c weak: %d\n", bhv_c_weak());
    printf("c optional: %d\n", bhv_c_optional());
    printf("c distinct: %d\n", bhv_c_distinct());
    printf("c indirect: %d\n", bhv_c_indirect(1));
    printf("c thread-local: %d", bhv_c_thread_local());
    printf(" %d\n", bhv_c_thread_local());
    printf("c day: %s %s %s\n", bhv_c_day(0), bhv_c_day(5), bhv_c_day(9));
    printf("assembly: %d\n", bhv_assembly_mix(3, 5));
#ifndef WITHOUT_CXX
    printf("c++ exception: %d\n", bhv_cxx_exception(23));
    printf("c++ cast: %d\n", bhv_cxx_cast());
    printf("c++ inline: %d\n", bhv_cxx_inline());
    printf("c++ global: %d\n", bhv_cxx_global());
#endif
    return 0;
}
