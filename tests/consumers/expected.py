"""What the programs below `c/` print, worked out from their sources by hand."""

import math

BEHAVIOUR = """\
add: 42
version: 1.0
bump: 17
counter: 17
panic code: 42
panic drops: 901
panic nested: 37
panic index: 12 -1
panic through C: 105
panic through assembly: 106
threads: 30
thread panic: 11
thread-local drops: 9
constructors with priority: 1CM2
constructors: +cmr
priorities first: 1
set rust: 2041
set c: 321
backtrace: bhv_backtrace
backtrace: main
backtrace: text 1, frames 1
arguments: 0
words: and=2,cat=1,dog=1,end=1,the=3
map: 36
map: -36
operation: 42
no operation: 1
c common: 42
c weak: 2
c optional: -1
c distinct: 1
c indirect: 1001
c thread-local: 7 9
c day: Monday day Sunday
assembly: 30
c++ exception: 123
c++ cast: 112
c++ inline: 151608
c++ global: 40
at exit: c++
at exit: c
"""

# Without the feature `cxx`, so without its constructor and destructor too.
BEHAVIOUR_MINIMAL = "".join(
    line.replace("+cmr", "cmr") for line in BEHAVIOUR.splitlines(True) if "c++" not in line
)

# As a shared library: its constructors are all done before the program's begin, and C++ objects
# end with the library, after the functions of .fini_array.
BEHAVIOUR_SHARED = (
    BEHAVIOUR.replace("1CM2", "1C2M")
    .replace("first: 1", "first: 0")
    .replace("at exit: c++\nat exit: c\n", "at exit: c\nat exit: c++\n")
)

IMAGEQUANT = """\
set colours: 0
bad value: 100
max colours: 8
quantise: 0
remap: 0
colours: 4
corner: 0 0 40 255
corner: 255 0 40 255
corner: 0 255 40 255
corner: 255 255 40 255
quality: 100
messages: some
"""

DOLBY_VISION = """\
generated: 3
first bytes: 7c 01 19
profile: 8, type 2
active area: 1 2 276 276
same again: 1
convert to profile 8.4: 0
remove cmv40: 0
damaged: error
damaged header: 0
bad json: 0, error
"""

FALLBACKSWITCH = """\
before: none
element: GstFallbackSwitch
timeout: 1000 ms
end: eos
buffers: 20
"""

# sin(1.5 * 1.25 + 1 / 16); the digits 0 to 6 as text add up to 7 * 48 + 21
DARWIN_APPLE = f"""\
version: 0x10203
counter: 41
constructed: 7
text: value     3 Some(0.75)
panic code: 4
panic drops: 301
panic index: 12 -1
thread-local drops: 803
threads: 21
float: {math.sin(1.9375):.6f}
sum: 357
"""

DARWIN_MIXED = """\
constructed: 42
table: 3 11
common: 42
weak: 2
day: 9
day: 6
day: -23
day: 4
day: 42
day: 2
day: -1
thread-local: 70 81
c++ exception: 123 99 -2
c++ shared: 101108
c++ virtual: 2 40
assembly: 42
through C: 1006 1008
through a cleanup: 11014 11008
through assembly: 1006 1008
through DWARF: 1007 1008
"""

DARWIN_FIVE = """\
alpha: 20
beta: 30
gamma: 40
apple: 50
mixed: 1060
C and C++: 11070 180
own copies: 1 1 1
own sets: 1 1 1
"""
