#include "shared.hpp"
#include <cstdio>
#include <memory>
#include <string>
#include <typeinfo>

extern "C" void bhv_constructor_note(char letter);

namespace {
struct Global {
    std::string text;
    Global() : text(40, 'x') { bhv_constructor_note('+'); }
    ~Global() { std::puts("at exit: c++"); }
} global;

struct Guard {
    std::int32_t &count;
    ~Guard() { count += 100; }
};
} // namespace

extern "C" std::int32_t bhv_cxx_exception(std::int32_t code) {
    std::int32_t released = 0;
    try {
        Guard guard{released};
        behaviour::fail(code);
    } catch (const behaviour::Failure &failure) {
        return released + failure.code;
    } catch (const std::exception &) {
        return -1;
    }
    return -2;
}

extern "C" std::int32_t bhv_cxx_cast(void) {
    std::unique_ptr<behaviour::Registry> made(behaviour::make_special());
    const bool special = dynamic_cast<behaviour::Special *>(made.get()) != nullptr;
    const bool same = typeid(*made) == typeid(behaviour::Special);
    return made->kind() + (special ? 10 : 0) + (same ? 100 : 0);
}

extern "C" std::int32_t bhv_cxx_inline(void) {
    behaviour::Registry::entries += 5;
    const std::int32_t here = behaviour::next_number();
    const std::int32_t there = behaviour::number_from_two();
    return here * 10000 + there * 100 + behaviour::twice(3);
}

extern "C" std::int32_t bhv_cxx_global(void) { return static_cast<std::int32_t>(global.text.size()); }
