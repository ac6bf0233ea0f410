/* Roman numerals. */
#ifndef ROMAN_H
#define ROMAN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The value of a numeral in capitals, or -1 where the text is none. */
int32_t roman_value(const char *text);

/* How many calls this library has seen. */
uint32_t roman_calls(void);

#ifdef __cplusplus
}
#endif

#endif
