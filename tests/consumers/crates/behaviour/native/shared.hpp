// What two translation units share: merged by the linker, in groups.
#pragma once
#include <cstdint>
#include <stdexcept>

namespace behaviour {

struct Registry {
    static inline std::int32_t entries = 0;
    virtual ~Registry() = default;
    virtual std::int32_t kind() const { return 1; }
};

struct Special : Registry {
    std::int32_t kind() const override { return 2; }
};

// A static local of an inline function: one for the program, with a guard.
inline std::int32_t next_number() {
    static std::int32_t number = Registry::entries + 10;
    return number++;
}

class Failure : public std::runtime_error {
public:
    explicit Failure(std::int32_t code) : std::runtime_error("failure"), code(code) {}
    std::int32_t code;
};

template <typename T> T twice(T value) {
    static T calls = 0;
    calls += 1;
    return value * 2 + calls;
}

Registry *make_special();
void fail(std::int32_t code);
std::int32_t number_from_two();

} // namespace behaviour
