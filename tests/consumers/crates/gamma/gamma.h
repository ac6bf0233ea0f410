#ifndef GAMMA_H
#define GAMMA_H

#include <stddef.h>
#include <stdint.h>

void gamma_start(void);
uint32_t gamma_panic(uint32_t code);
uint32_t gamma_hooked(void);
uint32_t gamma_bump(void);
uint32_t gamma_items(void);
void gamma_std(char *buffer, size_t size);

#endif
