/* Uses all that crates/apple exports; without system headers. */
typedef signed int int32_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef signed long long int64_t;

extern const uint32_t apl_version;
extern uint32_t apl_counter;
int32_t apl_panic_code(int32_t);
int32_t apl_panic_drops(int32_t);
int32_t apl_panic_index(uint64_t);
int64_t apl_threads(int32_t);
int32_t apl_thread_local_drops(int32_t);
int32_t apl_constructed(void);
uint64_t apl_format(int32_t, char *, uint64_t);
double apl_float(double);
uint64_t apl_unused(uint64_t);
int printf(const char *, ...);

int main(void) {
  char text[64];
  uint64_t size = apl_format(3, text, sizeof text - 1);
  text[size] = 0;
  printf("%u %u %d %s\n", apl_version, apl_counter, apl_constructed(), text);
  printf("%d %d %d %d\n", apl_panic_code(4), apl_panic_drops(3), apl_panic_index(9),
         apl_thread_local_drops(5));
  printf("%lld %f %llu\n", apl_threads(3), apl_float(1.5), apl_unused(7));
  return 0;
}
