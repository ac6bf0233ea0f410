/* What LLVM's libc++abi needs of libc++ and is not called by the tests' programs. */
#include <stdlib.h>

void sized_delete(void *memory, unsigned long size) __asm__("__ZdlPvm");
void sized_delete(void *memory, unsigned long size) {
  (void)size;
  free(memory);
}
void plain_delete(void *memory) __asm__("__ZdlPv");
void plain_delete(void *memory) { free(memory); }
char *demangle(const char *name, char *to, unsigned long *size, int *status) __asm__("___cxa_demangle");
char *demangle(const char *name, char *to, unsigned long *size, int *status) {
  (void)name, (void)to, (void)size;
  *status = -1;
  return NULL;
}
