/* The little of the C library that the test programs use, where there are no headers for MSVC. */
#ifndef SHIM_STDIO_H
#define SHIM_STDIO_H
#include <stdarg.h>
#include <stddef.h>
int printf(const char *format, ...);
int puts(const char *text);
#endif
