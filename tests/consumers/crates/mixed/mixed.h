/* What crates/mixed exports. */
#include <stdint.h>

extern int32_t mix_table[4];
int32_t mix_c_common(void);
int32_t mix_c_weak(void);
int32_t mix_c_day(int32_t day);
int32_t mix_c_thread_local(void);
int32_t mix_constructed(void);
int32_t mix_cxx_exception(int32_t code);
int32_t mix_cxx_shared(void);
int32_t mix_cxx_virtual(int32_t kind);
int32_t mix_assembly(int32_t a, int32_t b);
int32_t mix_panic_through_c(int32_t code);
int32_t mix_panic_through_cleanup(int32_t code);
int32_t mix_panic_through_assembly(int32_t code);
int32_t mix_panic_through_dwarf(int32_t code);
