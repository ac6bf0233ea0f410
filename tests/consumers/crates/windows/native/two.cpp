#include "shared.hpp"

namespace behaviour {

// not allocated: what new needs of a runtime is not at stake
static Special special;

Registry *make_special() { return &special; }

void fail(int32_t code) {
    if (code != 0) throw Failure(code);
}

// Calls the same instance of the template as one.cpp.
int32_t number_from_two() { return next_number() + (twice(1) > 0 ? 0 : 1); }

} // namespace behaviour
