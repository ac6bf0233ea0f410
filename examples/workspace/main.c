/* Uses three Rust libraries in one program, each with its own private std. */
#include "luhn.h"
#include "roman.h"
#include "rot13.h"

#include <stdio.h>

int main(void) {
    char *turned = rot13_text("Uryyb");
    printf("%s in MCMXCIV = %d\n", turned, roman_value("MCMXCIV"));
    rot13_free(turned);
    printf("79927398713 is %s\n", luhn_valid("79927398713") == 1 ? "valid" : "not valid");
    printf("panics inside: %d %d\n", roman_value("IQ"), luhn_valid("four"));
    printf("calls: roman %u, luhn %u, rot13 %u\n", roman_calls(), luhn_calls(), rot13_calls());
    return 0;
}
