#ifndef SHIM_STRING_H
#define SHIM_STRING_H
#include <stddef.h>
char *strchr(const char *text, int letter);
char *strstr(const char *text, const char *part);
char *strtok(char *text, const char *ends);
size_t strspn(const char *text, const char *letters);
int memcmp(const void *a, const void *b, size_t size);
void *memcpy(void *to, const void *from, size_t size);
#endif
