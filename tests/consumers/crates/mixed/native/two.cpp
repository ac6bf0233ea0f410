#include "shared.hpp"

static const Special only;
const Shape &special() { return only; }

void fail(int32_t code) {
  if (code == 1) throw 1;
  if (code != 0) throw Failure{code};
}

// Calls the same instance of the template as one.cpp.
int32_t number_from_two() { return next_number() + (counted(1) > 0 ? 0 : 1); }
