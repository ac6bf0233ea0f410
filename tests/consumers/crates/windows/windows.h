/* What crates/windows exports besides behaviour.h. */
#ifndef WINDOWS_BEHAVIOUR_H
#define WINDOWS_BEHAVIOUR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How often this library's TLS callback ran for a thread that begins. */
int32_t bhv_thread_starts(void);
/* Decorated names on i686: _bhv_std@8 and @bhv_fast@8. */
int32_t __stdcall bhv_std(int32_t a, int32_t b);
int32_t __fastcall bhv_fast(int32_t a, int32_t b);
/* A function and a variable of the library that C in it takes for imported from a DLL. */
int32_t bhv_c_imported(void);
/* A function that only C calls, through a weak name for another. */
int32_t bhv_c_alias(void);

#ifdef __cplusplus
}
#endif

#endif
