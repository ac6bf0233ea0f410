// What two translation units share; linkers keep one of each.
#pragma once
#include <stdint.h>

extern "C" void mix_construct(int32_t by);

struct Failure {
  int32_t code;
};

struct Shape {
  virtual int32_t kind() const { return 1; }
  virtual int32_t twice() const { return 2 * kind(); }
};

struct Special : Shape {
  int32_t kind() const override { return 20; }
};

inline int32_t next_number() {
  static int32_t number = 10;
  return number++;
}

template <typename T> T counted(T value) {
  static T calls = 0;
  calls += 1;
  return value * 2 + calls;
}

const Shape &special();
void fail(int32_t code);
int32_t number_from_two();
