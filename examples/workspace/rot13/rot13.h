/* Each letter becomes the one thirteen places on. */
#ifndef ROT13_H
#define ROT13_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The text in rot13; free it with rot13_free. NULL where it is no UTF-8. */
char *rot13_text(const char *text);

void rot13_free(char *text);

/* How many calls this library has seen. */
uint32_t rot13_calls(void);

#ifdef __cplusplus
}
#endif

#endif
