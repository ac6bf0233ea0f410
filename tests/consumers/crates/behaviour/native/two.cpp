#include "shared.hpp"

namespace behaviour {

Registry *make_special() { return new Special; }

void fail(std::int32_t code) {
    if (code != 0) throw Failure(code);
}

// Calls the same instance of the template as one.cpp.
std::int32_t number_from_two() { return next_number() + (twice(1) > 0 ? 0 : 1); }

} // namespace behaviour
