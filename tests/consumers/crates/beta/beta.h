#ifndef BETA_H
#define BETA_H

#include <stddef.h>
#include <stdint.h>

void beta_start(void);
uint32_t beta_panic(uint32_t code);
uint32_t beta_hooked(void);
uint32_t beta_bump(void);
uint32_t beta_items(void);
void beta_std(char *buffer, size_t size);

#endif
