/* Counts the words of a text. */
#ifndef DEMO_H
#define DEMO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct demo_counter demo_counter;

/* A counter with nothing in it; free it with demo_free. */
demo_counter *demo_new(void);

/* Adds the words of a text that ends in zero. 0, or -1 where it is no UTF-8. */
int32_t demo_add(demo_counter *counter, const char *text);

/* How often a word was added. */
uint32_t demo_count(const demo_counter *counter, const char *word);

/* How many different words there are. */
size_t demo_words(const demo_counter *counter);

/* Counts the words of several texts at once, on a thread for each. */
size_t demo_total(const char *const *texts, size_t length);

void demo_free(demo_counter *counter);

#ifdef __cplusplus
}
#endif

#endif
