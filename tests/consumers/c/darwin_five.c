/* Five libraries in one program; each catches a panic of its own. */
#include "alpha.h"
#include "apple.h"
#include "beta.h"
#include "gamma.h"
#include "mixed.h"

#include <stdio.h>

int main(void) {
  printf("alpha: %u\n", alpha_panic(20));
  printf("beta: %u\n", beta_panic(30));
  printf("gamma: %u\n", gamma_panic(40));
  printf("apple: %d\n", apl_panic_code(50));
  printf("mixed: %d\n", mix_panic_through_c(60));
  printf("C and C++: %d %d\n", mix_panic_through_cleanup(70), mix_cxx_exception(80));
  printf("own copies: %u %u %u\n", alpha_bump(), beta_bump(), gamma_bump());
  printf("own sets: %u %u %u\n", alpha_items(), beta_items(), gamma_items());
  return 0;
}
