#include "shared.hpp"

extern "C" void bhv_constructor_note(char letter);
extern "C" int puts(const char *text);

namespace {
struct Global {
    int32_t size;
    Global() : size(40) { bhv_constructor_note('+'); }
    ~Global() { puts("at exit: c++"); }
} global;

struct Guard {
    int32_t &count;
    ~Guard() { count += 100; }
};
} // namespace

extern "C" int32_t bhv_cxx_exception(int32_t code) {
    int32_t released = 0;
    try {
        Guard guard{released};
        behaviour::fail(code);
    } catch (const behaviour::Other &) {
        return -1;
    } catch (const behaviour::Failure &failure) {
        return released + failure.code;
    }
    return -2;
}

extern "C" int32_t bhv_cxx_cast(void) {
    behaviour::Registry *made = behaviour::make_special();
    const bool special = dynamic_cast<behaviour::Special *>(made) != nullptr;
    return made->kind() + (special ? 110 : 0);
}

extern "C" int32_t bhv_cxx_inline(void) {
    behaviour::Registry::entries += 5;
    const int32_t here = behaviour::next_number();
    const int32_t there = behaviour::number_from_two();
    return here * 10000 + there * 100 + behaviour::twice(3);
}

extern "C" int32_t bhv_cxx_global(void) { return global.size; }
