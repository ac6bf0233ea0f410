/* Check digits by Luhn's rule, as on payment cards. */
#ifndef LUHN_H
#define LUHN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 1 where the check digit is right, 0 where it is wrong, -1 where the text is no number. */
int32_t luhn_valid(const char *digits);

/* How many calls this library has seen. */
uint32_t luhn_calls(void);

#ifdef __cplusplus
}
#endif

#endif
