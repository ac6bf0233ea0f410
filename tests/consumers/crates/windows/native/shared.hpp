// What two translation units share: merged by the linker, by COMDATs of every selection.
#pragma once
#include <stdint.h>

namespace behaviour {

struct Registry {
    static inline int32_t entries = 0;
    virtual ~Registry() = default;
    virtual int32_t kind() const { return 1; }
};

struct Special : Registry {
    int32_t kind() const override { return 2; }
};

// A static local of an inline function: one for the program.
inline int32_t next_number() {
    static int32_t number = Registry::entries + 10;
    return number++;
}

struct Failure {
    virtual ~Failure() {}
    int32_t code;
    explicit Failure(int32_t code) : code(code) {}
    Failure(const Failure &other) : code(other.code) {}
};

struct Other {};

template <typename T> T twice(T value) {
    static T calls = 0;
    calls += 1;
    return value * 2 + calls;
}

Registry *make_special();
void fail(int32_t code);
int32_t number_from_two();

} // namespace behaviour
