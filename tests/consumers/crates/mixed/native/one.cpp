#include "shared.hpp"

namespace {
struct Global {
  Global() { mix_construct(40); }
} global;

struct Guard {
  int32_t &count;
  ~Guard() { count += 100; }
};
} // namespace

extern "C" int32_t mix_cxx_exception(int32_t code) {
  int32_t released = 0;
  try {
    Guard guard{released};
    fail(code);
  } catch (const Failure &failure) {
    return released + failure.code;
  } catch (int32_t) {
    return released - 1;
  }
  return -2;
}

extern "C" int32_t mix_cxx_shared(void) {
  const int32_t here = next_number(), there = number_from_two();
  return here * 10000 + there * 100 + counted(3);
}

extern "C" int32_t mix_cxx_virtual(int32_t kind) {
  static const Shape plain;
  const Shape &chosen = kind ? special() : plain;
  return chosen.twice();
}
