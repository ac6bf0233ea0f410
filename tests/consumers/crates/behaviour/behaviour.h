/* Everything a static library of Rust, C, C++ and assembly can do that a bad prelink breaks. */
#ifndef BEHAVIOUR_H
#define BEHAVIOUR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t (*bhv_operation)(int32_t value, void *context);

/* Data that both sides read and write. */
extern int32_t bhv_counter;
extern const uint8_t bhv_version[4];

int32_t bhv_add(int32_t a, int32_t b);
int32_t bhv_bump(int32_t by);

/* Panics, caught inside; the payload comes back. */
int32_t bhv_panic_code(int32_t code);
int32_t bhv_panic_drops(int32_t depth);
int32_t bhv_panic_nested(void);
int32_t bhv_panic_index(size_t index);
/* A panic that crosses frames of C and of assembly on its way to the catch. */
int32_t bhv_panic_through_c(int32_t code);
int32_t bhv_panic_through_assembly(int32_t code);

/* Threads and their locals. */
int32_t bhv_threads(int32_t count);
int32_t bhv_thread_panic(int32_t code);
int32_t bhv_thread_local_drops(int32_t count);

/* What ran before main, in order: one letter for each constructor. */
size_t bhv_constructors(char *buffer, size_t size);
void bhv_constructor_note(char letter);

/* Sets that the linker gathers. */
int32_t bhv_set_rust(void);
int32_t bhv_set_c(void);

/* A backtrace as text. */
size_t bhv_backtrace(char *buffer, size_t size);

/* std's own state: the program's arguments, the allocator, formatting, a map. */
int32_t bhv_argument_count(void);
size_t bhv_words(const char *text, char *buffer, size_t size);

/* Function pointers both ways. */
int32_t bhv_map(int32_t *values, size_t count, bhv_operation operation, void *context);
bhv_operation bhv_operation_named(const char *name);

/* The halves that are not Rust. */
int32_t bhv_c_common(void);
int32_t bhv_c_weak(void);
int32_t bhv_c_optional(void);
int32_t bhv_c_distinct(void);
int32_t bhv_c_indirect(int32_t value);
int32_t bhv_c_thread_local(void);
const char *bhv_c_day(int32_t day);
int32_t bhv_assembly_mix(int32_t a, int32_t b);
int32_t bhv_cxx_exception(int32_t code);
int32_t bhv_cxx_cast(void);
int32_t bhv_cxx_inline(void);
int32_t bhv_cxx_global(void);

#ifdef __cplusplus
}
#endif

#endif
