# Cargo's list of a library's sources, said of the stripped library: FROM, TO, OUTPUT.
file(READ "${FROM}" text)
string(REGEX REPLACE "^[^\n]*\\.a: " "${OUTPUT}: " text "${text}")
file(WRITE "${TO}" "${text}")
