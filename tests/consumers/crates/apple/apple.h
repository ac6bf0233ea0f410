/* What crates/apple exports. */
#include <stdint.h>

extern const uint32_t apl_version;
extern uint32_t apl_counter;
int32_t apl_panic_code(int32_t code);
int32_t apl_panic_drops(int32_t depth);
int32_t apl_panic_index(uint64_t index);
int64_t apl_threads(int32_t count);
int32_t apl_thread_local_drops(int32_t value);
int32_t apl_constructed(void);
uint64_t apl_format(int32_t value, char *buffer, uint64_t size);
double apl_float(double value);
uint64_t apl_unused(uint64_t size);
