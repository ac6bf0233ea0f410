/* Uses all that crates/mixed exports. */
#include "mixed.h"

#include <stdio.h>

int main(void) {
  printf("constructed: %d\n", mix_constructed());
  printf("table: %d %d\n", mix_table[0], mix_table[3]);
  printf("common: %d\n", mix_c_common());
  printf("weak: %d\n", mix_c_weak());
  for (int day = 0; day < 7; day++) printf("day: %d\n", mix_c_day(day));
  printf("thread-local: %d", mix_c_thread_local());
  printf(" %d\n", mix_c_thread_local());
  printf("c++ exception: %d %d %d\n", mix_cxx_exception(23), mix_cxx_exception(1),
         mix_cxx_exception(0));
  printf("c++ shared: %d\n", mix_cxx_shared());
  printf("c++ virtual: %d %d\n", mix_cxx_virtual(0), mix_cxx_virtual(1));
  printf("assembly: %d\n", mix_assembly(3, 8));
  printf("through C: %d %d\n", mix_panic_through_c(0), mix_panic_through_c(8));
  printf("through a cleanup: %d %d\n", mix_panic_through_cleanup(0), mix_panic_through_cleanup(8));
  printf("through assembly: %d %d\n", mix_panic_through_assembly(0),
         mix_panic_through_assembly(8));
  printf("through DWARF: %d %d\n", mix_panic_through_dwarf(0), mix_panic_through_dwarf(8));
  return 0;
}
