#ifndef ALPHA_H
#define ALPHA_H

#include <stddef.h>
#include <stdint.h>

void alpha_start(void);
uint32_t alpha_panic(uint32_t code);
uint32_t alpha_hooked(void);
uint32_t alpha_bump(void);
uint32_t alpha_items(void);
void alpha_std(char *buffer, size_t size);

#endif
